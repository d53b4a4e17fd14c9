"""What the benchmark of a study's start prints, and how it takes processor time."""

from __future__ import annotations

import math

import pytest

from study.records.timeline.milestones import milestones, time_by_kind
from tests.benchmarks.start import interleaved, lines, processor_lines, processor_seconds, summary
from trainables.timeline import Stage

RUN = (
    Stage.whole("driver", "checks", 100, 104),
    Stage.whole("driver", "first line", 104, 104),
    Stage("host 1", "training", 105, 110, 4.0, 30),
)


def test_the_table_has_each_stage_with_its_seconds_from_the_command_on() -> None:
    heading, checks, _, training = lines(RUN)
    assert heading.split() == ["stage", "process", "from", "to", "seconds"]
    assert checks.split() == ["checks", "driver", "0.00", "4.00", "4.00"]
    assert training.split(maxsplit=6)[3:] == ["5.00", "10.00", "4.00", "(sum of 30)"]


def test_the_summary_says_when_a_run_came_to_what() -> None:
    run = {"seconds": 12.0, "milestones": vars(milestones(RUN)), "seconds_by_kind": time_by_kind(RUN)}
    words = [" ".join(line.split()) for line in summary("caches filled", run)]
    for line in (
        "first line 4.00 s",
        "first packed step 5.00 s",
        "training and evaluating 40.0% of it",
        "checks 4.00 s",
    ):
        assert line in words
    nothing = {**run, "milestones": vars(milestones(RUN[:1]))}
    assert "first packed step never" in [" ".join(line.split()) for line in summary("x", nothing)]


def test_processor_time_is_that_of_the_process_and_nan_where_it_fails() -> None:
    busy = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    found = interleaved({"idle": ["-c", "import time; time.sleep(0.3)"], "busy": ["-c", busy]}, repeats=1)
    assert found["busy"] >= 0.2
    assert found["busy"] - found["idle"] == pytest.approx(0.2, abs=0.1)
    assert math.isnan(processor_seconds(["-c", "raise SystemExit(2)"]))


def test_other_commands_are_told_as_times_the_first() -> None:
    *_, plan = processor_lines({"import torch": 2.0, "plan": 1.0})
    assert plan.split() == ["plan", "1.00", "s,", "0.50", "times", "that"]
