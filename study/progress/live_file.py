"""Writes and reads `live.json`, in which a running study says what its trials at work are doing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.progress.study_progress import StudyProgress
from study.records.files import write_whole
from study.records.layout import LIVE_FILE
from trainables.protocol import STAGES, ResidentStatus


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
    """What the running study wrote last; None where none is running, or nothing was written yet."""
    try:
        values: dict[str, Any] = json.loads((directory / LIVE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    statuses = [status for status in map(_status, values["statuses"]) if status is not None]
    return Live(
        values["number"],
        values["left"],
        {status.trial_id: status for status in statuses},
        {trial_id: TrialConfig.from_dict(config) for trial_id, config in values["configs"].items()},
    )


def _status(values: Mapping[str, Any]) -> ResidentStatus | None:
    """One trial's status, from the driver of another version too: earlier ones wrote the stage as `phase`.

    None where the stage is missing or not one of ours: the table then leaves the trial out.
    """
    stage = values.get("stage", values.get("phase"))
    known = {one.name: values[one.name] for one in fields(ResidentStatus) if one.name in values}
    return ResidentStatus(**{**known, "stage": stage}) if stage in STAGES else None
