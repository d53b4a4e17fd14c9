"""The sections of a study file: their keys, ranges and defaults, and what must hold between them. (no torch, no ray)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.parameters import SearchSpace
from search_spaces.trial_config import TrialConfig
from study.config_paths import file_path, hub_or_path
from study.config_points import point_values, try_first
from study.config_reader import REQUIRED, Faults, Section
from study.config_rules import Rule, flag, list_of, nullable, number, one_of, size, text, whole
from study.faults import shown
from study.gpu_catalogue import UnknownGpuError, catalogue, find_gpu
from study.pareto_halving import (
    DEFAULT_KEEP_FRACTION,
    DEFAULT_RUNGS,
    DEFAULT_STRATA,
    DEFAULT_STRATUM_FRACTION,
)
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    RungSettings,
    Schedule,
    TrainingSettings,
)

Algorithm = Literal["grid", "random", "tpe", "nsga2", "gp"]
STOPPING_ALGORITHMS = ("none", "pareto_halving", "asha")
NAMED_DATASETS = ("pubmedqa", "stackoverflow")
HIGHEST_SEED = 2**31 - 1
HIGHEST_COUNT = 10**9
MAX_SEEDS = 100
MAX_TRIALS = 10_000
MAX_WARM_STARTS = 100

SEED = whole(0, HIGHEST_SEED, "0")
BASE_MODEL = {
    "path": text(example="meta-llama/Llama-3.2-1B"),
    "revision": text(),
    "double_quantization": flag(),
}
DATASET = {
    "name": text(100, "pubmedqa"),
    "source": nullable(text()),
    "train_file": nullable(text()),
    "eval_file": nullable(text()),
    "test_file": nullable(text()),
    "max_tokens": whole(2, 2**20),
    "train_examples": nullable(whole(1, HIGHEST_COUNT)),
    "eval_examples": nullable(whole(1, HIGHEST_COUNT)),
    "test_examples": nullable(whole(0, HIGHEST_COUNT)),
    "seed": SEED,
}
TRAINING = {
    "epochs": number(0, 1000, above=True),
    "max_steps": nullable(whole(1, 10**7)),
    "micro_batch_size": whole(1, 4096),
    "gradient_accumulation_steps": whole(1, 4096),
    "schedule": one_of(get_args(Schedule)),
    "warmup_ratio": number(0, 1, below=True),
    "weight_decay": number(0, 1),
    "max_grad_norm": number(0, 10**6),  # 0: not clipped
    "gradient_checkpointing": flag(),
    "evaluations": whole(1, 1000),
}
HARDWARE = {
    "gpus": nullable(whole(1, 10_000)),
    "memory_limit": nullable(size()),
    "max_adapters_per_gpu": nullable(whole(1, 1024)),
    "price_per_hour": nullable(number(0, 10_000)),  # USD, of one card
    "force_bf16": flag(),
}
EARLY_STOPPING = {
    "algorithm": one_of(STOPPING_ALGORITHMS),
    "keep_fraction": number(0, 1, above=True),
    "grace_steps": whole(0, 10**7),
    "strata": whole(1, 100),
    "stratum_fraction": number(0, 1, above=True),
}


@dataclass(frozen=True)
class SearchSettings:
    """How configurations are proposed; `trials` counts configurations, which a grid's `seeds` multiply."""

    algorithm: Algorithm
    trials: int
    seed: int
    try_first: tuple[TrialConfig, ...] = ()  # counted among the trials
    warm_start: tuple[str, ...] = ()  # directories of earlier studies

    def to_mapping(self) -> dict[str, Any]:
        """The section as a study file has it."""
        first = [point_values(config) for config in self.try_first]
        plain = {"algorithm": self.algorithm, "trials": self.trials, "seed": self.seed}
        return {**plain, "try_first": first, "warm_start": list(self.warm_start)}


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """Which trials end before their time; see ParetoHalving and PerplexityHalving for what the values do."""

    algorithm: str = "none"
    rungs: tuple[float, ...] = DEFAULT_RUNGS  # of the training budget
    keep_fraction: float = DEFAULT_KEEP_FRACTION
    grace_steps: int = 0  # before which nothing is stopped
    strata: int = DEFAULT_STRATA  # by memory, of pareto_halving
    stratum_fraction: float = DEFAULT_STRATUM_FRACTION

    def for_trials(self) -> RungSettings:
        """The rungs as trials need them; none where nothing is stopped."""
        return RungSettings() if self.algorithm == "none" else RungSettings(self.rungs, self.grace_steps)


@dataclass(frozen=True)
class ConfirmSettings:
    """With which seeds `confirm` trains the front again."""

    seeds: tuple[int, ...] = (101, 102, 103)


def base_model(section: Section, folder: Path) -> BaseModelSettings:
    """Where the frozen weights come from; its path is absolute where it is a path of this machine."""
    values = _values(section, BASE_MODEL, BaseModelSettings(path=REQUIRED))
    path = values["path"]
    if path is not REQUIRED and not path.startswith("package:"):
        values["path"] = hub_or_path(path, folder)
    return BaseModelSettings(**values)


def dataset(section: Section, folder: Path) -> DatasetSettings:
    """Which rows train, evaluate and test; the paths of this machine are absolute."""
    values = _values(section, DATASET, DatasetSettings(name=REQUIRED))
    _dataset_faults(section, values)
    for key in ("train_file", "eval_file", "test_file"):
        values[key] = values[key] and file_path(values[key], folder)
    if values["source"] not in (None, "sample"):
        values["source"] = hub_or_path(values["source"], folder)
    return DatasetSettings(**values)


def _dataset_faults(section: Section, values: dict[str, Any]) -> None:
    """A dataset is a named one with its source, or files of one's own."""

    def fault(name: str, rule: str, remedy: str) -> None:
        if section.faults.clean(section.path(name), section.path("train_file")):
            section.faults.add(section.path(name), values[name], rule, remedy)

    if values["train_file"] is None:
        if values["name"] is not REQUIRED and values["name"] not in NAMED_DATASETS:
            rule = one_of(NAMED_DATASETS)
            remedy = "Or give your own rows as `train_file`."
            fault("name", f"{rule.text}, without a train_file", f"{rule.remedy(values['name'])} {remedy}".strip())
        for key in ("eval_file", "test_file"):
            if values[key] is not None:
                fault(key, "needs a train_file beside it", "Give `train_file`, or leave it out.")
        return
    if values["source"] is not None:
        fault("source", "must not stand beside a train_file", "Leave one of them out.")
    if values["test_file"] is None and values["test_examples"]:
        fault("test_examples", "needs a test_file to take them from", "Give `test_file`, or leave it out.")


def training(section: Section) -> TrainingSettings:
    """How every trial trains."""
    return TrainingSettings(**_values(section, TRAINING, TrainingSettings()))


def generation(section: Section) -> GenerationSettings:
    """Which prompts are answered."""
    example = '["Hello"]'
    prompts = section.items("prompts", list_of(0, 50, "texts", example), text(4000, example), ())
    new_tokens = section.get("max_new_tokens", whole(1, 8192), GenerationSettings().max_new_tokens)
    held_out = section.get("held_out", whole(0, 50), GenerationSettings().held_out)
    section.end()
    return GenerationSettings(prompts, new_tokens, held_out)


def hardware(section: Section) -> HardwareSettings:
    """Which cards the study runs on."""
    defaults = HardwareSettings()
    gpu = section.get("gpu", _gpu(), defaults.gpu)
    values = {name: section.get(name, rule, getattr(defaults, name, None)) for name, rule in HARDWARE.items()}
    section.end()
    return HardwareSettings(gpu, memory_limit_bytes=values.pop("memory_limit"), **values)


def _gpu() -> Rule:
    """A card of the catalogue, becoming its key there, or `auto`, or `cpu`."""
    rule = one_of(("auto", "cpu", *catalogue()))
    return replace(rule, holds=lambda value: rule.holds(value) or _card_key(value) is not None, convert=_gpu_name)


def _gpu_name(value: str) -> str:
    return _card_key(value) or value


def _card_key(value: Any) -> str | None:
    try:
        return find_gpu(value).key if isinstance(value, str) else None
    except UnknownGpuError:
        return None


def seeds(study: Section) -> tuple[int, ...]:
    """The trials' seeds, distinct."""
    return study.items("seeds", list_of(1, MAX_SEEDS, "whole numbers", "[0]"), whole(0, HIGHEST_SEED, "[0]"), (0,))


def search(section: Section, space: SearchSpace | None, seeds: Sequence[int], folder: Path) -> SearchSettings:
    """How configurations are proposed; a grid's trials are as many as it has configurations."""
    algorithm = section.get("algorithm", one_of(get_args(Algorithm)), "grid")
    trials = section.get("trials", nullable(whole(1, MAX_TRIALS, "24")), None)
    seed = section.get("seed", SEED, 0)
    first = try_first(section, space, seeds[0] if seeds else 0)
    earlier = section.items(
        "warm_start", list_of(0, MAX_WARM_STARTS, "study directories", "[runs/earlier]"), text(), ()
    )
    section.end()
    if not section.faults.clean("search.algorithm", "search.trials"):
        return SearchSettings(algorithm, 0, seed)
    _start_faults(section, algorithm, trials, len(first))
    if algorithm != "grid" and trials is None:
        section.missing("trials", "24")
    elif algorithm == "grid" and space is not None:
        trials = _grid_size(section.faults, space, trials, len(seeds))
    return SearchSettings(algorithm, trials or 0, seed, first, tuple(file_path(one, folder) for one in earlier))


def _start_faults(section: Section, algorithm: str, trials: int | None, points: int) -> None:
    """What a search begins with is of no use to a grid, and the points to try first are among its trials."""
    for name in ("try_first", "warm_start"):
        value = section.raw(name)
        if value is not REQUIRED and value and algorithm == "grid":
            remedy = "Leave it out, or search the space: `algorithm: tpe` with a number of `trials`."
            section.faults.add(section.path(name), value, "is for a search; a grid runs whole anyway", remedy)
    if trials is not None and points > trials:
        rule = f"must be at least {points}, the configurations to try first"
        section.faults.add(section.path("trials"), trials, rule, "Raise it, or try fewer first.")


def _grid_size(faults: Faults, space: SearchSpace, trials: int | None, seed_count: int) -> int | None:
    combinations = space.combinations() * seed_count
    if combinations > MAX_TRIALS:
        rule = f"must have at most {MAX_TRIALS:,} trials; the space's combinations times the seeds are {combinations:,}"
        remedy = "Leave values out, or search it: `algorithm: tpe` with a number of `trials`."
        faults.add("search.algorithm", "grid", rule, remedy)
        return None
    configurations = len(space.grid([0]))
    if trials is not None and trials < configurations:
        rule = f"must be at least {configurations}, the space's configurations: a grid runs whole"
        faults.add("search.trials", trials, rule, "Leave it out, or let `algorithm: random` take so many.")
    return configurations


def early_stopping(section: Section) -> EarlyStoppingSettings:
    """Which trials end before their time."""
    defaults = EarlyStoppingSettings()
    example = shown(list(DEFAULT_RUNGS))
    part = number(0, 1, above=True, below=True, example=example)
    rungs = section.items("rungs", list_of(1, 20, "numbers", example), part, DEFAULT_RUNGS)
    if list(rungs) != sorted(rungs):
        rule = "must go upward: they are parts of the training budget, one after another"
        section.faults.add(section.path("rungs"), list(rungs), rule, f"Write `rungs: {shown(sorted(rungs))}`.")
    values = {name: section.get(name, rule, getattr(defaults, name)) for name, rule in EARLY_STOPPING.items()}
    section.end()
    return EarlyStoppingSettings(rungs=rungs, **values)


def confirm(section: Section, seeds: Sequence[int], algorithm: str) -> ConfirmSettings:
    """With which seeds the front is trained again: others than those that it was found with.

    A search has used only the first of the study's seeds, so the others are the default.
    """
    trained = tuple(seeds) if algorithm == "grid" else tuple(seeds[:1])
    default = tuple(seed for seed in seeds if seed not in trained) or ConfirmSettings.seeds
    example = shown(list(default))
    rule = whole(0, HIGHEST_SEED, example)
    new = section.items("seeds", list_of(1, MAX_SEEDS, "whole numbers", example), rule, default)
    section.end()
    for place, seed in enumerate(new):
        if seed in trained:
            remedy = "Give seeds that the study has not trained with, so that they say something new."
            section.faults.add(section.path(f"seeds.{place}"), seed, "must differ from the study's seeds", remedy)
    return ConfirmSettings(new)


def _values(section: Section, rules: dict[str, Rule], defaults: Any) -> dict[str, Any]:
    values = {name: section.get(name, rule, getattr(defaults, name)) for name, rule in rules.items()}
    section.end()
    return values
