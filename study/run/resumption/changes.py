"""Refuses to continue a study whose basis has changed, with all differences at once; accepts changed data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.errors import Absent, ConfigError, ConfigFault
from study.records.layout import STUDY_FILE
from study.run.resumption.basis import BASE_CONFIG, RECORDS, Basis
from trainables.comparability import BASE_WEIGHTS, DATA, EARLIER, ENGINE, differences

OPTION = "--accept-changed-data"
ACCEPTABLE = (DATA, ENGINE)
SHOWN_HASH = 12  # characters, enough to tell two hashes apart
ACCEPT = (
    f"or continue with {OPTION}: trials that have ended keep their records, which do not compare with those to come, "
    "and trials at work begin anew"
)


def continued(directory: Path, was: Basis, now: Basis, accept: bool) -> Basis:
    """Returns the basis to continue on: `now`, with the changes accepted so far.

    Raises ConfigError where something differs that is not accepted: `accept` takes changed data and another engine,
    nothing takes another base model or other training settings.
    """
    names = differences(was.states, now.states)
    refused = [name for name in names if not (accept and name in ACCEPTABLE)]
    if refused:
        raise ConfigError(fault for name in refused for fault in _faults(directory, name, was, now))
    since = was.since
    if not names:
        return replace(now, since=since, changes=was.changes)
    change = {name: {"was": was.states[name], "now": now.states[name]} for name in names}  # acceptable, so in both
    return replace(now, since=since, changes=(*was.changes, change))


def _faults(directory: Path, name: str, was: Basis, now: Basis) -> list[ConfigFault]:
    """What is said of one difference: of data, each of its settings that differs as well."""
    file, before, value = directory / STUDY_FILE, {**EARLIER, **was.states}[name], now.states[name]
    if name == DATA:
        return _data_faults(file, was, now)
    if name in (BASE_WEIGHTS, BASE_CONFIG):
        what = "weights" if name == BASE_WEIGHTS else "configuration (config.json)"
        rule = f"must have the {what} that the study began with, {_short(before)}; it has {_short(value)}"
        model = now.facts.get("base_model", {})
        on_hub = model.get("kind") == "hub"
        back = f"Set base_model.revision to {before}" if on_hub else "Put the model back"
        path = model.get("path", Absent.UNSHOWN)
        return [ConfigFault(str(file), "base_model.path", path, rule, f"{back}, or {_anew(file)}")]
    if name == ENGINE:
        rule = f"must be what the study began with, {before}"
        remedy = f"Check out the version that began the study (its commit is in provenance.json), {ACCEPT}."
        return [ConfigFault(str(directory), "engine version", value, rule, remedy)]
    rule = f"must be what the study began with, {before}"
    return [ConfigFault(str(file), name, value, rule, f"Set it back, or {_anew(file)}")]


def _data_faults(file: Path, was: Basis, now: Basis) -> list[ConfigFault]:
    settings, before = now.facts.get("dataset", {}), was.facts.get("dataset", {})
    changed = list(differences(before, settings))
    faults = [
        ConfigFault(
            str(file), f"dataset.{name}", settings[name], f"must be what the study began with, {before[name]}",
            f"Set it back, {ACCEPT}.",
        )
        for name in changed
    ]  # fmt: skip
    if changed:
        return faults
    rule = f"must give the rows that the study began with, {_rows(was)}; it gives {_rows(now)}"
    where = settings.get("train_file") or settings.get("source") or settings.get("name")
    return [ConfigFault(str(file), "dataset", where, f"{rule}{_cause(was, now)}", f"Put them back, {ACCEPT}.")]


def _cause(was: Basis, now: Basis) -> str:
    """Says why equal rows may have other tokens: another tokenizer, or a version that tokenized otherwise."""
    before, here = was.facts.get("tokenizer"), now.facts.get("tokenizer")
    if was.since == RECORDS and was.facts.get("rows") == now.facts.get("rows"):
        return "; an earlier version began it: where the file is the same, that one tokenized it otherwise"
    if before and here and before != here:
        return f"; the tokenizer has changed, it was {_short(before)} and is {_short(here)}"
    return ""


def _rows(basis: Basis) -> str:
    rows: Mapping[str, Any] = basis.facts.get("rows", {})
    counts = ", ".join(f"{count} {name}" for name, count in rows.items())
    return f"{counts}, tokens {_short(basis.states[DATA])}" if counts else f"tokens {_short(basis.states[DATA])}"


def _anew(file: Path) -> str:
    return f"begin a study of its own: python -m study run {file}"


def _short(value: Any) -> str:
    return str(value)[:SHOWN_HASH]
