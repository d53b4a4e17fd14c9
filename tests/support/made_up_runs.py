"""Studies begun, played and killed without Ray: what stands in for a run of their trials."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from study.config.study_config import StudyConfig
from study.run.lifecycle import begin
from study.run.study_run import StudyRun
from tests.support.made_up_studies import make_record

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
COMMAND = "python -m study run study.yaml"
Run = Callable[[StudyRun, Callable[[str], None]], None]


def play(study: StudyRun, most: int = 100, status: str = "complete", told: bool = True, recorded: bool = True) -> None:
    """Runs trials as the driver does: unfinished ones first, then what the search proposes; writes their adapters."""
    for precision in study.config.space.precisions():
        first = [one for one in study.search.unfinished() if one.config.precision == precision]
        while most > 0:
            proposal = first.pop(0) if first else study.search.ask(precision)
            if proposal is None:
                break
            record = make_record(proposal.trial_id, proposal.config, status)
            (study.directory / "adapters" / proposal.trial_id).mkdir(parents=True, exist_ok=True)
            if told:
                values = (record.measurements["perplexity"], record.measurements["peak_memory_bytes"])
                study.search.tell(proposal.trial_id, status, values if status == "complete" else None, record.reason)
            if recorded:
                assert study.store.append(record)
            most -= 1


def begun(config: StudyConfig, out: Path | None = None) -> StudyRun:
    return begin(config, out, COMMAND, NOW)


def kill(study: StudyRun) -> Path:
    """What the end of a process does to the directory's lock."""
    study.store.close()
    return study.directory
