"""What would make a configuration fit does make it fit."""

import dataclasses

from study.plan.fitting import fit
from study.plan.remedies import remedies
from tests.support.plan_cases import GIB, LLAMA_3_8B, cards, config, workload
from trainables.base_model.shape import ModelShape


def test_a_remedy_makes_it_fit():
    """Each is tried out: the smallest change of its kind."""
    heavy = workload(longest=1920, micro_batch_size=4, gradient_checkpointing=False)
    target = cards(count=1)
    found = remedies(config(), heavy, target)
    assert found == (
        "training.micro_batch_size: 1",
        "training.gradient_checkpointing: true",
        "dataset.max_tokens: 480",
        "3 such cards in one node",
    )
    assert fit(config(), workload(1920, micro_batch_size=1, gradient_checkpointing=False), target).fits
    assert not fit(config(), workload(1920, micro_batch_size=2, gradient_checkpointing=False), target).fits
    assert fit(config(), workload(1920, micro_batch_size=4), target).fits
    assert fit(config(), workload(480, micro_batch_size=4, gradient_checkpointing=False), target).fits
    assert not fit(config(), workload(960, micro_batch_size=4, gradient_checkpointing=False), target).fits
    assert remedies(config(), workload(), target) == ()


def test_fp16_on_one_t4_takes_nf4_or_two_cards():
    assert remedies(config("fp16"), workload(), cards(count=1)) == ("precision: nf4", "2 such cards in one node")


def test_what_nothing_alone_mends_takes_everything_or_a_larger_card():
    small = dataclasses.replace(cards(count=1), limit_bytes=round(5.9 * GIB))
    heavy = workload(longest=2048, micro_batch_size=4, gradient_checkpointing=False)
    (together,) = remedies(config("fp16"), dataclasses.replace(heavy, shape=with_layers(24)), small)
    assert together.startswith("nf4, micro_batch_size 1")
    tiny = dataclasses.replace(cards(count=1), limit_bytes=round(0.6 * GIB))
    assert remedies(config(), workload(), tiny) == ("a card of 14.56 GiB (t4)",)


def with_layers(layers: int) -> ModelShape:
    return dataclasses.replace(LLAMA_3_8B, layers=layers)
