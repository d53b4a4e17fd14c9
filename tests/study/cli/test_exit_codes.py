"""How errors reach the user: in words, with the exit code of their kind, and without a traceback."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analysis
import study
from analysis.load import StudyDirectoryError
from study.cli import main as cli
from study.cli.main import main
from study.cluster.jobs import JobError
from study.cluster.ray_processes import GivenUpError
from study.errors import FAILED, WRONG_INPUT, Absent, ConfigError, PlanError, StoreError, StudyError, UserError
from study.hardware.gpu_catalogue import UnknownGpuError
from study.progress.watch import NoNewsError
from study.run import lifecycle
from tests.support.made_up_studies import save_tiny_model, write_study_file

HINT = "Set LORA_FRONTIER_TRACEBACK=1 to see where."
NOT_THE_USERS = {NoNewsError, GivenUpError}  # caught where they arise: drawn as a gap, and a refusal of its own
# One of each kind, its exit code, and what the user reads. A new kind of UserError needs a line here.
KINDS: list[tuple[UserError, int, str]] = [
    (UserError("It must be so; it is not. Make it so."), WRONG_INPUT, "It must be so; it is not. Make it so."),
    (ConfigError.of("a", "rank", 0, "must be above 0", "Write 8."), 2, "a: rank = 0: must be above 0. Write 8."),
    (ConfigError.of("a", "", Absent.UNSHOWN, "must be a file", "Look."), WRONG_INPUT, "a: must be a file. Look."),
    (StoreError("A study has one driver", "it is in use", "Wait."), 2, "A study has one driver; it is in use. Wait."),
    (PlanError("there is no GPU here"), WRONG_INPUT, "there is no GPU here"),
    (StudyDirectoryError("results.jsonl, line 3: no record"), WRONG_INPUT, "results.jsonl, line 3: no record"),
    (UnknownGpuError("hardware.gpu must be one of t4; it is 't5'."), 2, "hardware.gpu must be one of t4; it is 't5'."),
    (JobError("a Ray cluster must respond; none does."), FAILED, "a Ray cluster must respond; none does."),
    (StudyError("The study broke off: x\nContinue: y"), FAILED, f"The study broke off: x\nContinue: y\n{HINT}"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cli.TRACEBACK_VARIABLE, raising=False)


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_it(*arguments: Any, **options: Any) -> Any:
        raise error

    return raise_it


def modules() -> list[str]:
    packages = (study, analysis)
    return [info.name for each in packages for info in pkgutil.walk_packages(each.__path__, f"{each.__name__}.")]


def kinds_of(error: type[BaseException]) -> Iterator[type[BaseException]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def test_every_kind_of_error_is_in_the_table_and_is_the_users() -> None:
    """Walks all modules, so that an error defined anywhere is found."""
    names = modules()
    assert len(names) > 80
    for name in names:
        importlib.import_module(name)
    ours = {kind for kind in kinds_of(Exception) if kind.__module__.split(".")[0] in ("study", "analysis")}
    assert ours - NOT_THE_USERS == {type(error) for error, _, _ in KINDS}
    assert all(issubclass(kind, UserError) for kind in ours - NOT_THE_USERS)


@pytest.mark.parametrize(("error", "exit_code", "words"), KINDS, ids=lambda value: type(value).__name__)
def test_each_kind_has_its_exit_code_and_says_its_own_words_alone(
    error: UserError,
    exit_code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lifecycle, "reopen", raising(error))
    assert error.exit_code == exit_code in (FAILED, WRONG_INPUT)
    assert main(["resume", "somewhere"]) == exit_code
    assert capsys.readouterr() == ("", f"{words}\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("two\nlines"), f"It failed: RuntimeError: two lines\n{HINT}\n"),
        (
            ModuleNotFoundError("No module named 'ray'", name="ray"),
            "The package ray is not installed. Run: pip install -e .",
        ),
        (KeyboardInterrupt(), "Interrupted.\n"),
    ],
)
def test_what_nobody_foresaw_fails_in_one_line(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifecycle, "reopen", raising(error))
    assert main(["resume", "somewhere"]) == FAILED
    captured = capsys.readouterr()
    assert captured.err.startswith(words)
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_traceback_comes_when_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    monkeypatch.setattr(lifecycle, "reopen", raising(RuntimeError("deep inside")))
    assert main(["resume", "somewhere"]) == FAILED
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert "in raise_it" in errors
    assert errors.endswith("It failed: RuntimeError: deep inside\nSee above.\n")


def test_every_fault_of_a_study_file_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_study_file(tmp_path, adapters="all", seeds=[0, 0], name="../x")
    assert main(["plan", str(file), "--set", "training.max_step=1"]) == WRONG_INPUT
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 4
    assert sum(line.startswith(str(file)) for line in errors.splitlines()) == 3
    assert "--set" in errors
    assert "Traceback" not in errors


# -- errors of the rooms below, which know of no UserError ------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be trained."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("command", ["plan", "run", "resume"])
@pytest.mark.parametrize(
    ("trouble", "place", "words"),
    [
        ("model", "broken", "must be a model's folder: config.json"),
        ("weights", "broken/config.json", "must hold JSON"),
        ("data", "study.yaml: dataset", "rows.jsonl"),
        ("space", "study.yaml: space.rank", "must be"),
    ],
)
def test_a_broken_model_data_or_space_is_a_fault_of_its_file(
    command: str, trouble: str, place: str, words: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    if trouble == "weights":
        (broken / "config.json").write_text("{", encoding="utf-8")
    changes = {"space": {"precision": "fp32", "rank": 0}} if trouble == "space" else {}
    file = write_study_file(tmp_path, broken if trouble in ("model", "weights") else model, **changes)
    if trouble == "data":
        (tmp_path / "rows.jsonl").write_text("no JSON\n", encoding="utf-8")
    assert main([command, str(tmp_path if command == "resume" else file)]) == WRONG_INPUT
    captured = capsys.readouterr()
    begun = command in ("run", "resume") and trouble != "space"  # then it says first what it checks
    assert (captured.out.count("\n"), "Checking model and data." in captured.out) == (begun, begun)
    assert captured.err.startswith(f"{tmp_path}/{place}")
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "storage").exists()
