"""The job as it is asked for, and which storage is fit for it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from study.cluster.job_request import job_request, job_storage, resume_request
from study.config.study_config import ConfigError, load_study
from tests.support.made_up_studies import write_study_file

NOW = datetime(2026, 1, 31, 12, 0, 5)


def test_a_job_runs_the_study_of_its_package_into_the_storage(tmp_path: Path) -> None:
    request = job_request(load_study(write_study_file(tmp_path)), "/shared/my runs/", NOW)
    assert request.job_id == "made-up-20260131-120005"
    assert request.directory == "/shared/my runs/made-up-20260131-120005"
    assert request.command == f"python -m study run job/study.yaml --out '{request.directory}'"
    assert request.metadata == {"study_directory": request.directory}
    assert int(request.environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60  # Ray's own 3 s are too short for checkpoints


def test_a_study_in_a_bucket_is_written_on_the_node_first(tmp_path: Path) -> None:
    request = job_request(load_study(write_study_file(tmp_path)), "s3://bucket/runs", NOW)
    assert request.directory == "s3://bucket/runs/made-up-20260131-120005"
    assert request.command.endswith("--out made-up-20260131-120005")


def test_nothing_of_this_environment_goes_with_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijk")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    assert "hf_abc" not in repr(job_request(load_study(write_study_file(tmp_path)), "/shared", NOW))
    assert "012345" not in repr(job_request(load_study(write_study_file(tmp_path)), "/shared", NOW))


def test_a_study_continues_as_another_job() -> None:
    request = resume_request("/shared/runs/made-up-20260130-110000/", NOW)
    assert request.command == "python -m study resume /shared/runs/made-up-20260130-110000"
    assert request.job_id == "made-up-20260130-110000-resumed-20260131-120005"
    assert request.directory == "/shared/runs/made-up-20260130-110000"


@pytest.mark.parametrize("storage", ["/shared/runs", "s3://bucket/runs", "gs://bucket/x"])
def test_storage_that_all_nodes_see(tmp_path: Path, storage: str) -> None:
    assert job_storage(write_study_file(tmp_path, storage=storage), []) == storage
    assert job_storage(write_study_file(tmp_path), [f"storage={storage}"]) == storage


@pytest.mark.parametrize("storage", ["runs", "~/runs", "../x", 3, None])
def test_storage_that_would_be_lost_with_the_job_is_refused(tmp_path: Path, storage: object) -> None:
    with pytest.raises(ConfigError, match=r"storage = .*absolute path.*--set storage=/shared/runs"):
        job_storage(write_study_file(tmp_path, storage=storage), [])
