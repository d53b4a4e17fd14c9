"""Tensors in one block keep their values, do not touch each other, and begin where kernels read them well."""

from __future__ import annotations

import pytest
import torch

from trainables.packed.host_memory import tensor_block
from trainables.packed.host_memory.tensor_block import ALIGNED_BYTES, host_block, placed


def test_tensors_in_a_block_are_themselves_and_apart() -> None:
    tensors = [torch.rand(3, 5), torch.tensor(2.0), torch.arange(7), torch.rand(0), torch.randint(255, (9,)).byte()]
    places, size = placed(tensors, start=ALIGNED_BYTES)
    block = host_block(size).fill_(255)
    for place, tensor in zip(places, tensors, strict=True):
        place.view(block).copy_(tensor)
    assert all(torch.equal(place.view(block), tensor) for place, tensor in zip(places, tensors, strict=True))
    assert all(place.start % ALIGNED_BYTES == 0 for place in places)
    assert int(block[:ALIGNED_BYTES].min()) == 255
    assert size == places[-1].end >= ALIGNED_BYTES + sum(tensor.nbytes for tensor in tensors)


def test_a_host_without_memory_is_told_apart_from_a_full_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is locked for a CPU; for cards once each, however many parameters they have."""
    asked: list[tuple[torch.device, ...]] = []

    def full(nbytes: int, cards: tuple[torch.device, ...]) -> torch.Tensor:
        asked.append(cards)
        raise MemoryError("0.00 GiB are left")

    monkeypatch.setattr(tensor_block, "locked_block", full)
    cpu, card, other = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
    with pytest.raises(MemoryError, match=r"2 MiB of page-locked host memory must be free; .*left\).*fewer adapters"):
        host_block(2 * 2**20, [card, other, cpu, card])
    assert asked == [(card, other)]
    assert len(host_block(9, [cpu])) == len(host_block(9)) == 9
