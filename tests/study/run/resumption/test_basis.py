"""What a study's trials depend on, as `basis.json` keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from study.config.study_config import StudyConfig, load_study
from study.plan.preflight import Preflight
from study.records.record import TrialRecord
from study.run.resumption.basis import Basis, basis_of, basis_of_records, read_basis, write_basis
from tests.support.made_up_studies import make_record, write_study_file

FOUND = Preflight(1, "llama", {"train": {"rows": 32}}, sha256="w" * 64, fingerprint="d" * 64, tokenizer_sha256="t")


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    """A study over a model's folder that holds a configuration."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"rope_theta": 1e4, "transformers_version": "5.0"}))
    return load_study(write_study_file(tmp_path, model))


def test_it_is_read_as_it_was_written(tmp_path: Path, config: StudyConfig) -> None:
    basis = replace(basis_of(config, FOUND), changes=({"dataset.fingerprint": {"was": "a", "now": "b"}},))
    write_basis(tmp_path, basis)
    assert read_basis(tmp_path) == basis
    assert basis.states["dataset.fingerprint"] == FOUND.fingerprint
    assert basis.facts["rows"] == {"train": 32}


def test_a_directory_without_one_names_none(tmp_path: Path) -> None:
    assert read_basis(tmp_path) is None


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"transformers_version": "5.23", "rope_theta": 1e4}, True),  # saved again by another version
        ({"rope_theta": 1e4}, True),
        ({"rope_theta": 1e4, "rope_scaling": None}, False),
        ({"rope_theta": 5e5}, False),
    ],
)
def test_a_model_s_configuration_counts_by_its_values(
    config: StudyConfig, values: dict[str, float], same: bool
) -> None:
    was = basis_of(config, FOUND)
    (Path(config.trial.base_model.path) / "config.json").write_text(json.dumps(values, indent=7))
    assert (basis_of(config, FOUND) == was) == same


def record(trial_id: str, fingerprint: str | None) -> TrialRecord:
    """A record that an earlier version wrote, over data of that fingerprint."""
    dataset = {} if fingerprint is None else {"fingerprint": fingerprint, "statistics": {"train": {"rows": 7}}}
    return replace(make_record(trial_id), base_model={"path": "m", "sha256": "abc"}, dataset=dataset)


def test_of_an_earlier_version_s_study_the_last_record_that_names_it_counts() -> None:
    found = basis_of_records([record("t0", "first"), record("t1", "second"), record("t2", None)])
    assert found.states == {"base_model.sha256": "abc", "dataset.fingerprint": "second"}
    assert found.facts == {"rows": {"train": 7}}
    assert basis_of_records([record("t2", None)]) == basis_of_records([]) == Basis({}, {}, "later")


@pytest.mark.parametrize(
    ("since", "changed", "takes"),
    [("start", False, False), ("records", False, True), ("later", False, True), ("records", True, False)],
)
def test_unnamed_checkpoints_fit_only_a_study_of_an_earlier_version(since: str, changed: bool, takes: bool) -> None:
    assert Basis({}, since=since, changes=({},) if changed else ()).takes_unnamed == takes
