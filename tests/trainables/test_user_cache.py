"""The user's cache: whole entries or none, made once, between processes too."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from trainables.user_cache import CacheEntry, cache_root, cached_folder, digest, file_sha256


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _make(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text("alpha")
    (folder / "sub" / "b.txt").write_text("beta")


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/own", "/xdg", Path("/own")),
        (None, "/xdg", Path("/xdg/lora-frontier")),
        (None, None, Path("/home/x/.cache/lora-frontier")),
        ("", "", Path("/home/x/.cache/lora-frontier")),
        ("~/c", None, Path("/home/x/c")),
    ],
)
def test_the_root_is_read_when_it_is_asked_for(
    own: str | None, xdg: str | None, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    for name, value in (("LORA_FRONTIER_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_root() == expected


def test_an_entry_is_made_once() -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        _make(folder)

    first, second = cached_folder("k", "x", make), cached_folder("k", "x", make)
    assert first == second
    assert len(calls) == 1
    assert (first / "sub" / "b.txt").read_text() == "beta"
    assert cached_folder("k", "y", make) != first


@pytest.mark.parametrize("damage", ["truncate", "delete", "no manifest", "bad manifest", "empty manifest"])
def test_a_damaged_entry_is_made_anew(damage: str) -> None:
    folder = cached_folder("k", "x", _make)
    manifest = folder / "manifest.json"
    match damage:
        case "truncate":
            (folder / "a.txt").write_text("al")
        case "delete":
            (folder / "sub" / "b.txt").unlink()
        case "no manifest":
            manifest.unlink()
        case "bad manifest":
            manifest.write_text("[1")
        case "empty manifest":
            manifest.write_text("{}")
    assert not CacheEntry("k", "x").intact()
    cached_folder("k", "x", _make)
    assert CacheEntry("k", "x").intact()
    assert (folder / "a.txt").read_text() == "alpha"


def test_a_failed_make_leaves_nothing(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached_folder("k", "x", fail)
    assert [path.name for path in (own_cache / "k").iterdir() if path.is_dir()] == []
    assert cached_folder("k", "x", _make).is_dir()


def test_what_a_killed_process_left_is_removed(own_cache: Path) -> None:
    left_over = own_cache / "k" / "x.partial-abc"
    left_over.mkdir(parents=True)
    (left_over / "half").write_text("x")
    other = own_cache / "k" / "xy.partial-abc"
    other.mkdir()
    cached_folder("k", "x", _make)
    assert not left_over.exists()
    assert other.exists()  # of another key, whose lock we do not hold


def test_processes_make_an_entry_once(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from trainables.user_cache import cached_folder\n"
        "def make(folder):\n"
        "    with open(sys.argv[1], 'a') as log: log.write('made\\n')\n"
        "    (folder / 'a').write_text('x' * 10)\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'b').write_text('y' * 10)\n"
        "folder = cached_folder('k', 'x', make)\n"
        "assert (folder / 'b').read_text() == 'y' * 10\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    processes = [subprocess.Popen(command, cwd=ROOT, env=dict(os.environ)) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, own_cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert file_sha256(file) == hashlib.sha256(b"one").hexdigest()
    (note,) = (own_cache / "sha256").iterdir()
    note.write_text(json.dumps({"sha256": "remembered"}))
    assert file_sha256(file) == "remembered"
    file.write_bytes(b"other")
    assert file_sha256(file) == hashlib.sha256(b"other").hexdigest()


def test_a_hash_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"one")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "file" / "below"))  # no folder can be made there
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"one").hexdigest()


def test_a_key_depends_on_values_and_not_on_their_order() -> None:
    assert digest({"a": 1, "b": "x"}) == digest({"b": "x", "a": 1})
    assert digest({"a": 1, "b": "x"}) != digest({"a": 1, "b": "y"})
    assert len(digest({})) == 32
