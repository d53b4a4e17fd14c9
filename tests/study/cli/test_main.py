"""The commands: their words, exit codes, and how errors reach the user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.load import StudyDirectoryError
from study.checkout import CHECKOUT
from study.cli import main as cli
from study.cli.main import main
from study.errors import StoreError, StudyError
from study.plan import description
from study.run import lifecycle
from tests.support.made_up_studies import write_study_file

Raise = Callable[..., Any]


def raising(error: BaseException) -> Raise:
    def raise_it(*arguments: Any, **options: Any) -> Any:
        raise error

    return raise_it


@pytest.fixture(autouse=True)
def no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_FRONTIER_TRACEBACK", raising=False)


# -- help and usage ----------------------------------------------------------------------------------------------------


COMMANDS = [
    "run",
    "plan",
    "resume",
    "confirm",
    "report",
    "export",
    "compare",
    "watch",
    "doctor",
    "submit",
    "status",
    "logs",
    "stop",
    "fetch",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert f"\n    {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m study {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "a.yaml", "--fast"], ["resume"]])
def test_wrong_usage_is_wrong_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m study" in capsys.readouterr().err


# -- what the commands do ----------------------------------------------------------------------------------------------


def test_run_begins_with_the_overrides_and_answers_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(lifecycle, "begin", lambda *arguments: begun.append(arguments) or "the study")
    monkeypatch.setattr(lifecycle, "finish", lambda study: 1 if study == "the study" else 0)
    monkeypatch.setattr(sys, "argv", ["study/__main__.py", "run", "a b.yaml"])
    file = write_study_file(tmp_path)
    out = tmp_path / "out"
    changes = ["--set", "training.max_steps=7", "--set", "name=other"]
    assert main(["run", str(file), "--out", str(out), *changes]) == 1
    ((config, directory, command, now),) = begun
    assert (config.name, config.trial.training.max_steps, directory) == ("other", 7, out)
    assert command == "python -m study run 'a b.yaml'"
    assert isinstance(now, datetime)
    assert now.tzinfo is not None


def test_plan_prints_what_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(description, "describe", lambda config: f"would run {config.name}")
    assert main(["plan", str(write_study_file(tmp_path))]) == 0
    assert capsys.readouterr().out == "would run made-up\n"


def test_report_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")
    write_study_file(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


@pytest.mark.parametrize("command", ["report", "resume", "confirm"])
def test_a_directory_that_is_no_study(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 2
    rule = "must be a study's directory, which holds a study.yaml. Name one that `python -m study run` made."
    assert capsys.readouterr().err == f"{tmp_path}: {rule}\n"


# -- errors ------------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_study_file_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_study_file(tmp_path, adapters="all", seeds=[0, 0], name="../x")
    assert main(["plan", str(file), "--set", "training.max_step=1"]) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 4
    assert sum(line.startswith(str(file)) for line in errors.splitlines()) == 3
    assert "--set" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (
            StoreError("A study has one driver", "it is in use", "Wait."),
            2,
            "A study has one driver; it is in use. Wait.\n",
        ),
        (StudyDirectoryError("results.jsonl, line 3: no record"), 2, "results.jsonl, line 3: no record\n"),
        (
            StudyError("The study broke off: x\nGo on: y"),
            1,
            "The study broke off: x\nGo on: y\nSet LORA_FRONTIER_TRACEBACK=1",
        ),
        (
            RuntimeError("two\nlines"),
            1,
            "It failed: RuntimeError: two lines\nSet LORA_FRONTIER_TRACEBACK=1 to see where.\n",
        ),
        (
            ModuleNotFoundError("No module named 'ray'", name="ray"),
            1,
            "The package ray is not installed. Run: pip install -e .",
        ),
        (KeyboardInterrupt(), 1, "Interrupted.\n"),
    ],
)
def test_errors_reach_the_user_in_words(
    error: BaseException,
    exit_code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lifecycle, "reopen", raising(error))
    assert main(["resume", "somewhere"]) == exit_code
    captured = capsys.readouterr()
    assert captured.err.startswith(words)
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_traceback_comes_when_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LORA_FRONTIER_TRACEBACK", "1")
    monkeypatch.setattr(lifecycle, "reopen", raising(RuntimeError("deep inside")))
    assert main(["resume", "somewhere"]) == 1
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert "in raise_it" in errors
    assert errors.endswith("It failed: RuntimeError: deep inside\nSee above.\n")


def test_a_foreign_package_is_refused_but_the_doctor_still_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "shadowing", lambda: "The packages must be ours. Run it there.")
    monkeypatch.setattr("study.environment.doctor.print_doctor", lambda: 1)
    assert main(["plan", "a.yaml"]) == 1
    assert capsys.readouterr().err == "The packages must be ours. Run it there.\n"
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == ""


# -- as a process ------------------------------------------------------------------------------------------------------


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "study", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_wrong_input_as_a_process(tmp_path: Path) -> None:
    process = start("plan", str(tmp_path / "none.yaml"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == f"{tmp_path / 'none.yaml'}: must be a file that is there. Check its path.\n"


def test_a_closed_pipe_is_harmless() -> None:
    process = start("--help")
    assert process.stdout is not None
    process.stdout.close()  # before anything is written
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()
