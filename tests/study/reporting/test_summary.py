"""What a study says while it runs and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from analysis.load import Study, StudyDirectoryError
from study.output import aligned, resume_command
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.records.store import ResultsStore
from study.reporting.naming import configuration_names
from study.reporting.summary import ending_text, front_rows, standing_text
from tests.support.made_up_studies import make_config, make_record, write_study_file

PERPLEXITY = Objective("perplexity", "minimize", 20.0)
MEMORY = Objective("peak_memory_bytes", "minimize", 2**30)
SPEED = Objective("generated_tokens_per_second", "maximize", 0.0)


def study_of(records: Sequence[TrialRecord], *objectives: Objective, directory: Path = Path("nowhere")) -> Study:
    return Study("made-up", directory, objectives or (PERPLEXITY, MEMORY), tuple(records))


def test_the_front_is_aligned_and_against_the_base_model() -> None:
    records = [
        make_record("t0", make_config("nf4", 2)),
        make_record("t1", make_config("nf4", 8), accuracy=0.5, base_accuracy=0.25),
        make_record("t2", make_config("fp32", 2)),  # dearer than t0 and no better
    ]
    headings, rows = front_rows(study_of(records))
    assert headings == [
        "trial", "configuration", "perplexity (base)", "peak memory", "train tokens/s", "accuracy (base)",
    ]  # fmt: skip
    assert rows == [
        ["t0", "nf4, rank 2, q_v, learning rate 1e-3", "14 (20)", "102.0 MiB", "410", "–"],
        ["t1", "nf4, rank 8, q_v, learning rate 1e-3", "11 (20)", "0.11 GiB", "410", "50.0 % (25.0 %)"],
    ]


def test_accuracy_is_left_out_where_there_is_none_and_other_objectives_are_added() -> None:
    records = [make_record("t0", generated_tokens_per_second=12.5)]
    headings, rows = front_rows(study_of(records, PERPLEXITY, SPEED))
    assert headings[-2:] == ["train tokens/s", "generation speed"]
    assert rows[0][-1] == "12.50"


def test_aligned() -> None:
    assert aligned(["a", "bb", "ccc"], [["xxxx", "y", "1"]], left=2).splitlines() == [
        "  a      bb   ccc",
        "  xxxx   y      1",
    ]


def test_names_say_more_only_where_it_tells_two_apart() -> None:
    records = [
        make_record("t0", make_config(rank=2)),
        make_record("t1", make_config(rank=8, lora_dropout=0.1)),
        make_record("t2", make_config(rank=8, lora_dropout=0.0)),
        make_record("t3", make_config(rank=8, lora_dropout=0.0, seed=1)),
    ]
    assert configuration_names(records) == {
        "t0": "fp32, rank 2, q_v, learning rate 1e-3",
        "t1": "fp32, rank 8, q_v, learning rate 1e-3, dropout 0.1",
        "t2": "fp32, rank 8, q_v, learning rate 1e-3, dropout 0, seed 0",
        "t3": "fp32, rank 8, q_v, learning rate 1e-3, dropout 0, seed 1",
    }


def test_the_whole_ending(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "t1").mkdir(parents=True)
    records = [
        make_record("t0", make_config("nf4", 2)),
        make_record("t1", make_config("nf4", 8)),
        make_record("t2", status="infeasible"),
        make_record("t3", make_config(rank=2), status="failed"),
        make_record("t4", make_config(rank=4), status="diverged"),
    ]
    text = ending_text(study_of(records, directory=tmp_path), tmp_path / "report.html")
    parts = text.split("\n\n")
    assert parts[0] == "made-up: 5 trials: 2 complete, 1 infeasible, 1 diverged, 1 failed"
    assert parts[1].startswith("The Pareto front of 2 trials, minimizing perplexity and peak memory:\n")
    assert parts[2].startswith("Best perplexity with peak memory at most 1.00 GiB: 11")
    assert f"Best perplexity of all: t1 (nf4, rank 8, q_v, learning rate 1e-3). Its adapter: {tmp_path}" in parts[2]
    assert [line.split()[:2] for line in parts[3].splitlines()[1:]] == [
        ["trial", "status"], ["t2", "infeasible"], ["t3", "failed"], ["t4", "diverged"],
    ]  # fmt: skip
    assert "rank 4, q_v, learning rate 1e-3: made to be diverged" in parts[3]
    assert parts[4] == f"Report: {tmp_path / 'report.html'}"


def test_the_front_says_what_it_minimizes_and_maximizes() -> None:
    memory, speed = MEMORY, Objective("train_tokens_per_second", "maximize", 0.0)
    for objectives, goals in (
        ((SPEED, MEMORY), "minimizing peak memory, maximizing generation speed"),
        ((SPEED, speed), "maximizing generation speed and training speed"),
        ((PERPLEXITY, memory, Objective("seconds_per_epoch", "minimize", 9.0), SPEED),
         "minimizing perplexity, peak memory and time per epoch, maximizing generation speed"),
    ):  # fmt: skip
        one = make_record("t0", seconds_per_epoch=1.0, generated_tokens_per_second=2.0)
        assert f"The Pareto front of 1 trial, {goals}:\n" in ending_text(study_of([one], *objectives), Path("r.html"))


def test_without_a_complete_trial_there_is_no_front_and_a_word_on_it() -> None:
    text = ending_text(study_of([make_record("t0", status="failed")]), Path("report.html"))
    assert "The Pareto front" not in text
    assert "No complete trial, so there is no front" in text
    assert "made to be failed" in text


def test_many_failures_are_cut_and_counted() -> None:
    records = [make_record(f"t{number}", status="failed") for number in range(25)]
    text = ending_text(study_of(records), Path("report.html"))
    assert "t19 " in text
    assert "t20 " not in text
    assert "and 5 more; the report lists them all" in text


def test_a_long_reason_is_cut() -> None:
    record = TrialRecord("made-up", "t0", "failed", make_config(), reason="word\n" * 100)
    text = ending_text(study_of([record]), Path("report.html"))
    line = next(line for line in text.splitlines() if line.startswith("  t0"))
    assert line.endswith("…")
    assert len(line) < 250


def test_the_command_that_continues_is_one_for_a_shell() -> None:
    assert resume_command(Path("runs/a b")) == "python -m study resume 'runs/a b'"


def test_before_the_first_end_and_after_some(tmp_path: Path) -> None:
    write_study_file(tmp_path, search={"algorithm": "random", "trials": 5})
    assert standing_text(tmp_path) == "made-up: 0 of 5 trials ended"
    with ResultsStore(tmp_path) as store:
        store.append(make_record("t0", status="failed"))
        assert standing_text(tmp_path) == "made-up: 1 of 5 trials ended (1 failed)\n\nNo trial is complete yet."
        store.append(make_record("t1", make_config(rank=8)))
        store.append(make_record("t2", make_config("nf4", 2)))
    text = standing_text(tmp_path)
    assert text.startswith("made-up: 3 of 5 trials ended (2 complete, 1 failed)\n\nThe front so far:\n")
    assert "t1" in text
    assert "t2" in text


def test_a_grid_runs_every_seed(tmp_path: Path) -> None:
    write_study_file(tmp_path, search={"algorithm": "grid", "trials": 4}, seeds=[0, 1])
    assert standing_text(tmp_path) == "made-up: 0 of 8 trials ended"


def test_no_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError):
        standing_text(tmp_path)
