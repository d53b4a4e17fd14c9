"""Which checkpoint a study continues from, the newest whole one, and the states that a stopped study writes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from study.run.resumption.basis import Basis
from study.run.resumption.checkpoints import (
    UNNAMED,
    foreign_names,
    is_whole,
    latest_checkpoint,
    passed_over,
    save_states,
    saved_when_stopped,
    write_states,
)

STATE = save({"weight": np.ones((3, 4), np.float32), "step": np.array(7.0)}, metadata={"training": "{}"})


def put(directory: Path, run: str, number: int, content: bytes, age: float) -> Path:
    """A checkpoint of trial `t1` in one of the study's Tune folders, so many seconds old."""
    folder = directory / "tune" / run / "t1" / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    file = folder / "training.safetensors"
    file.write_bytes(content)
    os.utime(file, (1e9 - age, 1e9 - age))
    return folder


def test_the_newest_of_all_folders_counts(tmp_path: Path) -> None:
    put(tmp_path, "fp32-1", 0, STATE, age=30)
    newest = put(tmp_path, "fp32-2", 0, STATE, age=10)
    put(tmp_path, "fp32-1", 1, STATE, age=20)
    assert latest_checkpoint(tmp_path, "t1") == str(newest)
    assert latest_checkpoint(tmp_path, "t2") is None


@pytest.mark.parametrize("torn", [b"", STATE[:5], STATE[:40], STATE[:-1], STATE + b"x", b"\xff" * 64, b"\0" * 64])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    whole = put(tmp_path, "fp32-1", 0, STATE, age=20)
    broken = put(tmp_path, "fp32-1", 1, torn, age=10)
    assert not is_whole(broken / "training.safetensors")
    assert latest_checkpoint(tmp_path, "t1") == str(whole)
    (whole / "training.safetensors").unlink()
    assert latest_checkpoint(tmp_path, "t1") is None


@given(st.integers(0, len(STATE)))
def test_only_the_full_length_is_whole(length: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state"
        file.write_bytes(STATE[:length])
        assert is_whole(file) == (length == len(STATE))


def test_the_states_of_a_stopped_study_are_its_newest_checkpoints(tmp_path: Path) -> None:
    put(tmp_path, "fp32-1", 0, STATE, age=20)
    folder = write_states(tmp_path, {"t1": STATE, "t2": STATE})
    for name in ("t1", "t2"):
        found = latest_checkpoint(tmp_path, name)
        assert found is not None
        assert Path(found).is_relative_to(folder)
    assert not list(folder.rglob("*.partial"))


def test_a_disk_that_is_full_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    earlier = put(tmp_path, "fp32-1", 0, STATE, age=20)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_states(tmp_path, {"t1": STATE})
    assert latest_checkpoint(tmp_path, "t1") == str(earlier)


# -- the states of trials at work --------------------------------------------------------------------------------------


def keeper_of(*states: Mapping[str, bytes] | Exception) -> Any:
    """A keeper whose hosts give these states, or fail so."""
    hosts = [SimpleNamespace(states=SimpleNamespace(remote=lambda one=one: one)) for one in states]
    return SimpleNamespace(hosts=SimpleNamespace(remote=lambda: hosts))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray.get` returns what a made-up keeper gives."""

    def get(given: Any, timeout: float) -> Any:
        assert timeout > 0
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(ray, "get", get)


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("trouble", [ray.exceptions.RayActorError(), TimeoutError("busy"), OSError("no space")])
def test_a_dead_host_costs_no_other_s_states(
    tmp_path: Path, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        save_states(tmp_path, keeper_of({"t000": b"first"}, trouble, {"t001": b"second"}))
    kept = {file.read_bytes() for file in tmp_path.rglob("*.safetensors")}
    assert kept == {b"first", b"second"}
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "The states of the trials at work could not be kept"
    ]


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize(("end", "kept"), [(KeyboardInterrupt, True), (RuntimeError, False), (None, False)])
def test_states_are_kept_where_the_study_is_stopped_and_only_there(
    tmp_path: Path, end: type[BaseException] | None, kept: bool
) -> None:
    def run() -> None:
        with saved_when_stopped(tmp_path, keeper_of({"t1": STATE})):
            if end is not None:
                raise end

    if end is None:
        run()
    else:
        with pytest.raises(end):
            run()
    assert (latest_checkpoint(tmp_path, "t1") is not None) == kept


# -- the basis that they name ------------------------------------------------------------------------------------------

BASIS = Basis({"dataset.fingerprint": "a", "training.max_steps": 12})


def named(basis: object) -> bytes:
    """A state that names this basis."""
    return save({"weight": np.ones(3, np.float32)}, metadata={"training": json.dumps({"basis": basis})})


@pytest.mark.parametrize(
    ("states", "foreign"),
    [
        ({"dataset.fingerprint": "a", "training.max_steps": 12}, ()),
        ({"dataset.fingerprint": "a"}, ()),  # of a version that named less
        ({"dataset.fingerprint": "b", "training.max_steps": 12}, ("dataset.fingerprint",)),
        ({"dataset.fingerprint": "b", "training.max_steps": 24}, ("dataset.fingerprint", "training.max_steps")),
        (None, (UNNAMED,)),
        ([], ()),
        (7, (UNNAMED,)),
    ],
)
def test_a_checkpoint_of_another_study_is_passed_over(tmp_path: Path, states: object, foreign: tuple[str, ...]) -> None:
    own = put(tmp_path, "fp32-1", 0, named(dict(BASIS.states)), age=20)
    newer = put(tmp_path, "fp32-2", 0, named(states), age=10)
    assert foreign_names(newer / "training.safetensors", BASIS) == foreign
    assert latest_checkpoint(tmp_path, "t1", BASIS) == str(own if foreign else newer)
    assert passed_over(tmp_path, "t1", BASIS) == foreign
    assert latest_checkpoint(tmp_path, "t1") == str(newer)  # where nothing is known of the study's basis


def test_a_trial_without_a_checkpoint_passes_none_over(tmp_path: Path) -> None:
    assert passed_over(tmp_path, "t1", BASIS) == ()
    put(tmp_path, "fp32-1", 0, b"torn", age=0)
    assert passed_over(tmp_path, "t1", BASIS) == ()


def test_a_pipe_in_a_checkpoint_s_place_is_passed_over(tmp_path: Path) -> None:
    own = put(tmp_path, "fp32-1", 0, named(dict(BASIS.states)), age=20)
    folder = tmp_path / "tune/fp32-2/t1/checkpoint_000000"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "training.safetensors")
    assert latest_checkpoint(tmp_path, "t1", BASIS) == str(own)
