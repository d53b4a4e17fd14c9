"""Chooses an adapter's optimizer: its arithmetic by the study's setting, and where its state is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from trainables.packed.optimizers.adamw import AdamW
from trainables.packed.optimizers.adamw_8bit import AdamW8bit
from trainables.packed.optimizers.in_host_memory import InHostMemory
from trainables.packed.optimizers.optimizer_state import OptimizerState, Resident
from trainables.packed.optimizers.rule import Rule
from trainables.packed.optimizers.staging import Staging
from trainables.settings import Optimizer

RULES: Mapping[Optimizer, Callable[[], Rule]] = {"adamw": AdamW, "adamw_8bit": AdamW8bit}


def optimizer_state(
    name: Optimizer, parameters: Sequence[torch.Tensor], away: bool, staging: Staging | None = None
) -> OptimizerState:
    """Returns what an optimizer keeps of parameters at first: in host memory where there is `staging`.

    `away`: the parameters only wait where they are.
    """
    rule = RULES[name]()
    return Resident(rule, parameters, away) if staging is None else InHostMemory(rule, parameters, staging)
