"""What is said of what waits in host memory."""

from __future__ import annotations

import dataclasses

import pytest

from study.plan.fitting import fit, fit_with, infeasible_facts
from study.plan.offloading.words import hiding, price_of, refusal_words, times, waiting
from study.plan.plan_text import plan_text
from study.plan.roofline import PassTime
from tests.support.plan_cases import GIB, PAPER_GRID, cards, config, on_cards, plan, workload
from trainables.memory.offload import Offload


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (Offload(20), "20 of 32 layers"),
        (Offload(20, embedding=True, optimizer_state=True), "20 of 32 layers, embedding and moments"),
        (Offload(layer_inputs=True), "layer inputs"),
        (Offload(), "nothing"),
    ],
)
def test_what_waits(away, words):
    assert waiting(away, 32) == words


@pytest.mark.parametrize(
    ("ratio", "words"), [(None, ""), (1.0, ""), (1.004, ""), (1.02, "x 1.02 the time"), (1.34, "x 1.3 the time")]
)
def test_a_price(ratio, words):
    assert times(ratio) == words


def test_whether_a_pass_waits_for_the_bus():
    assert hiding(PassTime(2.0, 0.5, 0.5, 0.1, transfer=3.0), 2) == "the pack hides the bus"
    assert hiding(PassTime(2.0, 0.5, 0.5, 0.1, transfer=3.0), 1) == "the computing hides the bus"
    for adapters in (1, 2):
        assert "2.0 s, where all else takes 1.5 s" in hiding(PassTime(1.0, 0.0, 0.0, 1.5, transfer=2.0), adapters)


def test_a_price_is_that_of_the_time_model():
    one = fit_with(config("fp16"), workload(), cards(count=1), Offload(32))
    slow = dataclasses.replace(cards(count=1).card, bus_bytes_per_second=1e9)
    target = dataclasses.replace(cards(count=1), card=slow)
    assert price_of(one, workload(), cards(count=1)) > 1
    assert price_of(one, workload(), target) == pytest.approx(12 * price_of(one, workload(), cards(count=1)), rel=0.01)


def test_why_something_does_not_fit():
    """Of the card; of the card with help too; of host memory, whose bytes are a record's where it alone is short."""
    big = fit(config("fp16", 256, "all_linear"), workload(), cards(count=1, host_memory_bytes=8 * GIB))
    words = refusal_words(big, workload(), cards(count=1, host_memory_bytes=8 * GIB))
    assert words.startswith("does not fit: it needs 26.33 GiB, and one NVIDIA T4 can hold 14.56 GiB; with ")
    assert words.endswith("and host memory can hold 3.6 GiB")
    never = fit(config("fp16"), on_cards(), cards(count=1))
    assert "; with moments and layer inputs in host memory it needs" in refusal_words(never, on_cards(), cards(count=1))
    asked = dataclasses.replace(workload(), base_in_host_memory="always")
    short = fit(config(), asked, cards(count=1, host_memory_bytes=6 * GIB))
    words = refusal_words(short, asked, cards(count=1, host_memory_bytes=6 * GIB))
    assert words == "does not fit: it needs 3.35 GiB, and host memory can hold 1.7 GiB (32 of 32 layers)"
    facts = infeasible_facts(short)
    assert facts["requested_bytes"] == short.host_bytes > facts["available_bytes"]
    assert (facts["moment"], sum(facts["components"].values())) == ("host_memory", short.host_bytes)


def test_a_plan_says_what_waits_what_it_takes_and_why():
    text = plan_text(plan(PAPER_GRID, cards(count=1, host_memory_bytes=16 * GIB)))
    for words in (
        "with 10 of 32 layers and moments, 5.31 GiB, x 1.02 the time", "11.2 GiB beside what system, Ray and libraries",
        "In host memory: 10 of 32 layers and moments, 5.31 GiB a card; the computing hides the bus; the least with",
        "In host memory: 10 of 32 layers and moments, 4.67 GiB a card; the pack hides the bus; the least with which",
        "A generated token takes one transfer of all streamed layers.",
    ):  # fmt: skip
        assert words in text
    assert "host memory" not in plan_text(plan([config()], cards(count=1)))
    asked = dataclasses.replace(workload(), base_in_host_memory="always")
    assert "as the study asks" in plan_text(plan([config()], cards(count=1), load=asked))
