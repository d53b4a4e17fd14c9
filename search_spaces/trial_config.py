"""A configuration to try, and the rules that its values keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from search_spaces.faults import BrokenRule, TrialConfigError

Precision = Literal["fp32", "bf16", "fp16", "nf4"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

TARGET_SETS: dict[str, tuple[str, ...]] = {
    "q_v": ("q_proj", "v_proj"),
    "all_linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
MODULE_NAMES = TARGET_SETS["all_linear"]
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
    QLoRA (Dettmers et al. 2023, arXiv 2305.14314). Raises TrialConfigError with every broken rule.
    """

    precision: Precision
    rank: int
    lora_alpha: float
    lora_dropout: float
    target_modules: tuple[str, ...]
    learning_rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if broken := _broken_rules(self):
            raise TrialConfigError(broken)

    @property
    def scaling(self) -> float:
        """The factor of the low-rank update, alpha / r."""
        return self.lora_alpha / self.rank

    @property
    def target_set(self) -> str:
        """The target modules' short name: `q_v`, `all_linear`, or the modules joined by `+`."""
        return _set_name(self.target_modules)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        # `asdict` would copy each value deeply, which takes ten times as long.
        return {**vars(self), "target_modules": list(self.target_modules)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Reads `to_dict`'s form; target modules may also be a set's name, or module names joined by `+`."""
        modules = values["target_modules"]
        if isinstance(modules, str):
            modules = TARGET_SETS.get(modules) or tuple(modules.split("+"))
        return cls(**{**values, "target_modules": tuple(modules)})


@lru_cache(maxsize=1024)  # a report asks for it dozens of times a trial
def _set_name(target_modules: tuple[str, ...]) -> str:
    for name, modules in TARGET_SETS.items():
        if set(modules) == set(target_modules):
            return name
    return "+".join(name.removesuffix("_proj") for name in target_modules)


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
    return broken + _broken_module_rules(config.target_modules)


def _broken_module_rules(modules: tuple[str, ...]) -> list[BrokenRule]:
    broken: list[BrokenRule] = []
    if not modules:
        broken.append(BrokenRule("target_modules", "must name at least one module"))
    if unknown := [str(name) for name in modules if name not in MODULE_NAMES]:
        broken.append(BrokenRule("target_modules", f"may hold {', '.join(MODULE_NAMES)}", f"not {', '.join(unknown)}"))
    if len(set(modules)) != len(modules):
        broken.append(BrokenRule("target_modules", "must be distinct"))
    return broken


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
