"""Where a study stands, read from its directory alone: trials by status, and the front so far. (no torch, no ray)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.load import Study, load_study
from analysis.wording import count_statuses
from study.reporting.summary import aligned, front_rows


def standing_text(directory: Path) -> str:
    """A study's progress and its front so far, in words. Raises StudyDirectoryError where it is none."""
    return standing(load_study(directory))


def standing(study: Study) -> str:
    """Trials that have ended, of those there are, and the front among them."""
    ended, trials = len(study.records), _trials(study.settings)
    of = f" of {trials}" if trials is not None else ""
    head = f"{study.name}: {ended}{of} trials ended"
    if not study.records:
        return head
    headings, rows = front_rows(study)
    front = f"The front so far:\n{aligned(headings, rows)}" if rows else "No trial is complete yet."
    return f"{head} ({count_statuses(study.records).partition(': ')[2]})\n\n{front}"


def _trials(settings: Any) -> int | None:
    """How many trials a resolved study file asks for; a grid runs every configuration (its trials) as they stand."""
    search = settings.get("search")
    trials = search.get("trials") if isinstance(search, dict) else None
    if not isinstance(trials, int):
        return None
    seeds = settings.get("seeds")
    many = len(seeds) if isinstance(seeds, list) and search.get("algorithm") == "grid" else 1
    return trials * many
