"""Writes and reads `live.json`, in which a running study says what its trials at work are doing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.errors import StoreError
from study.json_checks import Check, fields, number, one_of, text
from study.progress.study_progress import StudyProgress
from study.records.files import write_whole
from study.records.layout import LIVE_FILE
from study.records.lines import TRIAL_ID
from study.records.rules import BYTES, NUMBER, SHORT
from study.records.study_files import read_object
from trainables.protocol import STAGES, ResidentStatus

WHOLE = number(0, 2**53, whole=True)
STATUS: dict[str, Check] = {
    "trial_id": text(SHORT, empty=False),
    "stage": one_of(STAGES),
    **dict.fromkeys(("step", "total_steps", "pack_size"), WHOLE),
    **dict.fromkeys(("train_loss", "perplexity", "tokens_per_second"), NUMBER),
    "peak_memory_bytes": BYTES,
}
_STATUS = fields(STATUS, ("trial_id", "stage", "step", "total_steps"))
_LEFT = fields({}, others=WHOLE)


@dataclass(frozen=True)
class Live:
    """What `live.json` holds: trials still to end by precision, and the statuses of those at work."""

    number: int  # grows each time it is written
    left: Mapping[str, int]
    statuses: Mapping[str, ResidentStatus]
    configs: Mapping[str, TrialConfig]


class LiveFile:
    """Keeps `live.json` while it is entered, and removes it at the end; only a killed driver leaves one behind."""

    def __init__(self, directory: Path, progress: StudyProgress) -> None:
        self._file = directory / LIVE_FILE
        self._progress = progress
        self._number = 0

    def __enter__(self) -> LiveFile:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):  # somebody has put something else there
            self._file.unlink(missing_ok=True)

    def tell(self, statuses: Mapping[str, ResidentStatus]) -> Mapping[str, ResidentStatus]:
        """Writes the trials' statuses and returns them; a full disk does not disturb the study, only `watch`."""
        self._number += 1
        configs = {trial_id: self._progress.config(trial_id) for trial_id in statuses}
        values = {
            "number": self._number,
            "left": self._progress.left,
            "statuses": [asdict(status) for status in statuses.values()],
            "configs": {trial_id: config.to_dict() for trial_id, config in configs.items() if config},
        }
        with suppress(OSError):
            write_whole(self._file, json.dumps(values) + "\n")
        return statuses


def read_live(directory: Path) -> Live | None:
    """What the running study wrote last; None where none is running, or the file is not one that a study writes.

    Trials whose status or configuration does not hold are left out.
    """
    try:
        values = read_object(directory / LIVE_FILE, "")
    except StoreError:
        return None
    if type(values.get("number")) is not int or _LEFT(values.get("left"), ""):
        return None
    statuses = [status for status in map(_status, _list(values.get("statuses"))) if status is not None]
    configs = values.get("configs")
    known = {name: _config(one) for name, one in configs.items()} if isinstance(configs, dict) else {}
    return Live(
        values["number"],
        values["left"],
        {status.trial_id: status for status in statuses},
        {trial_id: config for trial_id, config in known.items() if config is not None},
    )


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _status(values: Any) -> ResidentStatus | None:
    """One trial's status, from the driver of another version too: earlier ones wrote the stage as `phase`.

    None where a value does not hold, such as a stage that is not one of ours: the table then leaves the trial out.
    """
    if not isinstance(values, dict):
        return None
    known = {one.name: values[one.name] for one in dataclass_fields(ResidentStatus) if one.name in values}
    known.setdefault("stage", values.get("phase"))
    if _STATUS(known, "") or not TRIAL_ID.fullmatch(known["trial_id"]):
        return None
    return ResidentStatus(**known)


def _config(values: Any) -> TrialConfig | None:
    try:
        return TrialConfig.from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
