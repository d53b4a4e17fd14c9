"""The budget card: what to take, what it costs, and a command that trains just that."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load_study as load_results
from study.cli.main import main
from study.config.study_config import load_study, to_yaml_text
from study.records.record import TrialRecord
from study.reporting.budget_card import budget_text, retrain_command
from tests.support.made_up_studies import make_config, make_record, write_study_file

MIB = 2**20


def directory_of(folder: Path, records: list[TrialRecord]) -> Path:
    out = folder / "out"
    out.mkdir()
    text = to_yaml_text(load_study(write_study_file(folder)))
    (out / "study.yaml").write_text(text, encoding="utf-8")
    (out / "results.jsonl").write_text("".join(f"{one.to_json()}\n" for one in records), encoding="utf-8")
    return out


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """nf4 takes 100 MiB and a MiB for each rank, fp32 200; perplexity falls by a half with each rank."""
    configs = [make_config("nf4", 2), make_config("nf4", 8), make_config("fp32", 8, learning_rate=2e-5, seed=3)]
    out = directory_of(tmp_path, [make_record(f"t{place}", one) for place, one in enumerate(configs)])
    (out / "adapters" / "t1").mkdir(parents=True)
    return out


def test_the_card_names_the_configuration_its_costs_and_its_adapter(directory: Path) -> None:
    text = budget_text(load_results(directory), 150 * MIB, 0.01)
    assert text.startswith("0.15 GiB: t1, nf4, rank 8, q_v, learning rate 1e-3\n")
    words = " ".join(text.split())
    for part in ("perplexity 11 ", "peak memory 0.11 GiB", "training speed 410 tokens/s", "left of the budget"):
        assert part in words
    assert str(directory / "adapters" / "t1") in text


def test_what_the_budget_costs_in_quality(directory: Path) -> None:
    text = budget_text(load_results(directory), 105 * MIB, 0.01)
    assert "t0, nf4, rank 2" in text
    assert "27.3 % worse than the study's best, beyond the tolerance of 1 %" in text
    assert "not kept" in text


def test_nothing_fits(directory: Path, tmp_path: Path) -> None:
    assert "no complete trial fits; the least that any needs is" in budget_text(load_results(directory), MIB, 0.01)
    (tmp_path / "other").mkdir()
    empty = directory_of(tmp_path / "other", [make_record("t0", status="diverged")])
    assert "no complete trial with quality and memory" in budget_text(load_results(empty), MIB, 0.01)


def test_the_command_trains_just_that_configuration(directory: Path) -> None:
    for record in load_results(directory).records:
        words = shlex.split(retrain_command(directory, record))
        assert words[:4] == ["python", "-m", "study", "run"]
        config = load_study(words[4], [word for word in words[5:] if word != "--set"])
        assert config.space.grid(config.seeds) == [record.config]
        assert config.search.trials == 1
        assert config.adapters == "complete"


def test_the_command_line_prints_card_and_report(directory: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("analysis.report.page.write_report", lambda study: study.directory / "report.html")
    assert main(["report", str(directory), "--budget", "150MiB"]) == 0
    out = capsys.readouterr().out
    assert "t1, nf4" in out
    assert out.endswith(f"{directory / 'report.html'}\n")
    assert main(["report", str(directory), "--budget", "8"]) == 2
    assert capsys.readouterr().err.startswith('--budget: "8": must be a number with a unit of')
