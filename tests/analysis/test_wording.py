"""Numbers with their units, names, counts, and the study's result in three sentences."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import wording
from analysis.load import Study
from study.records.objectives import METRICS, Objective
from study.records.record import MEASUREMENTS
from tests.support.study_directory import GIB, MakeRecord

MIB = 2**20


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z])", text)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("perplexity", 12.5217, "12.52"), ("perplexity", 1234.5, "1,234"), ("perplexity", 7, "7"),
        ("perplexity", 999.97, "1,000"), ("perplexity", 3.2e9, "3.2e+09"), ("perplexity", 0.00012345, "0.0001234"),
        ("accuracy", 0.5, "50.0 %"), ("base_accuracy", 0.345, "34.5 %"),
        ("peak_memory_bytes", 6.3 * GIB, "6.30 GiB"), ("peak_memory_bytes", 1500 * GIB, "1,500.00 GiB"),
        ("peak_memory_bytes", 20 * MIB, "20.0 MiB"), ("pack_peak_memory_bytes", GIB, "1.00 GiB"),
        ("seconds_per_epoch", 7.91, "7.91 s"), ("wall_seconds", 245, "4 min 05 s"),
        ("energy_joules", 512.3, "512 J"), ("energy_joules", 51230, "51.23 kJ"),
        ("trainable_parameters", 460_800, "0.46 M"), ("trainable_parameters", 2_000, "2,000"),
        ("train_tokens_per_second", 4200.4, "4,200"), ("generated_tokens_per_second", 30.11, "30.11"),
        ("perplexity", None, "–"), ("perplexity", math.nan, "–"), ("peak_memory_bytes", math.inf, "–"),
    ],
)  # fmt: skip
def test_values_have_their_unit(metric: str, value: float | None, text: str) -> None:
    assert wording.format_value(metric, value) == text


@given(st.sampled_from(MEASUREMENTS), st.floats(0, 1e15))
def test_every_measurement_can_be_written(metric: str, value: float) -> None:
    text = wording.format_value(metric, value)
    assert text
    assert not re.search(r"\.(\D|$)", text), text  # no point without digits after it


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.123, "0.123 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (119.6, "2 min 00 s"),
        (3599.4, "59 min 59 s"), (3599.7, "1 h 00 min"), (7620, "2 h 07 min"), (3.6e6, "1,000 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert wording.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(2e-4, "2e-4"), (1.5e-5, "1.5e-5"), (1, "1e0"), (0.0001234, "1.23e-4"), (9.999e-5, "1e-4")]
)
def test_learning_rates(rate: float, text: str) -> None:
    assert wording.format_rate(rate) == text


@pytest.mark.parametrize(("share", "text"), [(0.02, "2 %"), (0.0125, "1.25 %"), (0.0735, "7.35 %"), (1.5, "150 %")])
def test_shares(share: float, text: str) -> None:
    assert wording.format_share(share) == text


def test_shortening() -> None:
    assert wording.shorten("abc", 3) == "abc"
    assert wording.shorten("abcd", 3) == "abc …"


# -- names and counts --------------------------------------------------------------------------------------------------


def test_a_configuration_in_short(record: MakeRecord) -> None:
    assert wording.configuration_name(record(modules="all_linear")) == "nf4, rank 8, all_linear, learning rate 2e-4"
    assert "q+o" in wording.configuration_name(record(modules="q_proj+o_proj"))


def test_counts(study: Study, record: MakeRecord) -> None:
    counted = "16 trials: 11 complete, 2 stopped, 1 infeasible, 1 diverged, 1 failed"
    assert wording.count_statuses(study.records) == counted
    assert list(wording.status_counts(study.records).items())[:2] == [("complete", 11), ("stopped", 2)]
    assert wording.status_words([record(), record(1, status="failed")]) == "1 complete, 1 failed"
    assert wording.count_statuses([record()]) == "1 trial: 1 complete"
    assert wording.count_statuses([]) == "0 trials"
    assert wording.count_seeds(study.records) == "1 seed"
    assert wording.count_seeds([record(status="failed")]) == "no seed yet"


# -- the result --------------------------------------------------------------------------------------------------------


def test_the_result_is_three_sentences(study: Study) -> None:
    first, second, third = _sentences(wording.headline(study))
    assert first == (
        "Best perplexity with peak memory at most 1.25 GiB: 13.44 (base model 22.94) at 0.89 GiB, "
        "by nf4, rank 64, all_linear, learning rate 2e-4."
    )
    assert second == "Nothing with less peak memory comes within 2 % of it."
    assert third == "The best balance of both: 14.82 at 0.69 GiB, by nf4, rank 64, q_v, learning rate 2e-4."


def test_the_cheapest_that_is_nearly_as_good(study: Study, record: MakeRecord) -> None:
    cheap = record(1, rank=4, measurements={"perplexity": 10.1, "peak_memory_bytes": GIB // 2})
    good = record(2, measurements={"perplexity": 10.0, "peak_memory_bytes": GIB})
    first, second, third = _sentences(wording.headline(replace(study, records=(cheap, good))))
    assert "10 (base model 22.94) at 1.00 GiB" in first
    assert second == "Least peak memory within 2 % of it: 10.10 at 0.50 GiB, by nf4, rank 4, q_v, learning rate 2e-4."
    assert third in ("It is also the best balance of both.", "The best balance of both: the same.")


def test_an_only_trial_is_called_so(study: Study, record: MakeRecord) -> None:
    sentences = _sentences(wording.headline(replace(study, records=(record(),))))
    assert sentences[2] == "It is the only trial of the front within that limit."


def test_a_limit_of_the_study_is_the_budget(study: Study) -> None:
    assert "at most 0.70 GiB: 14.82" in wording.headline(replace(study, memory_limit=0.7 * GIB))


def test_nothing_affordable_is_said_with_the_nearest_and_the_best(study: Study) -> None:
    first, second, third = _sentences(wording.headline(replace(study, memory_limit=0.1 * GIB)))
    assert first == "No complete trial has peak memory at most 0.10 GiB."
    assert second.startswith("The nearest: 16.54 at 0.63 GiB, by nf4, rank 8")
    assert third.startswith("Best perplexity at any cost: 12.52 (base model 21.37) at 1.32 GiB, by bf16")


def test_no_trial_and_no_front(study: Study, record: MakeRecord) -> None:
    assert wording.headline(replace(study, records=())) == "No trial has ended yet."
    failed = replace(study, records=(record(status="failed"),))
    assert wording.headline(failed) == "No complete trial, so there is no front (1 trial: 1 failed)."


@pytest.mark.parametrize(
    "metrics",
    [
        ("accuracy", "train_tokens_per_second"), ("peak_memory_bytes", "accuracy", "perplexity"),
        ("perplexity", "accuracy", "peak_memory_bytes", "seconds_per_epoch"), ("accuracy", "perplexity"),
        ("seconds_per_epoch", "peak_memory_bytes"),
    ],
)  # fmt: skip
def test_other_objectives_have_a_result_too(study: Study, metrics: tuple[str, ...]) -> None:
    references: dict[str, Any] = {"accuracy": 0.3, "perplexity": 30.0, "peak_memory_bytes": 2.0 * GIB}
    references |= {"train_tokens_per_second": 100.0, "seconds_per_epoch": 60.0}
    objectives = tuple(Objective(name, METRICS[name].direction, references[name]) for name in metrics)
    sentences = _sentences(wording.headline(replace(study, objectives=objectives)))
    assert len(sentences) == 3
    assert all(wording.DASH not in sentence for sentence in sentences)
    if metrics[1] == "train_tokens_per_second":
        assert "with training speed at least 100" in sentences[0]


def test_the_budget_of_a_cost(study: Study) -> None:
    memory, speed = study.objectives[1], Objective("train_tokens_per_second", "maximize", 100.0)
    assert wording.budget(study, memory) == 1.25 * GIB
    limited = replace(study, memory_limit=GIB)
    assert wording.budget(limited, memory) == GIB
    assert wording.budget(limited, speed) == 100.0  # a limit in bytes bounds nothing else
