"""What would make a configuration fit does make it fit."""

import dataclasses

from study.plan.fitting import fit
from study.plan.remedies import remedies
from tests.support.plan_cases import GIB, LLAMA_3_8B, cards, config, on_cards, workload
from trainables.base_model.shape import ModelShape


def test_a_remedy_makes_it_fit():
    """Each is tried out: the smallest change of its kind."""
    heavy = on_cards(longest=1920, micro_batch_size=4, gradient_checkpointing=False)
    target = cards(count=1)
    found = remedies(config(), heavy, target)
    assert found == (
        "training.micro_batch_size: 1 (x 1.3 the time)",
        "training.gradient_checkpointing: true (x 1.4 the time)",
        "dataset.max_tokens: 480",
        "3 such cards in one node",
    )
    assert fit(config(), workload(1920, micro_batch_size=1, gradient_checkpointing=False), target).fits
    assert not fit(config(), workload(1920, micro_batch_size=2, gradient_checkpointing=False), target).fits
    assert fit(config(), workload(1920, micro_batch_size=4), target).fits
    assert fit(config(), workload(480, micro_batch_size=4, gradient_checkpointing=False), target).fits
    assert not fit(config(), workload(960, micro_batch_size=4, gradient_checkpointing=False), target).fits
    assert remedies(config(), workload(), target) == ()


def test_fp16_on_one_t4_takes_host_memory_or_nf4_or_two_cards():
    assert remedies(config("fp16"), on_cards(), cards(count=1)) == (
        "hardware.base_in_host_memory: auto (with 7 of 32 layers in host memory, 2.84 GiB)",
        "precision: nf4",
        "2 such cards in one node",
    )


def test_what_nothing_alone_mends_takes_everything_or_a_larger_card():
    small = dataclasses.replace(cards(count=1), limit_bytes=round(5.9 * GIB))
    heavy = on_cards(longest=2048, micro_batch_size=4, gradient_checkpointing=False)
    (together,) = remedies(config("fp16"), dataclasses.replace(heavy, shape=with_layers(24)), small)
    assert together.startswith("nf4, micro_batch_size 1")
    tiny = dataclasses.replace(cards(count=1), limit_bytes=round(0.6 * GIB))
    assert remedies(config(), on_cards(), tiny) == ("a card of 14.56 GiB (t4)",)


def with_layers(layers: int) -> ModelShape:
    return dataclasses.replace(LLAMA_3_8B, layers=layers)


def test_what_costs_time_alone_comes_first_and_says_its_price():
    """Without checkpointing nothing of a base waits; with it, what does is said, and 8-bit moments come before rank."""
    plain = workload(longest=2048, gradient_checkpointing=False)
    first, *_ = remedies(config("fp16"), plain, cards(count=1))
    assert first.startswith("training.gradient_checkpointing: true (with 8 of 32 layers")
    assert first.endswith("the time)")


def test_short_host_memory_is_a_remedy_of_its_own():
    """The memory that is named is enough, and a GiB less is not."""
    heavy, small = config("fp16", 256, "all_linear"), cards(count=1, host_memory_bytes=16 * GIB)
    found = remedies(heavy, workload(), small)
    (words,) = (one for one in found if "host memory a card" in one)
    enough = int(words.split()[3])
    for size, fits in ((enough, True), (enough - 1, False)):
        assert fit(heavy, workload(), dataclasses.replace(small, host_memory_bytes=size * GIB)).fits == fits
    assert found.index("rank: 128 (with 13 of 32 layers and moments in host memory, 7.78 GiB)") > 0
    assert found[0].startswith("training.optimizer: adamw_8bit (with")


def test_what_needs_more_than_its_phase_has_in_host_memory_may_have_a_study_of_its_own():
    assert remedies(config("fp16"), workload(), cards(count=1)) == (
        "a study of its own: with 7 of 32 layers in host memory, 2.84 GiB",
    )
