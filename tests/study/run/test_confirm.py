"""`confirm`: what it trains again, that it continues where it was, and what it says; the run is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.config.study_config import ConfigError, StudyConfig, load_study, to_yaml_text
from study.records.store import ResultsStore
from study.run import lifecycle
from study.run.confirm import confirm, confirming
from study.run.lifecycle import begin, finish
from study.run.study_run import StudyRun
from tests.support.made_up_studies import make_record, write_study_file

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
SEEDS = [7, 8]
CHOSEN = [("fp32", 8), ("nf4", 2), ("nf4", 8)]  # the front, and one that is as good as one of it, and dearer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what needs a model or takes time."""
    monkeypatch.setattr(lifecycle, "check", lambda config, here: None)
    monkeypatch.setattr("study.environment.provenance.collect", lambda command, now: {})
    monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")


def record_of(trial_id: str, config: TrialConfig) -> Any:
    """NF4 is cheaper, a higher rank better; seed 8 is a little worse. The test split is half as good as evaluation."""
    worse = 0.2 * (config.seed == 8)
    record = make_record(trial_id, config)
    quality = record.measurements["perplexity"] + worse
    statistics = {"train": {"rows": 32}}
    more = {"perplexity": quality, "test_perplexity": 2 * quality, "train_seconds": 6.0, "train_steps": 12}
    return replace(record, measurements={**record.measurements, **more}, dataset={"statistics": statistics})


def play(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None], most: int = 99) -> None:
    """Runs trials as the driver does."""
    for precision in study.config.space.precisions():
        first = [one for one in study.search.unfinished() if one.config.precision == precision]
        while most > 0 and (proposal := first.pop(0) if first else study.search.ask(precision)):
            record = record_of(proposal.trial_id, proposal.config)
            values = (record.measurements["perplexity"], record.measurements["peak_memory_bytes"])
            study.search.tell(proposal.trial_id, "complete", values)
            study.store.append(record)
            most -= 1
    meanwhile()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    monkeypatch.setattr("study.run.driver.run_study", play)
    changes = {"confirm": {"seeds": SEEDS}, "early_stopping": {"algorithm": "asha"}}
    return load_study(write_study_file(tmp_path, **changes))


@pytest.fixture
def directory(config: StudyConfig) -> Path:
    """A finished study of four configurations: precision fp32 and nf4, rank 2 and 8; nf4 is as good and cheaper."""
    study = begin(config, None, "command", NOW)
    assert finish(study) == 0
    return study.directory


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_front_is_trained_again_with_every_seed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert confirm(directory, False, "command", NOW) == 0
    found = [one["config"] for one in records(directory / "confirm")]
    assert sorted((one["precision"], one["rank"], one["seed"]) for one in found) == [
        (precision, rank, seed) for precision, rank in CHOSEN for seed in SEEDS
    ]
    settings = load_study(directory / "confirm" / "study.yaml")
    assert (settings.early_stopping.algorithm, settings.adapters) == ("none", "none")
    assert settings.trial.rungs.fractions == ()
    output = capsys.readouterr().out
    assert "To confirm: " in output
    assert "Confirmed on the test split" in output


def test_what_it_came_to(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirm(directory, False, "command", NOW)
    document = json.loads((directory / "confirm" / "confirm.json").read_text(encoding="utf-8"))
    assert (document["split"], document["alone"]) == ("test", False)
    by_rank = {one["config"]["rank"]: one for one in document["members"] if one["config"]["precision"] == "nf4"}
    for rank, one in by_rank.items():
        quality = 2 * (15.0 - 0.5 * rank)
        assert one["values"]["perplexity"] == pytest.approx([quality, quality + 0.4])
        assert one["intervals"]["perplexity"]["value"] == pytest.approx(quality + 0.2)
        assert one["spreads"]["perplexity"] == pytest.approx(0.4 / 2**0.5)
        assert (one["on_front"], one["seconds_per_epoch"]) == (True, None)
        assert one["probability"] > 0.6  # its rival's seeds may be drawn luckier
    (rival,) = [one for one in document["members"] if one["config"]["precision"] == "fp32"]
    assert not rival["on_front"]
    assert 0 < rival["probability"] < 0.4
    volume = document["hypervolume"]
    assert volume["low"] <= volume["value"] <= volume["high"]
    output = capsys.readouterr().out
    assert "22.20 ± 0.28" in output
    assert "first trained as" in output
    assert "(perplexity × GiB), 95 % interval " in output
    assert "100%" in output


def test_alone_it_times_whole_epochs(directory: Path) -> None:
    confirm(directory, True, "command", NOW)
    hardware = load_study(directory / "confirm-alone" / "study.yaml").trial.hardware
    assert (hardware.max_adapters_per_gpu, hardware.measured_costs) == (1, "anew")
    document = json.loads((directory / "confirm-alone" / "confirm.json").read_text(encoding="utf-8"))
    # 32 rows in steps of 2 x 4 are 4 steps an epoch, of half a second each
    assert [one["seconds_per_epoch"] for one in document["members"]] == pytest.approx([2.0] * 3)


def test_it_continues_where_it_was_broken_off(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.run.driver.run_study", partial(play, most=1))
    assert confirm(directory, False, "command", NOW) == 1  # some are left
    before = records(directory / "confirm")
    assert len(before) == 1
    monkeypatch.setattr("study.run.driver.run_study", play)
    assert confirm(directory, False, "command", NOW) == 0
    assert records(directory / "confirm")[:1] == before
    assert len(records(directory / "confirm")) == 6
    assert confirm(directory, False, "command", NOW) == 0  # nothing is left; it says what it came to again
    assert len(records(directory / "confirm")) == 6


def test_nothing_is_concluded_before_all_have_ended(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("study.run.driver.run_study", partial(play, most=5))
    assert confirm(directory, False, "command", NOW) == 1
    output = capsys.readouterr().out
    assert (
        f"Nothing is concluded while 1 of 6 trials have not ended. Continue: python -m study confirm {directory}"
        in output
    )
    assert "Confirmed on" not in output
    assert not (directory / "confirm" / "confirm.json").exists()


def test_a_front_that_may_still_change_is_said_to(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirm(directory, False, "command", NOW)
    assert "the front may still change" not in capsys.readouterr().out
    (directory / "results.parquet").unlink()  # written at a study's end
    confirm(directory, False, "command", NOW)
    text = f"the front may still change. To end them first: python -m study resume {directory}"
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("alone", [False, True])
def test_a_confirmation_is_not_confirmed(directory: Path, alone: bool) -> None:
    confirm(directory, alone, "command", NOW)
    with pytest.raises(ConfigError, match=r"is a confirmation itself.*other `confirm.seeds` in its file: .*"):
        confirm(directory / ("confirm-alone" if alone else "confirm"), False, "command", NOW)


def test_a_confirmation_of_many_trainings_is_read_back_to_continue(directory: Path, tmp_path: Path) -> None:
    config = load_study(directory / "study.yaml")
    many = replace(config, confirm=replace(config.confirm, seeds=tuple(range(100, 150))))
    wanted = confirming(many, ResultsStore(directory).records(), False)
    assert len(wanted.search.try_first) == 200
    (tmp_path / "many.yaml").write_text(to_yaml_text(wanted), encoding="utf-8")
    assert load_study(tmp_path / "many.yaml").search.try_first == wanted.search.try_first


def test_other_seeds_than_it_was_begun_with_are_refused(directory: Path) -> None:
    confirm(directory, False, "command", NOW)
    file = directory / "study.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("[7, 8]", "[7, 9]"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"was begun to confirm other configurations or seeds\. Move it away"):
        confirm(directory, False, "command", NOW)


def test_without_a_complete_trial_there_is_nothing_to_confirm(config: StudyConfig) -> None:
    study = begin(config, None, "command", NOW)
    study.store.close()
    with pytest.raises(ConfigError, match="must have a complete trial"):
        confirm(study.directory, False, "command", NOW)
    with pytest.raises(ConfigError, match="must be a study's directory"):
        confirm(study.directory / "nowhere", False, "command", NOW)
