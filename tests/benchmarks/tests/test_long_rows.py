"""The long rows of the edge study: near the edge, as long as their needs bring them there."""

from __future__ import annotations

from tests.benchmarks.support.edge_cases import T4_BYTES, small_card
from tests.benchmarks.support.long_rows import FEWEST_TOKENS, MOST_TOKENS, NEAR, long_cases
from trainables.base_model.shape import ModelShape

LLAMA_3_8B = ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False, 65 * 4096)


def test_rows_are_as_long_as_their_needs_bring_them_near_the_edge() -> None:
    """A token more or less changes needs by less than a thousandth of the card."""
    found = long_cases(LLAMA_3_8B, small_card())
    assert {judged.fits for _, judged in found} == {True, False}
    assert len({case.offload for case, _ in found}) >= 3
    for case, judged in found:
        assert case.rows == 1
        assert FEWEST_TOKENS <= case.tokens <= MOST_TOKENS
        assert min(abs(judged.device_bytes / T4_BYTES - near) for near in NEAR) < 0.001
        assert judged.predictions[0].setting.offload == case.offload
    order = [case.offload for case, _ in found]
    assert sorted(order, key=order.index) == order  # each base model is made once
