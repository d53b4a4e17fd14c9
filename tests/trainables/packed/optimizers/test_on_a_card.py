"""On a card moments that come and go by its own copies are those that stay, to the bit; needs one."""

from __future__ import annotations

from itertools import zip_longest

import pytest
import torch

from trainables.packed.optimizers.adamw import AdamW
from trainables.packed.optimizers.adamw_8bit import AdamW8bit
from trainables.packed.optimizers.in_host_memory import InHostMemory
from trainables.packed.optimizers.optimizer_state import OptimizerState, Resident
from trainables.packed.optimizers.rule import Rule, StepValues
from trainables.packed.optimizers.staging import Staging

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
SHAPES = ((64, 4096), (4096, 64), (16, 14336), (3, 5), (1024, 1024))
MEMBERS, STEPS = 3, 6


def values(skipped: bool) -> StepValues:
    return StepValues(1e-2, 0.1, torch.tensor(4.0, device="cuda"), torch.tensor(float(skipped), device="cuda"))


def trained(rule: type[Rule], staging: Staging | None) -> list[torch.Tensor]:
    """Weights and state of a few members after a few steps, the fourth skipped."""
    card = torch.device("cuda", torch.cuda.current_device())
    generator = torch.Generator(card).manual_seed(0)
    members: list[tuple[OptimizerState, list[torch.Tensor]]] = []
    for _ in range(MEMBERS):
        weights = [torch.randn(shape, device=card, generator=generator) for shape in SHAPES]
        made = InHostMemory(rule(), weights, staging) if staging else Resident(rule(), weights, away=False)
        made.prepare([card] * len(weights))
        members.append((made, weights))
    for step in range(STEPS):
        for (state, weights), then in zip_longest(members, members[1:]):
            gradients = {one: torch.randn(one.shape, device=card, generator=generator) for one in weights}
            state.update(gradients, values(step == 3), then[0] if then else None)
    kept = [value for state, weights in members for one in weights for value in state.state[one].values()]
    return [one.cpu() for one in (*(weight for _, weights in members for weight in weights), *kept)]


@pytest.mark.parametrize("rule", [AdamW, AdamW8bit])
@pytest.mark.parametrize("staged_bytes", [2**20, 2**25])
def test_moments_in_page_locked_memory_are_resident_ones(rule: type[Rule], staged_bytes: int) -> None:
    expected, found = trained(rule, None), trained(rule, Staging(staged_bytes))
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
