"""Jobs against a client that stands in for a cluster's."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.cli import cluster_commands
from study.cli.main import main
from study.cluster import jobs
from study.cluster.job_package import JobPackage
from study.cluster.job_request import JobRequest
from study.cluster.jobs import JobError, job_address, use_token
from tests.support.made_up_studies import make_record, write_study_file

REQUEST = JobRequest("made-up-1", "python -m study run job/study.yaml --out /shared/made-up-1", "/shared/made-up-1")
PREAMBLE = (
    "2026-01-31 12:00:05,1 INFO job_manager.py:568 -- Runtime env is setting up.\nRunning entrypoint for job q: x\n"
)


@dataclass
class FakeCluster:
    """A cluster whose jobs pass through given states, one at each look."""

    states: list[str] = field(default_factory=lambda: ["RUNNING"])
    exit_code: int | None = None
    logs: list[str] = field(default_factory=lambda: [""])
    error: Exception | None = None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    directory: str = "/shared/made-up-1"

    def submit_job(self, **options: Any) -> str:
        self._raise()
        self.submitted.append(options)
        working_dir = options["runtime_env"].get("working_dir", "")
        if "://" not in working_dir:
            self.packed = zipfile.ZipFile(working_dir).namelist()
        return str(options["submission_id"])

    def get_job_info(self, job_id: str) -> Any:
        self._raise()
        status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        ended = status in jobs.ENDED
        return SimpleNamespace(
            submission_id=job_id, status=status, driver_exit_code=self.exit_code if ended else None, message=None,
            metadata={"study_directory": self.directory}, start_time=1, runtime_env={"working_dir": "gcs://package.zip"},
        )  # fmt: skip

    def get_job_logs(self, job_id: str) -> str:
        return self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]

    def stop_job(self, job_id: str) -> bool:
        self.calls.append(("stop", job_id))
        return True

    def delete_job(self, job_id: str) -> bool:
        self.calls.append(("delete", job_id))
        return True

    def list_jobs(self) -> list[Any]:
        return [self.get_job_info("made-up-1"), SimpleNamespace(submission_id=None)]

    def _raise(self) -> None:
        if self.error:
            raise self.error


def no_sleep(seconds: float) -> None:
    return None


def test_submitting_sends_the_package_and_where_the_study_will_be(tmp_path: Path) -> None:
    cluster = FakeCluster()
    (tmp_path / "a.py").write_text("a")
    assert jobs.submit(cluster, REQUEST, JobPackage({"study/a.py": tmp_path / "a.py"}, {"job/study.yaml": "name: x"}))
    assert cluster.packed == ["job/study.yaml", "study/a.py"]
    (sent,) = cluster.submitted
    assert sent["entrypoint"] == REQUEST.command
    assert sent["metadata"] == {"study_directory": "/shared/made-up-1"}
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"


def test_the_exit_code_is_the_drivers_own() -> None:
    cluster = FakeCluster(states=["PENDING", "RUNNING", "FAILED"], exit_code=2)
    found = jobs.wait(cluster, "made-up-1", 60, no_sleep)
    assert (found.status, found.exit_code, found.ended) == ("FAILED", 2, True)
    assert jobs.job(FakeCluster(), "made-up-1").exit_code is None


def test_following_says_every_piece_once_and_ends_with_the_job() -> None:
    cluster = FakeCluster(states=["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"], logs=["a", "a", "ab\n", "ab\nc\n"])
    assert list(jobs.follow(cluster, "made-up-1", no_sleep)) == ["a", "b\n", "c\n"]


def test_stopping_asks_and_waits_for_the_end() -> None:
    cluster = FakeCluster(states=["RUNNING", "RUNNING", "STOPPED"])
    assert jobs.stop(cluster, "made-up-1", 150, no_sleep).status == "STOPPED"
    assert cluster.calls == [("stop", "made-up-1")]
    with pytest.raises(JobError, match="within 4 s; it is RUNNING"):
        jobs.stop(FakeCluster(), "made-up-1", 4, no_sleep)


def test_what_only_a_node_sees_is_asked_in_the_jobs_own_package() -> None:
    cluster = FakeCluster(
        states=["RUNNING", "RUNNING", "SUCCEEDED"], exit_code=0, logs=[f"{PREAMBLE}x: 3 of 4\nmore\n"]
    )
    like = jobs.job(cluster, "made-up-1")
    assert jobs.ask(cluster, "q", "python -m study status /x", like, 60, sleep=no_sleep) == "x: 3 of 4\nmore"
    assert cluster.submitted[0]["runtime_env"] == {"working_dir": "gcs://package.zip"}
    assert cluster.calls == [("delete", "q")]
    failed = FakeCluster(states=["FAILED"], exit_code=2, logs=[f"{PREAMBLE}no study there"])
    with pytest.raises(JobError, match=r"(?s)it ended as FAILED: .*no study there"):
        jobs.ask(failed, "q", "python -m study status /x", like, 60, sleep=no_sleep)


class AuthenticationError(Exception):
    """Stands for Ray's of that name."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthenticationError("Unauthenticated"), "know our token.*RAY_AUTH_MODE=token"),
        (RuntimeError("Request failed with status code 401: no"), "know our token.*RAY_AUTH_MODE=token"),
        (RuntimeError("Request failed with status code 404: Job x-20260401-120000 does not exist."), "one of the"),
        (ConnectionError("Failed to connect to Ray at address: http://x."), "must respond.*ray dashboard cluster.yaml"),
        (
            RuntimeError("Request failed with status code 404: Job y does not exist."),
            "one of the cluster's.*lists them",
        ),
        (
            RuntimeError("The Ray jobs CLI & SDK require the ray[default] installation"),
            r"pip install -e '\.\[cluster\]'",
        ),
        (RuntimeError("Request failed with status code 500: oh"), "refused: Request failed with status code 500"),
    ],
)
def test_errors_come_with_their_remedy(error: Exception, words: str) -> None:
    with pytest.raises(JobError, match=words):
        jobs.job(FakeCluster(error=error), "made-up-1")


def test_the_address_is_as_asked_or_the_environments_or_this_machines() -> None:
    assert job_address("http://a:1", {"RAY_ADDRESS": "http://b:2"}) == "http://a:1"
    assert job_address(None, {"RAY_API_SERVER_ADDRESS": "http://c:3", "RAY_ADDRESS": "http://b:2"}) == "http://c:3"
    assert job_address(None, {"RAY_ADDRESS": "local"}) == "http://127.0.0.1:8265"


def test_a_token_is_used_where_there_is_one(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    use_token(environment, tmp_path)
    assert environment == {}
    use_token(environment | {"RAY_AUTH_TOKEN": "x"}, tmp_path)
    for setting in ({"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/x"}):
        use_token(setting, tmp_path)
        assert setting["RAY_AUTH_MODE"] == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    use_token(environment, tmp_path)
    assert environment == {"RAY_AUTH_MODE": "token"}
    refused = {"RAY_AUTH_MODE": "disabled"}
    use_token(refused, tmp_path)
    assert refused == {"RAY_AUTH_MODE": "disabled"}


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(jobs, "connect", lambda address: fake)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
    return fake


def test_submit_says_the_job_and_where_its_results_go(
    tmp_path: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study_file(tmp_path, "org/model")
    assert main(["submit", str(file), "--set", "storage=/shared/runs"]) == 0
    said = capsys.readouterr().out
    assert "Submitted made-up-2" in said
    assert "/shared/runs/made-up-2" in said
    assert {"job/study.yaml", "job/train_file.jsonl", "study/run/driver.py"} <= set(cluster.packed)


def test_submit_with_wait_ends_with_the_drivers_code(
    tmp_path: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.states, cluster.exit_code, cluster.logs = ["RUNNING", "FAILED"], 2, ["a\n", "a\nb\n"]
    file = write_study_file(tmp_path, "org/model")
    assert main(["submit", str(file), "--set", "storage=/shared/runs", "--wait"]) == 2
    assert "a\nb\n" in capsys.readouterr().out


def test_submit_refuses_what_a_run_would_refuse(tmp_path: Path, cluster: FakeCluster) -> None:
    file = write_study_file(tmp_path, "org/model", seeds=[])
    assert main(["submit", str(file), "--set", "storage=/shared/runs"]) == 2
    assert main(["submit", str(write_study_file(tmp_path, "org/model"))]) == 2  # its storage would be lost
    assert main(["submit"]) == 2
    assert cluster.submitted == []


def test_a_study_continues_as_a_job(cluster: FakeCluster) -> None:
    assert main(["submit", "--resume", "/shared/runs/x"]) == 0
    assert cluster.submitted[0]["entrypoint"] == "python -m study resume /shared/runs/x"
    assert "study/run/driver.py" in cluster.packed


def test_status_of_a_job_has_progress_and_front_of_its_store(
    tmp_path: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study_file(tmp_path, search={"algorithm": "random", "trials": 5})
    lines = [make_record("a").to_json(), make_record("b", status="failed").to_json(), '{"study": "torn']
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    cluster.directory = str(tmp_path)
    assert main(["status", "made-up-1"]) == 0
    by_job = capsys.readouterr().out
    assert by_job.startswith(f"made-up-1: running, {tmp_path}\n\nmade-up: 2 of 5 trials ended (1 complete, 1 failed)")
    assert "The front so far:" in by_job
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out in by_job


def test_status_asks_a_node_where_the_directory_is_not_here(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.directory = "/shared/nowhere"
    cluster.states, cluster.exit_code = ["RUNNING", "SUCCEEDED"], 0
    cluster.logs = [f"{PREAMBLE}made-up: 3 of 4 trials ended\n"]
    assert main(["status", "made-up-1"]) == 0
    assert cluster.submitted[0]["entrypoint"] == "python -m study status /shared/nowhere"
    assert "made-up: 3 of 4 trials ended" in capsys.readouterr().out


def test_stop_and_logs_and_the_list(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.logs = ["it says\n"]
    assert main(["logs", "made-up-1"]) == 0
    assert main(["status"]) == 0
    cluster.states = ["RUNNING", "STOPPED"]
    assert main(["stop", "made-up-1"]) == 0
    said = capsys.readouterr().out
    assert "it says" in said
    assert "made-up-1: stopped" in said
    assert "python -m study submit --resume /shared/made-up-1" in said
    cluster.states, cluster.exit_code = ["FAILED"], 1
    assert main(["logs", "made-up-1", "--follow"]) == 1


def test_a_cluster_that_does_not_respond_is_said_in_one_line(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.error = ConnectionError("Failed to connect")
    assert main(["status", "made-up-1"]) == 1
    assert capsys.readouterr().err.startswith("a Ray cluster must respond; none does.")
    assert cluster_commands.job_line(jobs.Job("x", "FAILED", 2, None, "", {}, 0)) == "x: failed (exit code 2)"
