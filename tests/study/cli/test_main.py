"""The commands: their help, what they call, and that the first of them need no package."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from study.checkout import CHECKOUT
from study.cli import main as cli
from study.cli.main import main
from study.cluster import ray_start
from study.cluster.ray_start import RayStart
from study.errors import StudyError
from study.plan import description
from study.run import lifecycle
from tests.support.made_up_studies import write_study_file

# -- help and usage ----------------------------------------------------------------------------------------------------


COMMANDS = (
    "run", "plan", "resume", "confirm", "report", "export", "compare", "watch", "submit", "status", "logs", "fetch",
    "stop", "doctor",
)  # fmt: skip


def test_help_lists_the_commands_in_this_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert tuple(re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m study {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "a.yaml", "--fast"], ["resume"]])
def test_wrong_usage_is_wrong_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("python -m study")
    assert "--help` says what it takes." in said


# -- what the commands do ----------------------------------------------------------------------------------------------


def test_run_begins_with_the_overrides_and_returns_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(lifecycle, "begin", lambda *arguments, ray: begun.append(arguments) or "the study")
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


def test_run_says_at_once_what_it_will_do_and_starts_nothing_for_a_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def begin(*arguments: Any, ray: RayStart) -> None:
        said.append(capsys.readouterr().out)
        raise StudyError("it is enough")

    monkeypatch.setattr(lifecycle, "begin", begin)
    file = write_study_file(tmp_path)
    assert main(["run", str(file)]) == 1
    assert said == ["made-up: 4 trials over nobody/nothing. Checking model and data.\n"]
    capsys.readouterr()
    assert main(["run", str(file), "--set", "training.max_steps=-7"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("dashboard", [[], ["--dashboard"]])
def test_a_dashboard_is_there_for_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dashboard: list[str]
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(ray_start, "RayStart", lambda dashboard: asked.append(dashboard) or nullcontext("a Ray"))
    monkeypatch.setattr(ray_start, "check_dashboard", lambda: None)
    monkeypatch.setattr(lifecycle, "begin", lambda *arguments, ray: ray)
    monkeypatch.setattr(lifecycle, "reopen", lambda directory, accepted, ray: ray)
    monkeypatch.setattr(lifecycle, "finish", lambda study: 0 if study == "a Ray" else 1)
    monkeypatch.setattr("study.run.confirm.confirm", lambda *arguments: 0 if arguments[-1] == "a Ray" else 1)
    assert main(["run", str(write_study_file(tmp_path)), *dashboard]) == 0
    assert main(["resume", str(tmp_path), *dashboard]) == 0
    assert main(["confirm", str(tmp_path), *dashboard]) == 0
    assert asked == [bool(dashboard)] * 3


def test_plan_prints_what_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(description, "describe", lambda config: f"would run {config.name}")
    assert main(["plan", str(write_study_file(tmp_path))]) == 0
    assert capsys.readouterr().out == "would run made-up\n"


def test_report_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.page.write_report", lambda study: study.directory / "report.html")
    write_study_file(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


@pytest.mark.parametrize("command", ["report", "resume", "confirm"])
def test_a_directory_that_is_no_study(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 2
    rule = "must be a study's directory, which holds a study.yaml. Name one that `python -m study run` made."
    assert capsys.readouterr().err == f"{tmp_path}: {rule}\n"


# -- foreign packages -------------------------------------------------------------------------------------------------


def test_a_foreign_package_is_refused_but_the_doctor_still_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "shadowing", lambda: "The packages must be ours. Run it there.")
    monkeypatch.setattr("study.environment.doctor.print_doctor", lambda why: 1)
    assert main(["plan", "a.yaml"]) == 1
    assert capsys.readouterr().err == "The packages must be ours. Run it there.\n"
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == ""


# -- as a process ------------------------------------------------------------------------------------------------------


def start(*arguments: str, python: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *python, "-m", "study", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--help"], 0, "usage: python -m study"),
        (["export", "--help"], 0, "usage: python -m study export"),
        (["doctor"], 1, "packaging is not installed"),
        (["plan", "study.yaml"], 1, "The package yaml is not installed. Run: pip install -e ."),
    ],
)
def test_help_and_doctor_need_the_standard_library_alone(arguments: list[str], exit_code: int, words: str) -> None:
    process = start(*arguments, python=["-S"])  # without site-packages
    out, err = process.communicate(timeout=60)
    assert (process.returncode, words in out + err) == (exit_code, True), out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["study.run.lifecycle", "study.run.confirm"])
def test_what_refuses_a_study_does_not_wait_for_ray_or_torch(module: str) -> None:
    script = f"import sys, {module}; print([name for name in ('ray', 'torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
