"""The folder of Ray's sockets: the longest path that fits, to the byte, and folders that are none."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.cluster.ray_place import MOST_SOCKET_BYTES, SESSION, place_faults, ray_folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets, which pytest's own does not."""
    place = Path(f"/tmp/lf{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_the_limit_is_the_systems_own(short: Path) -> None:
    """A socket can be bound at a path of that many bytes, and at one more it cannot (the tolerance is none)."""
    for length, fits in ((MOST_SOCKET_BYTES, True), (MOST_SOCKET_BYTES + 1, False)):
        path = str(short / "x") + "x" * (length - len(str(short / "x")))
        with socket.socket(socket.AF_UNIX) as one:
            if fits:
                one.bind(path)
            else:
                with pytest.raises(OSError, match="too long"):
                    one.bind(path)


def test_the_session_is_as_long_as_rays_own() -> None:
    """Ray 2.60 names it `session_%Y-%m-%d_%H-%M-%S_%f_PID` (ray/_private/node.py)."""
    node = pytest.importorskip("ray._private.node")
    source = Path(node.__file__).read_text(encoding="utf-8")
    assert '"%Y-%m-%d_%H-%M-%S_%f"' in source
    assert 'f"session_{date_str}_{os.getpid()}"' in source
    assert 'default_prefix="plasma_store"' in source
    assert SESSION.startswith("session_2026-01-31_12-00-00_123456_{pid}/sockets/")


def test_a_path_is_refused_from_the_first_byte_that_is_too_long(short: Path) -> None:
    room = MOST_SOCKET_BYTES - len(f"/ray/{SESSION.format(pid=os.getpid())}")
    fitting = short / ("ä" + "x" * (room - len(str(short)) - 3))  # two bytes, one letter
    for name in (fitting, Path(f"{fitting}x")):
        name.mkdir()
    assert place_faults({"TMPDIR": str(fitting)}) == []
    (fault,) = place_faults({"TMPDIR": f"{fitting}x"})
    assert "must be 1 bytes shorter: the paths of Ray's sockets may have 107 bytes" in str(fault)
    assert "Set RAY_TMPDIR to a folder of a shorter path, such as /tmp." in str(fault)
    assert place_faults({"TMPDIR": f"{fitting}x", "RAY_TMPDIR": str(short)}) == []


def test_folders_that_are_none(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "file").write_text("x")
    for value, words in (
        (short / "none", "no such file or directory"), (short / "file", "not a directory"),
        ("", "it is no absolute path"), ("relative", "it is no absolute path"), ("~/tmp", "it is no absolute path"),
    ):  # fmt: skip
        (fault,) = place_faults({"TMPDIR": str(value)})
        assert f"must be a folder for temporary files; {words}" in str(fault)
        assert str(fault).startswith("TMPDIR: ")


def test_a_full_disk_and_one_that_cannot_be_written(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7 * 2**20))
    (fault,) = place_faults({"RAY_TMPDIR": str(short)})
    assert "must have 100 MiB free; 7 MiB are" in str(fault)


def test_ray_looks_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("ray._common.utils")
    for environment in ({}, {"TMPDIR": "/a"}, {"TMPDIR": "/a", "RAY_TMPDIR": "/b"}):
        for name in ("TMPDIR", "RAY_TMPDIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert str(ray_folder(os.environ)) == utils.get_default_ray_temp_dir()
