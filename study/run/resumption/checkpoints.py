"""Finds trials' newest whole checkpoints of the study's basis, and writes those of trials at work at a stop.

How often a trial at work writes one is `CHECKPOINT_SECONDS` of `trainables.actors.lora_trial`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study.records.layout import STOPPED_PREFIX, TUNE_FOLDER
from study.run.resumption.basis import Basis
from trainables.comparability import differences
from trainables.guarded_files import open_regular, parse_json
from trainables.protocol import STATE_FILE

STATE_SECONDS = 90.0  # for the states of all trials at work, between two of their steps
HEADER_BYTES = 8  # the length of a safetensors file's header, before it
MOST_HEADER_BYTES = 64 * 2**20
UNNAMED = "no basis is named in it"


def latest_checkpoint(directory: Path, trial_id: str, basis: Basis | None = None) -> str | None:
    """Returns the folder of a trial's newest whole checkpoint in any of the study's Tune folders; None for none.

    Torn ones are passed over, and those of another basis where the study's is known: of other data, another base model,
    other training settings or another engine.
    """
    newest_first = sorted(_checkpoints(directory, trial_id), key=lambda file: file.stat().st_mtime, reverse=True)
    fitting = (file for file in newest_first if is_whole(file) and not foreign_names(file, basis))
    return next((str(file.parent) for file in fitting), None)


def passed_over(directory: Path, trial_id: str, basis: Basis) -> tuple[str, ...]:
    """Returns in what the newest whole checkpoint of a trial differs from the study's basis; nothing for none."""
    whole = [file for file in _checkpoints(directory, trial_id) if is_whole(file)]
    newest = max(whole, key=lambda file: file.stat().st_mtime, default=None)
    return () if newest is None else foreign_names(newest, basis)


def _checkpoints(directory: Path, trial_id: str) -> Iterator[Path]:
    return (directory / TUNE_FOLDER).glob(f"*/{trial_id}/checkpoint_*/{STATE_FILE}")


def is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: a killed writer or a full disk leaves it shorter."""
    try:
        length, header = _header(file)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == HEADER_BYTES + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False


def foreign_names(file: Path, basis: Basis | None) -> tuple[str, ...]:
    """Returns the names under which a whole checkpoint's basis differs from the study's; nothing where none is known.

    A checkpoint that names no basis, of an earlier version, fits where the study's was begun by such a version too.
    """
    if basis is None:
        return ()
    try:
        was = parse_json(_header(file)[1]["__metadata__"]["training"])["basis"]
        return differences(was, basis.states)
    except (OSError, ValueError, KeyError, TypeError):
        return () if basis.takes_unnamed else (UNNAMED,)


def _header(file: Path) -> tuple[int, Any]:
    """The length of a safetensors file's header in bytes, and the header."""
    with open_regular(file) as content:
        length = int.from_bytes(content.read(HEADER_BYTES), "little")
        if length > min(file.stat().st_size, MOST_HEADER_BYTES):
            raise ValueError("the header is longer than the file may be")
        return length, parse_json(content.read(length))


@contextmanager
def saved_when_stopped(directory: Path, keeper: Any) -> Iterator[None]:
    """Writes the state of every trial at work where the study is asked to stop, for `resume` to continue from."""
    try:
        yield
    except KeyboardInterrupt:
        save_states(directory, keeper)
        raise


def save_states(directory: Path, keeper: Any) -> None:
    """Writes the states of all trials at work, which the keeper's hosts give.

    A trial whose host does not give its state continues from an earlier checkpoint; a warning says why.
    """
    import ray  # here and not above: what `resume` finds is looked for before Ray is started

    until = time.monotonic() + STATE_SECONDS
    with _warned_if_lost():
        hosts = ray.get(keeper.hosts.remote(), timeout=STATE_SECONDS)
        for state in [host.states.remote() for host in hosts]:
            with _warned_if_lost():  # one dead host must not cost the others' states
                write_states(directory, ray.get(state, timeout=max(1.0, until - time.monotonic())))


def write_states(directory: Path, states: Mapping[str, bytes]) -> Path:
    """Writes each state as a checkpoint of its trial, whole or not at all, and returns the folder of them all."""
    folder = directory / TUNE_FOLDER / f"{STOPPED_PREFIX}{time.time_ns()}"
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
def _warned_if_lost() -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, TimeoutError, OSError) as error:
        logging.getLogger(__name__).warning("The states of the trials at work could not be kept: %s", error)
