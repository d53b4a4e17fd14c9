"""On a card inputs that come and go by its own copies give the gradients of those that stay, with less memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from trainables.packed.layer_inputs.layer_inputs import LayerInputs, LayerInputsInHostMemory

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
LAYERS, ROWS, WIDTH = 12, 4096, 2048


def layer(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.tanh(hidden) @ weight


def peak_and_gradients(inputs: LayerInputs) -> tuple[int, list[torch.Tensor]]:
    """Two passes through checkpointed layers of one product each; the peak is of the second."""
    generator = torch.Generator("cuda").manual_seed(0)
    scale = WIDTH**-0.5
    weights = [
        torch.randn(WIDTH, WIDTH, device="cuda", generator=generator).mul_(scale).requires_grad_()
        for _ in range(LAYERS)
    ]
    start = torch.randn(ROWS, WIDTH, device="cuda", generator=generator)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        for weight in weights:
            weight.grad = None
        with inputs.of_pass(ROWS * WIDTH) as forward:
            with forward:
                hidden = start
                for weight in weights:
                    hidden = checkpoint(layer, hidden, weight, use_reentrant=False)
            hidden.square().mean().backward()
    return torch.cuda.max_memory_allocated(), [weight.grad.cpu() for weight in weights]


def test_gradients_are_the_same_to_the_bit_and_inputs_do_not_add_up() -> None:
    """32 MiB a layer, of which a few are there at a time."""
    there, expected = peak_and_gradients(LayerInputs())
    away, found = peak_and_gradients(LayerInputsInHostMemory())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert there - away > (LAYERS - 6) * ROWS * WIDTH * 4
