"""A study's checkpoints: each trial's newest whole one, and those written when the study is stopped. (no ray)"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from study.records.layout import STATE_FILE, TUNE_FOLDER

STATE_SECONDS = 90.0  # for the states of all trials at work, between two of their steps


HEADER_BYTES = 8  # the length of a safetensors file's header, before it


def latest_checkpoint(directory: Path, trial_id: str) -> str | None:
    """The folder of a trial's newest whole checkpoint in any of the study's Tune folders; torn ones are passed over."""
    found = (directory / TUNE_FOLDER).glob(f"*/{trial_id}/checkpoint_*/{STATE_FILE}")
    newest_first = sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)
    return next((str(file.parent) for file in newest_first if is_whole(file)), None)


def is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: a killed writer or a full disk leaves it shorter."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(HEADER_BYTES), "little")
            if length > file.stat().st_size:
                return False
            header = json.loads(content.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == HEADER_BYTES + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False


def write_states(directory: Path, states: Mapping[str, bytes]) -> Path:
    """Writes the states of trials that are stopped on their way, each whole or not at all; answers their folder."""
    folder = directory / TUNE_FOLDER / f"stopped-{time.time_ns()}"
    for trial_id, state in states.items():
        place = folder / trial_id / "checkpoint_000000"
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"{STATE_FILE}.partial"
        with partial.open("wb") as out:
            out.write(state)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(place / STATE_FILE)
    return folder


@contextmanager
def saved_when_stopped(directory: Path, keeper: Any) -> Iterator[None]:
    """Where the study is asked to stop, keeps the state of every trial at work, for `resume` to go on from there."""
    try:
        yield
    except KeyboardInterrupt:
        save_states(directory, keeper)
        raise


def save_states(directory: Path, keeper: Any) -> None:
    """Writes the states of all trials at work; one whose host does not give it goes on from an earlier checkpoint."""
    until = time.monotonic() + STATE_SECONDS
    with _said_if_lost():
        hosts = ray.get(keeper.hosts.remote(), timeout=STATE_SECONDS)
        for answer in [host.states.remote() for host in hosts]:
            with _said_if_lost():  # one dead host must not cost the others' states
                write_states(directory, ray.get(answer, timeout=max(1.0, until - time.monotonic())))


@contextmanager
def _said_if_lost() -> Iterator[None]:
    try:
        yield
    except (ray.exceptions.RayError, TimeoutError, OSError) as error:
        logging.getLogger(__name__).warning("The states of the trials at work could not be kept: %s", error)
