"""A space whose quality and memory have closed forms, and trials that ended in it."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.search.known_cost import KnownCost

SPACE = parse_space(
    {
        "precision": {"choice": ["bf16", "nf4"]},
        "rank": {"choice": [4, 8, 16, 32]},
        "target_modules": {"choice": ["q_v", "all_linear"]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": 0.0,
        "learning_rate": {"log_float": [1e-5, 1e-2]},
    }
)
LISTED = parse_space({**SPACE.to_mapping(), "learning_rate": {"choice": [1e-4, 1e-3]}})


def memory_of(config: TrialConfig) -> float:
    return (100.0 if config.precision == "nf4" else 200.0) + config.rank * len(config.target_modules)


def quality_of(config: TrialConfig) -> float:
    """Best at a learning rate of 1e-3; rank and modules help."""
    return 10 - math.log2(config.rank * len(config.target_modules)) / 2 + math.log10(config.learning_rate / 1e-3) ** 2


KNOWN = KnownCost(0, 1, (14.0, 500.0), True, memory_of)


def ended(config: TrialConfig, state: TrialState = TrialState.COMPLETE, **attributes: Any) -> FrozenTrial:
    values = [quality_of(config), memory_of(config)] if state == TrialState.COMPLETE else None
    return optuna.trial.create_trial(state=state, values=values, user_attrs={"config": config.to_dict(), **attributes})


def configured(rank: int = 8, rate: float = 1e-4, precision: str = "nf4", modules: str = "q_v") -> TrialConfig:
    values = {"rank": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "learning_rate": rate, "seed": 0}
    return TrialConfig.from_dict({**values, "precision": precision, "target_modules": modules})
