"""Names the basis of a study that begins, and holds a continued study to that of its beginning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from study.config.study_config import StudyConfig
from study.output import plural, say
from study.plan.preflight import Preflight
from study.records.layout import BASIS_FILE
from study.records.store import ResultsStore
from study.run.resumption.basis import LATER, RECORDS, Basis, basis_of, basis_of_records, read_basis, write_basis
from study.run.resumption.changes import continued
from study.run.resumption.checkpoints import passed_over
from study.run.study_run import StudyRun

_UNNOTED = (
    f"The study's directory does not say what its trials depend on: an earlier version began it, or {BASIS_FILE} was "
    "removed."
)
UNKNOWN = {
    RECORDS: f"{_UNNOTED} Data and base model are held to those of its records.",
    LATER: f"{_UNNOTED} It continues over the data and the base model that are there now.",
}


def hold_to_basis(study: StudyRun, accept: bool) -> StudyRun:
    """Returns a checked study with the basis that it continues on, which is written down; as it was where unchecked.

    Says it where none was noted at the beginning, and what accepted changes mean. Raises ConfigError with every
    difference that is not accepted.
    """
    if study.found is None:
        return study
    records = study.store.records()
    noted = read_basis(study.directory)
    was = noted or basis_of_records(records)
    basis = continued(study.directory, was, basis_of(study.config, study.found), accept)
    if noted is None:
        say(UNKNOWN[was.since])
    if basis.changes != was.changes:
        ended = plural(len(records), "trial")
        say(f"Changed data is accepted: {ended} ended on what was before, and do not compare with those to come.")
    if basis != noted:
        write_basis(study.directory, basis)
    study = replace(study, basis=basis)
    _tell_foreign_states(study, basis)
    return study


def check_like(directory: Path, config: StudyConfig, found: Preflight | None, accept: bool) -> None:
    """Raises ConfigError where another study, in that directory, depends on something else than this one would.

    Nothing is known of a directory that an earlier version made and that has no record.
    """
    if found is not None:
        was = read_basis(directory) or basis_of_records(ResultsStore(directory).records())
        continued(directory, was, basis_of(config, found), accept)


def _tell_foreign_states(study: StudyRun, basis: Basis) -> None:
    """Says which trials do not continue from their newest checkpoint; in an object store their hosts refuse those."""
    for one in study.search.unfinished() if study.url is None else ():
        names = passed_over(study.directory, one.trial_id, basis)
        if names:
            say(f"{one.trial_id}: its newest checkpoint is not continued, which differs in {', '.join(names)}.")
