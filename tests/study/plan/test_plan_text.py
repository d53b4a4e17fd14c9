"""A plan as text: what it says of fits, phases, time and price; tables sum to the printed digits."""

from dataclasses import replace

import pytest

from study.plan.plan_text import duration, plan_text
from tests.support.plan_cases import PAPER_GRID, cards, config, cpus, on_cards, plan


def test_the_text_says_what_fits_how_and_what_would_help():
    text = plan_text(plan(target=cards(per_node=1), load=on_cards()))
    for words in (
        "4 x NVIDIA T4, 14.56 GiB, compute capability 7.5", "not calibrated", "does not fit: it needs 15.94 GiB",
        "; with moments and layer inputs in host memory it needs 15.88 GiB.",
        "What would make it fit: hardware.base_in_host_memory: auto (with 7 of 32 layers in host memory, 2.84 GiB); or "
        "precision: nf4; or 2 such cards in one node.", "nf4: 4 trials, 4 at a time on 4 cards",
        "0.526 USD an hour", "hardware.price_per_hour overrides it",
    ):  # fmt: skip
        assert words in text
    header = next(line for line in text.splitlines() if line.startswith("precision"))
    assert [name for name in ("base", "adapter", "activations", "workspace") if name in header] == [
        "base", "adapter", "activations", "workspace",
    ]  # fmt: skip


def test_what_a_card_must_have_is_told_and_compared_with_what_it_has():
    """The peak, the allocator's fragments and CUDA's context; a machine without cards has neither of the last two."""
    text = plan_text(plan(target=cards(per_node=1), load=on_cards()))
    assert "`needs` is what the fullest card must have" in text
    assert "it needs 15.94 GiB, and one NVIDIA T4 can hold 14.56 GiB" in text
    for row in plan(target=cards(per_node=1), load=on_cards()).rows:
        assert f" {row.fit.device_bytes / 2**30:.2f} " in text
        assert row.fit.fits == (row.fit.device_bytes <= 14.56 * 2**30)
    assert "`needs`" not in plan_text(plan([config("nf4")], cpus(64 * 2**30)))


def test_dropout_is_told_where_footprints_differ_in_it_alone():
    both = [replace(PAPER_GRID[0], lora_dropout=share) for share in (0.0, 0.1)]
    assert plan_text(plan(both)).count(" + dropout ") == 1
    assert " + dropout " not in plan_text(plan(both[1:]))


def test_the_texts_components_sum_to_the_peak():
    for line in plan_text(plan()).splitlines():
        cells = line.split()
        if cells[:1] in (["nf4"], ["fp16"]) and cells[1].isdigit():
            peak, *parts = map(float, cells[4:9])
            assert sum(parts) == pytest.approx(peak, abs=0.03)


def test_a_refused_precision_says_why():
    text = plan_text(plan([config("bf16"), config("nf4")]))
    assert "bf16, rank 8, q_v is refused." in text
    assert "Precision bf16 needs a card of compute capability 8.0 or more; NVIDIA T4 has 7.5" in text
    assert "The study does not start here, since a precision is refused." in text
    assert plan([config("bf16"), config("nf4")]).phases == ()


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0, "0 s"), (89, "89 s"), (91, "2 min"), (5300, "88 min"), (9000, "2.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
