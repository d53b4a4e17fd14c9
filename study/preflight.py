"""What must hold before Ray starts: the model is one we can train, the data are there, and both go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.trial_config import MODULE_NAMES
from study.config import ConfigError, ConfigFault, StudyConfig


@dataclass(frozen=True)
class Preflight:
    """What was found: the base model's facts and the data's statistics."""

    parameter_count: int
    model_type: str
    statistics: Mapping[str, Mapping[str, Any]]


def check(config: StudyConfig) -> Preflight:
    """Looks at model, tokenizer, target modules and data, loading no weights. Raises ConfigError with every fault."""
    # Here and not above: these import transformers, which a command without a study does not need.
    from trainables.dataset import DatasetError, prepare_dataset
    from trainables.model_files import inspect, load_tokenizer
    from trainables.model_location import BaseModelError

    faults: list[ConfigFault] = []

    def attempt(key: str, value: object, function: Callable[[], Any], error_type: type[Exception]) -> Any:
        try:
            return function()
        except error_type as error:
            faults.append(ConfigFault(config.file, key, value, str(error), ""))
            return None

    model, data = config.trial.base_model, config.trial.dataset
    info = attempt("base_model.path", model.path, lambda: inspect(model), BaseModelError)
    tokenizer = attempt("base_model.path", model.path, lambda: load_tokenizer(model), BaseModelError) if info else None
    faults += _precision_faults(config)
    if info:
        faults += _module_faults(config, info.linear_modules)
        faults += _length_faults(config, info.max_positions)
    dataset = None
    if tokenizer:
        dataset = attempt(
            "dataset", data.source or data.train_file, lambda: prepare_dataset(data, tokenizer), DatasetError
        )
    if faults or dataset is None or info is None:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    return Preflight(info.parameter_count, info.model_type, dataset.statistics)


def _precision_faults(config: StudyConfig) -> list[ConfigFault]:
    from trainables.model_files import check_precision
    from trainables.model_location import BaseModelError

    if config.trial.hardware.gpu != "cpu":
        return []
    faults = []
    for precision in config.space.precisions():
        try:
            check_precision(precision, "cpu")
        except BaseModelError as error:
            faults.append(ConfigFault(config.file, "space.precision", precision, str(error), ""))
    return faults


def _module_faults(config: StudyConfig, there: tuple[str, ...]) -> list[ConfigFault]:
    asked = {name for one in config.space.target_modules() for name in one}
    missing = [name for name in MODULE_NAMES if name in asked and name not in there]
    if not missing:
        return []
    rule = f"must be among the base model's linear layers, {', '.join(there)}"
    return [ConfigFault(config.file, "space.target_modules", ", ".join(missing), rule, "Leave them out.")]


def _length_faults(config: StudyConfig, positions: int) -> list[ConfigFault]:
    asked = config.trial.dataset.max_tokens
    if asked <= positions:
        return []
    rule = f"must be at most the base model's {positions} positions"
    return [ConfigFault(config.file, "dataset.max_tokens", asked, rule, f"Set it to {positions} or less.")]
