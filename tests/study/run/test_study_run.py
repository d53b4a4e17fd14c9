"""A study's place in a store, its checkpoints there or here, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.config.study_config import load_study
from study.run import study_run
from study.run.study_run import StudyRun
from tests.support.made_up_studies import make_config, make_record, write_study_file


def test_a_confirmation_s_place_in_a_store_is_in_its_study_s(tmp_path: Path) -> None:
    config = load_study(write_study_file(tmp_path, storage="s3://bucket/runs"))
    urls = []
    for name in ("one", "other"):
        directory = tmp_path / name
        (directory / "confirm").mkdir(parents=True)
        (directory / "study.yaml").touch()
        for place in (directory, directory / "confirm"):
            urls.append(StudyRun(config, place, None, None).url)  # type: ignore[arg-type]
    assert urls == [
        "s3://bucket/runs/one", "s3://bucket/runs/one/confirm",
        "s3://bucket/runs/other", "s3://bucket/runs/other/confirm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("storage", "found"), [("s3://bucket/runs", "of s3://bucket/runs/x: t1"), ("here", "in x: t1")]
)
def test_a_checkpoint_is_looked_for_where_the_study_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, found: str
) -> None:
    monkeypatch.setattr(study_run, "stored_checkpoint", lambda url, trial_id: f"of {url}: {trial_id}")
    monkeypatch.setattr(
        study_run, "latest_checkpoint", lambda directory, trial_id, basis: f"in {directory.name}: {trial_id}"
    )
    config = load_study(write_study_file(tmp_path, storage=storage))
    assert StudyRun(config, tmp_path / "x", None, None).checkpoint("t1") == found  # type: ignore[arg-type]


def test_what_has_no_record_is_left_to_run(tmp_path: Path) -> None:
    config = load_study(write_study_file(tmp_path))
    records = [make_record("t0", make_config("nf4")), make_record("t1", make_config("nf4", 2), status="failed")]
    records.append(make_record("t9", make_config("fp32")))  # of no trial of this search, so that it ends none
    search: Any = SimpleNamespace(count={"fp32": 2, "nf4": 2}.__getitem__, trial_ids=("t0", "t1"))
    store: Any = SimpleNamespace(records=lambda: records)
    assert StudyRun(config, tmp_path, search, store).remaining() == {"fp32": 2, "nf4": 0}
    records *= 2  # more than were counted: none is left, and not fewer than none
    assert StudyRun(config, tmp_path, search, store).remaining() == {"fp32": 2, "nf4": 0}
