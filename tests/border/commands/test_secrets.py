"""A secret that somebody hands to a command appears in nothing that it says, writes or sends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.cli.main import main
from study.cluster import jobs
from study.environment import provenance
from study.errors import FAILED
from tests.border.hostile import Hostile, table
from tests.support.border.secret_places import AFTER_NAMES, IN_QUERIES, IN_URLS, NAMES, TOKENS
from tests.support.made_up_studies import write_study_file

SECRET = "sEcret1A9zQ7xW3vB5nM8kJ2hG4fD6"
KEYS = ("name", "storage", "base_model.path", "dataset.train_file", "hub.url", "generation.prompts", "space")
PLACES: list[str] = [
    *(place(SECRET) for place in (*IN_URLS, *IN_QUERIES, *TOKENS)),
    *(place(name, SECRET) for name in NAMES[:8] for place in AFTER_NAMES),
]


def commands(study: str, text: str) -> list[list[str]]:
    """Command lines with the text wherever one takes text; each is refused, or finds nobody."""
    nobody = ["--address", "http://127.0.0.1:1"]
    shared = ["--set", "storage=/shared/runs"]
    place = f"/nowhere/{text.replace(': ', '=')}"  # nobody names a folder `password: x`
    return [
        *(["plan", study, "--set", f"{key}={text}"] for key in KEYS),
        ["plan", study, "--set", text], ["plan", study, text], ["plan", study, f"--fast={text}"], ["plan", text],
        ["plan", study, "--gpu", text], ["plan", study, "--gpus", text],
        ["run", study, "--set", f"storage={text}"], ["run", study, "--set", text], ["run", study, "--speed", text],
        ["resume", place], ["report", place], ["report", study, "--budget", text],
        ["watch", place], ["compare", place], ["export", place, "t0"],
        ["confirm", place], ["logs", text, *nobody], ["stop", text, *nobody],
        ["status", place], ["submit", study, *shared, "--workers", text],
        ["submit", study, *shared, "--set", f"name={text}", *nobody],
        ["submit", study, *shared, "--set", text, *nobody],
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PLACES)))
def test_no_command_shows_it(number: int, tmp_path: Path, good_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each place in every fifth command, beginning with another one, so that each command gets twenty of them."""
    text, study = PLACES[number], str(write_study_file(tmp_path, good_model))
    for arguments in commands(study, text)[number % 5 :: 5]:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert SECRET not in out + err, arguments
        assert SECRET.upper() not in out + err or "AKIA" not in text, arguments
        assert code != 0 or arguments[0] in ("plan",), (arguments, out)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PLACES))
def test_provenance_does_not_hold_it(tmp_path: Path, text: str) -> None:
    import shlex

    command = shlex.join(["python", "-m", "study", "run", "a.yaml", "--set", text, "--set", f"a={text}"])
    facts = {"command": provenance.masked_command(command), "started": datetime.now(UTC).isoformat()}
    file = provenance.write(tmp_path, facts)
    assert SECRET not in file.read_text(encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8"))["command"].startswith("python -m study run a.yaml --set ")


def tracebacks(text: str) -> Callable[[Path, Path], list[str]]:
    def make(folder: Path, model: Path) -> list[str]:
        return ["plan", str(write_study_file(folder, model))]

    return make


@pytest.mark.parametrize("traceback", ["", "1"])
@pytest.mark.parametrize("text", PLACES[:: len(PLACES) // 12], ids=range(len(PLACES[:: len(PLACES) // 12])))
def test_an_error_that_nobody_foresaw_does_not_show_it(
    text: str, traceback: str, tmp_path: Path, good_model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(config: Any) -> str:
        raise KeyError(f"it was {text}")

    monkeypatch.setattr("study.plan.description.describe", fail)
    monkeypatch.setenv("LORA_FRONTIER_TRACEBACK", traceback)
    assert main(["plan", str(write_study_file(tmp_path, good_model))]) == FAILED
    err = capsys.readouterr().err
    assert SECRET not in err
    assert ("Traceback" in err) == bool(traceback)


class Recorder:
    """Takes a job as a cluster would, and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.bytes = b""

    def submit_job(self, **options: Any) -> str:
        self.sent.append(options)
        self.bytes = Path(options["runtime_env"]["working_dir"]).read_bytes()
        return str(options["submission_id"])

    def list_jobs(self) -> list[Any]:
        return [
            SimpleNamespace(
                submission_id="x", status="RUNNING", driver_exit_code=None, message="", start_time=1, runtime_env={},
                metadata={"study_directory": f"s3://KEY:{SECRET}@bucket/runs/x"},
            )
        ]  # fmt: skip


def test_a_submitted_job_is_sent_without_the_environments_secrets(
    tmp_path: Path, good_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Recorder()
    monkeypatch.setattr(jobs, "connect", lambda address: cluster)
    monkeypatch.setenv("MY_API_KEY", SECRET)
    assert main(["submit", str(write_study_file(tmp_path, good_model)), "--set", "storage=/shared/runs"]) == 0
    assert SECRET not in json.dumps(cluster.sent, default=str)
    assert SECRET.encode() not in cluster.bytes
    assert main(["submit", str(write_study_file(tmp_path, good_model)), "--set", f"storage=/shared/{SECRET}"]) == 2
    assert len(cluster.sent) == 1  # the value of a secret variable, as a folder's name
    capsys.readouterr()
    assert main(["status"]) == 0  # of a job that somebody else has sent
    assert "s3://***@bucket/runs/x" in capsys.readouterr().out


@table(
    Hostile(
        "a prompt of a colleague's",
        lambda folder, model: [
            "plan", str(write_study_file(folder, model)), "--set", "generation.prompts=[use Bearer " + SECRET + "]",
        ],
        ("generation.prompts.0", "must hold no credentials", "use Bearer ***"),
        (SECRET,),
    ),
    Hostile(
        "a store's key",
        lambda folder, model: [
            "plan", str(write_study_file(folder, model, storage=f"s3://KEY:{SECRET}@bucket/runs")),
        ],
        ("storage", "s3://***@bucket/runs", "must hold no credentials", "AWS_PROFILE"),
        (SECRET,),
    ),
)  # fmt: skip
def test_a_study_file_with_credentials_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
