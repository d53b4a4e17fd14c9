"""Words a study's progress: the lines that are printed, and the live table with its columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from analysis.pareto import best
from analysis.wording import DASH, configuration_name, format_duration, format_share, format_value
from search_spaces.trial_config import TrialConfig
from study.progress.pace import Remaining
from study.records.record import STATUSES, TrialRecord
from study.reporting.naming import short_name
from trainables.protocol import ResidentStatus

if TYPE_CHECKING:
    from study.progress.study_progress import StudyProgress

SILENCE_SECONDS = 30.0  # without a status of any trial, before the line says so
HEADINGS = ("trial", "configuration", "stage", "step", "loss", "perplexity", "pack", "tokens/s", "memory")


def remaining_text(remaining: Remaining | None) -> str:
    """The estimated time left, rounded up: `about 2 min 10 s left`, or `at least 40 s left` for a lower bound."""
    if remaining is None:
        return "time left unknown"
    seconds = remaining.seconds
    step = 5 if seconds < 60 else 10 if seconds < 600 else 60
    rounded = step * math.ceil(seconds / step)
    return f"{'about' if remaining.complete else 'at least'} {format_duration(rounded)} left"


def ended_line(record: TrialRecord, trials: int, number: int) -> str:
    """How a trial ended, in one line; it is the `number`-th of `trials`."""
    head = f"[{number}/{trials}] {record.trial_id} {record.status}: {configuration_name(record)}"
    if record.status not in ("complete", "stopped"):
        return f"{head}: {_one_line(record.reason or 'no reason given')}"
    return f"{head}: {results_text(record)}"


def results_text(record: TrialRecord) -> str:
    """A trial's main numbers: `perplexity 14.20 (base model 16.90), 612.3 MiB, 410 tokens/s`."""
    found, base = record.measurements, record.measurements["base_perplexity"]
    parts = ["perplexity " + format_value("perplexity", found["perplexity"])]
    if base is not None:
        parts[0] += f" (base model {format_value('perplexity', base)})"
    if found["accuracy"] is not None:
        parts.append("accuracy " + format_value("accuracy", found["accuracy"]))
    if found["peak_memory_bytes"] is not None:
        parts.append(format_value("peak_memory_bytes", found["peak_memory_bytes"]))
    if found["train_tokens_per_second"] is not None:
        parts.append(format_value("train_tokens_per_second", found["train_tokens_per_second"]) + " tokens/s")
    return ", ".join(parts)


def line(progress: StudyProgress) -> str:
    """Where the study stands, in one line."""
    stages = Counter(status.stage for status in progress.at_work)
    doing = ", ".join(f"{count} {stage}{_share(progress, stage)}" for stage, count in stages.items())
    parts = [_counts(progress), doing or "waiting for the base model", *_notes(progress)]
    return "; ".join([*parts, _time(progress)])


def table(progress: StudyProgress) -> Table:
    """The trials at work, one a row; the ended ones, the pace and the best so far below them."""
    view = Table(*HEADINGS, title=_counts(progress), caption=_caption(progress), expand=False)
    for column in view.columns[3:]:
        column.justify = "right"
    for status in progress.at_work:
        view.add_row(*(Text(cell) for cell in _cells(status, progress.config(status.trial_id))))
    return view


def _cells(status: ResidentStatus, config: TrialConfig | None) -> Sequence[str]:
    return (
        status.trial_id,
        short_name(config),
        status.stage,
        f"{status.step}/{status.total_steps}",
        DASH if status.train_loss is None else f"{status.train_loss:.3f}",
        format_value("perplexity", status.perplexity),
        f"{status.pack_size} together" if status.pack_size > 1 else "alone",
        format_value("train_tokens_per_second", status.tokens_per_second),
        format_value("peak_memory_bytes", status.peak_memory_bytes),
    )


def _counts(progress: StudyProgress) -> str:
    counts = Counter(str(record.status) for record in progress.ended)
    kinds = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(progress.ended)} of {progress.trials} trials ended" + (f" ({kinds})" if kinds else "")


def _caption(progress: StudyProgress) -> str:
    notes = [*_notes(progress), _time(progress)]
    top = best(progress.ended, progress.objectives) if progress.ended else None
    if top is not None:
        notes.append(f"best so far: {short_name(top.config)}, {results_text(top)}")
    return "; ".join(notes)


def _notes(progress: StudyProgress) -> list[str]:
    notes = []
    if progress.adapters_together > 1:
        notes.append(f"{progress.adapters_together} adapters together")
    if progress.silence_seconds > SILENCE_SECONDS:
        notes.append(f"nothing heard of the trials for {format_duration(round(progress.silence_seconds))}")
    return notes


def _time(progress: StudyProgress) -> str:
    return f"{format_duration(round(progress.seconds))} elapsed, {remaining_text(progress.remaining())}"


def _share(progress: StudyProgress, stage: str) -> str:
    """The share of their steps that the trials in training have done together: ` (45 %)`."""
    steps = [(one.step, one.total_steps) for one in progress.at_work if one.stage == stage == "training"]
    total = sum(whole for _, whole in steps)
    return f" ({format_share(round(sum(done for done, _ in steps) / total, 2))})" if total else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
