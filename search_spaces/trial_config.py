"""A configuration to try, and the rules that its values keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from search_spaces.faults import BrokenRule, TrialConfigError
from search_spaces.layer_ranges import Layers, broken_layer_rules, layers_text, parse_layers
from search_spaces.target_modules import (
    MODULE_NAMES,
    TARGET_SETS,
    broken_module_rules,
    canonical,
    modules_name,
    split_modules,
)

__all__ = ["MODULE_NAMES", "PRECISIONS", "TARGET_SETS", "Precision", "TrialConfig"]

Precision = Literal["fp32", "bf16", "fp16", "nf4"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

MAX_RANK = 1024
MAX_ALPHA = 65536
RULES = {
    "precision": f"must be one of {', '.join(PRECISIONS)}",
    "rank": f"must be an integer from 1 to {MAX_RANK}",
    "lora_alpha": f"must be a number above 0, at most {MAX_ALPHA}",
    "lora_dropout": "must be at least 0 and under 1",
    "learning_rate": "must be above 0 and at most 1",
    "seed": "must be an integer from 0 to 2**31 - 1",
}


@dataclass(frozen=True)
class TrialConfig:
    """What was sampled for one trial, with its seed.

    `lora_alpha` / `rank` scales the update (Hu et al. 2021, arXiv 2106.09685); `precision` is the base model's, as in
    QLoRA (Dettmers et al. 2023, arXiv 2305.14314). `target_modules` are as asked for, a set as the names that it has in
    a Llama; `search_spaces.resolution` says which linear layers of a model they mean, in `layers` (None: all of them).
    Raises TrialConfigError with every broken rule.
    """

    precision: Precision
    rank: int
    lora_alpha: float
    lora_dropout: float
    target_modules: tuple[str, ...]
    learning_rate: float
    seed: int = 0
    layers: Layers = None

    def __post_init__(self) -> None:
        if broken := _broken_rules(self):
            raise TrialConfigError(broken)

    @property
    def scaling(self) -> float:
        """The factor of the low-rank update, alpha / r."""
        return self.lora_alpha / self.rank

    @property
    def module_set(self) -> str:
        """The target modules' short name: `q_v`, `all_linear`, or the modules joined by `+`."""
        return modules_name(self.target_modules)

    @property
    def layer_range(self) -> str:
        """The layers as a text: `all`, `last_half`, `16-31`."""
        return layers_text(self.layers)

    @property
    def target_set(self) -> str:
        """What is updated, in short: `q_v`, and with layers `q_v[16-31]`."""
        return self.module_set if self.layers is None else f"{self.module_set}[{self.layer_range}]"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values; without `layers` where all are meant, as in earlier versions."""
        # `asdict` would copy each value deeply, which takes ten times as long.
        values = {**vars(self), "target_modules": list(self.target_modules)}
        layers = values.pop("layers")
        return values if layers is None else {**values, "layers": list(layers) if isinstance(layers, tuple) else layers}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Reads `to_dict`'s form; target modules may also be a set's name, or module names joined by `+`."""
        modules = values["target_modules"]
        modules = split_modules(modules) if isinstance(modules, str) else canonical(tuple(modules))
        return cls(**{**values, "target_modules": modules, "layers": parse_layers(values.get("layers"))})


def _broken_rules(config: TrialConfig) -> list[BrokenRule]:
    alpha, dropout, rate, seed = config.lora_alpha, config.lora_dropout, config.learning_rate, config.seed
    holds = {
        "precision": config.precision in PRECISIONS,
        "rank": _is_int(config.rank) and 1 <= config.rank <= MAX_RANK,
        "lora_alpha": _is_number(alpha) and 0 < alpha <= MAX_ALPHA,
        "lora_dropout": _is_number(dropout) and 0 <= dropout < 1,
        "learning_rate": _is_number(rate) and 0 < rate <= 1,
        "seed": _is_int(seed) and 0 <= seed < 2**31,
    }
    broken = [BrokenRule(name, RULES[name], f"it is {getattr(config, name)!r}") for name in holds if not holds[name]]
    return broken + broken_module_rules(config.target_modules) + broken_layer_rules(config.layers)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
