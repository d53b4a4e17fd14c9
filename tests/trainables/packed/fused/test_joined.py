"""Parts of joined outputs: views on the way forward, and one tensor again on the way back."""

from __future__ import annotations

import torch

from trainables.packed.fused.joined import joined, parted


def test_outputs_of_several_layers_stay_as_they_are() -> None:
    outputs = [torch.randn(3, 2), torch.randn(3, 5)]
    assert parted(outputs, (2, 5)) is outputs
    assert joined(outputs, 2) is outputs


def test_parts_of_one_output_are_views_which_join_without_a_copy() -> None:
    output = torch.randn(3, 7)
    parts = parted([output], (2, 4, 1))
    assert [part.shape[1] for part in parts] == [2, 4, 1]
    (whole,) = joined(parts, 1)
    assert whole.data_ptr() == output.data_ptr()
    assert torch.equal(whole, output)


def test_parts_from_elsewhere_or_in_another_order_are_copied() -> None:
    output = torch.randn(3, 4)
    first, second = parted([output], (2, 2))
    for parts in ((first.clone(), second.clone()), (second, first), (first, first), (first, second.clone())):
        (whole,) = joined(parts, 1)
        assert torch.equal(whole, torch.cat(parts, dim=-1))
        assert whole.data_ptr() != output.data_ptr()
