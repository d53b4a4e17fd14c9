"""Blocks are used again where they are large enough, and replaced where they are not."""

from __future__ import annotations

import torch

from trainables.packed.layer_inputs.block_pool import BlockPool

CPU = torch.device("cpu")


def test_the_smallest_block_that_is_large_enough_comes_first() -> None:
    pool = BlockPool(CPU)
    large, small = pool.take(1000), pool.take(100)
    assert (len(large), len(small)) == (1000, 100)
    pool.give(large)
    pool.give(small)
    assert pool.take(90) is small
    assert pool.take(90) is large


def test_a_block_that_is_too_small_makes_way_for_a_larger_one() -> None:
    pool = BlockPool(CPU)
    first = [pool.take(100) for _ in range(3)]
    for block in first:
        pool.give(block)
    larger = [pool.take(1000) for _ in range(3)]
    assert all(len(block) == 1000 for block in larger)
    assert pool._free == []
    assert len(pool.take(1)) == 1
