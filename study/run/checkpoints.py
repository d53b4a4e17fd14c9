"""A study's checkpoints: each trial's newest whole one, and those written when the study is stopped. (no ray)"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

TUNE_FOLDER = "tune"
STATE_FILE = "training.safetensors"
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
