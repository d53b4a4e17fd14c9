"""Writes and reads `timeline.json`: where the time of a study's processes went, in each run of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from study.errors import StoreError
from study.records.files import write_whole
from study.records.layout import HOST_SECONDS_FILE, TIMELINE_FILE
from study.records.study_files import read_object
from trainables.timeline import DRIVER, Stage

MOST_RUNS = 10  # that are kept: the first and the resumptions after it, the newest ones
MOST_STAGES = 20_000  # that are read of a run
MOST_HOSTS, MOST_KINDS = 100, 20  # that are read of `host_seconds.json`
LONGEST_TEXT = 200
MOST_TIMES = 2**53
MOST_SECONDS = 1e11  # since the epoch: what is beyond is no time of a machine's clock
REMEDY = "Remove it: the study's records do not depend on it."

Run = tuple[Stage, ...]  # the stages of one `run` or `resume` of a study


def write_timeline(directory: Path, stages: Sequence[Stage]) -> None:
    """Writes a run's stages, in place of what was written of the same run, after those of the runs before it.

    A run is known by when its driver began. What cannot be written, or read of earlier runs, costs these numbers alone.
    """
    try:
        before = read_timeline(directory)
    except StoreError:
        before = ()
    runs = [*(run for run in before if began(run) != began(stages)), tuple(stages)][-MOST_RUNS:]
    values = {"runs": [{"stages": [_values(one) for one in run]} for run in runs]}
    with suppress(OSError):  # a full disk: the study's end says so where it costs more than this
        write_whole(directory / TIMELINE_FILE, json.dumps(values, separators=(",", ":")) + "\n")


def read_timeline(directory: Path, remedy: str = REMEDY) -> tuple[Run, ...]:
    """Returns the stages of each run of a study, the newest run last; nothing where there is no time line.

    What is no stage is left out. Raises StoreError, with that remedy, where it is no file of JSON, or too large.
    """
    runs = read_object(directory / TIMELINE_FILE, remedy).get("runs")
    return tuple(_run(run) for run in runs[-MOST_RUNS:]) if isinstance(runs, list) else ()


def read_host_seconds(directory: Path, remedy: str = REMEDY) -> dict[str, dict[str, float]]:
    """Returns the seconds by kind of work of each host, from studies before there was a time line.

    What is no number of seconds is left out. Raises StoreError, with that remedy, as `read_timeline` does.
    """
    values = read_object(directory / HOST_SECONDS_FILE, remedy)
    return {
        host: {kind: float(seconds) for kind, seconds in of_host.items() if _is_text(kind) and _is_time(seconds)}
        for host, of_host in islice(values.items(), MOST_HOSTS)
        if _is_text(host) and isinstance(of_host, dict) and len(of_host) <= MOST_KINDS
    }


def began(stages: Iterable[Stage]) -> float:
    """Returns when a run began, in seconds since the epoch, to the millisecond; that is, its driver did."""
    times = [(one.process != DRIVER, one.began) for one in stages]
    return round(min(times)[1], 3) if times else 0.0


def _values(stage: Stage) -> dict[str, Any]:
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(stage).items()}
    return rounded if stage.times > 1 else {name: rounded[name] for name in ("process", "name", "began", "ended")}


def _run(values: Any) -> Run:
    stages = values.get("stages") if isinstance(values, dict) else None
    found = (_stage(one) for one in stages) if isinstance(stages, list) else ()
    return tuple(islice((one for one in found if one is not None), MOST_STAGES))


def _stage(values: Any) -> Stage | None:
    """A stage of a file that anybody may have changed; None where a value is not what it must be."""
    if not isinstance(values, dict):
        return None
    process, name, began, ended = values.get("process"), values.get("name"), values.get("began"), values.get("ended")
    if not (_is_text(process) and _is_text(name) and _is_time(began) and _is_time(ended) and began <= ended):
        return None
    seconds, times = values.get("seconds", ended - began), values.get("times", 1)
    if not (_is_time(seconds) and isinstance(times, int) and not isinstance(times, bool) and 1 <= times <= MOST_TIMES):
        return None
    return Stage(process, name, began, ended, min(seconds, ended - began), times)


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_SECONDS
