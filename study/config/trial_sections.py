"""Reads the sections that describe each trial: base model, dataset, training, objectives, hardware, generation.

The rules of their keys stand first, the defaults are in `trainables.settings`. `objectives` and `loggers` are lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from study.config.paths import file_path, hub_or_path, is_url
from study.config.reader import REQUIRED, Faults, Section
from study.config.rules import Rule, flag, list_of, nullable, number, one_of, size, text, whole
from study.hardware.gpu_catalogue import UnknownGpuError, catalogue, find_gpu
from study.records.objectives import METRICS, Direction, Objective
from trainables.dataset.named import NAMED
from trainables.settings import (
    BaseInHostMemory,
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    Grouping,
    HardwareSettings,
    MeasuredCosts,
    Optimizer,
    Schedule,
    SpecialTokens,
    TrainingSettings,
)

HIGHEST_SEED = 2**31 - 1
HIGHEST_COUNT = 10**9

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
    "group": one_of(get_args(Grouping)),
    "special_tokens": one_of(get_args(SpecialTokens)),
}
TRAINING = {
    "epochs": number(0, 1000, above=True),
    "max_steps": nullable(whole(1, 10**7)),
    "micro_batch_size": whole(1, 4096),
    "gradient_accumulation_steps": whole(1, 4096),
    "schedule": one_of(get_args(Schedule)),
    "warmup_ratio": number(0, 1, below=True),
    "optimizer": one_of(get_args(Optimizer)),
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
    "measured_costs": one_of(get_args(MeasuredCosts)),
    "base_in_host_memory": one_of(get_args(BaseInHostMemory)),
}
CARD_METRICS = ("peak_reserved_bytes", "peak_device_bytes", "energy_joules")  # a CPU has none of them
LOGGER_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}  # by name in the study file


def base_model(section: Section, folder: Path) -> BaseModelSettings:
    """Where the frozen weights come from; a path of this machine becomes absolute."""
    values = _values(section, BASE_MODEL, BaseModelSettings(path=REQUIRED))
    path = values["path"]
    if path is not REQUIRED and not path.startswith("package:") and not is_url(path):
        values["path"] = hub_or_path(path.rstrip("/") or path, folder)
    return BaseModelSettings(**values)


def dataset(section: Section, folder: Path) -> DatasetSettings:
    """Which rows train, evaluate and test; paths of this machine become absolute."""
    values = _values(section, DATASET, DatasetSettings(name=REQUIRED))
    _dataset_faults(section, values)
    for key in ("train_file", "eval_file", "test_file"):
        values[key] = values[key] and file_path(values[key], folder)
    if values["source"] not in (None, "sample"):
        values["source"] = hub_or_path(values["source"], folder)
    return DatasetSettings(**values)


def _dataset_faults(section: Section, values: dict[str, Any]) -> None:
    """Notes what contradicts: a dataset is either a named one, with its source, or files of one's own."""

    def fault(name: str, rule: str, remedy: str) -> None:
        if section.faults.clean(section.path(name), section.path("train_file")):
            section.faults.add(section.path(name), values[name], rule, remedy)

    if values["train_file"] is None:
        if values["name"] is not REQUIRED and values["name"] not in NAMED:
            rule = one_of(tuple(NAMED))
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


def objectives(study: Section) -> tuple[Objective, ...]:
    """What the study optimizes: 2 to 4 distinct metrics."""
    example = "[{metric: perplexity, direction: minimize, reference: 20}, ...]"
    values = study.get("objectives", list_of(2, 4, "objectives", example))
    found: list[Objective] = []
    for place, value in enumerate(() if values is REQUIRED else values):
        objective = _objective(study.part(f"objectives.{place}", value, ""))
        if objective.metric in METRICS and objective.metric in [one.metric for one in found]:
            study.repeated(f"objectives.{place}.metric", objective.metric)
        found.append(objective)
    return tuple(found)


def _objective(section: Section) -> Objective:
    metric = section.get("metric", one_of(METRICS, "perplexity"))
    own = METRICS.get(metric)
    direction = section.get("direction", one_of(get_args(Direction), own.direction if own else "minimize"))
    reference = section.get("reference", _reference(metric)) if own else section.raw("reference")
    section.end()
    return Objective(metric, direction, reference)


def _reference(metric: str) -> Rule:
    if METRICS[metric].unit == "bytes":
        return size()
    return number(0, 1, example="0.3") if METRICS[metric].unit == "fraction" else number(0, 10**15, example="20")


def unmeasured_faults(
    faults: Faults, sought: Sequence[Objective], data: DatasetSettings, hardware: HardwareSettings
) -> None:
    """Notes objectives that no trial of the study can measure."""
    for place, objective in enumerate(sought):
        key = f"objectives.{place}.metric"
        labelled = data.name == "pubmedqa" and data.train_file is None
        if objective.metric == "accuracy" and not labelled and faults.clean("dataset"):
            rule = "must be measured on the data; answers have labels only in pubmedqa's own rows"
            faults.add(key, objective.metric, rule, "Choose another metric, or `dataset.name: pubmedqa`.")
        if objective.metric in CARD_METRICS and hardware.gpu == "cpu":
            rule = "must be measured on the hardware; only a GPU has it, and hardware.gpu is cpu"
            faults.add(key, objective.metric, rule, "Choose `peak_memory_bytes` or another metric.")


def streaming_faults(faults: Faults, training: TrainingSettings, hardware: HardwareSettings) -> None:
    """Notes a base model that is always to wait in host memory where its layers would not be passed through again."""
    key, checkpointing = "hardware.base_in_host_memory", "training.gradient_checkpointing"
    if hardware.base_in_host_memory != "always" or training.gradient_checkpointing or not faults.clean(checkpointing):
        return
    rule = (
        f"must not be `always` where {checkpointing} is false: a layer's weights leave the card after its forward "
        "pass, and only with checkpointing are they brought back for its backward pass"
    )
    remedy = f"Set `{checkpointing}: true`, or `{key}: auto`, which then leaves the base model on the card."
    faults.add(key, hardware.base_in_host_memory, rule, remedy)


def hardware(section: Section) -> HardwareSettings:
    """Which cards the study runs on."""
    defaults = HardwareSettings()
    gpu = section.get("gpu", _gpu(), defaults.gpu)
    values = {name: section.get(name, rule, getattr(defaults, name, None)) for name, rule in HARDWARE.items()}
    section.end()
    return HardwareSettings(gpu, memory_limit_bytes=values.pop("memory_limit"), **values)


def _gpu() -> Rule:
    """A card of the catalogue, which becomes its key there, or `auto`, or `cpu`."""
    rule = one_of(("auto", "cpu", *catalogue()))
    return replace(rule, holds=lambda value: rule.holds(value) or _card_key(value) is not None, convert=_gpu_name)


def _gpu_name(value: str) -> str:
    return _card_key(value) or value


def _card_key(value: Any) -> str | None:
    try:
        return find_gpu(value).key if isinstance(value, str) else None
    except UnknownGpuError:
        return None


def generation(section: Section) -> GenerationSettings:
    """Which prompts the base model and the adapters complete, as samples."""
    example = '["Hello"]'
    prompts = section.items("prompts", list_of(0, 50, "texts", example), text(4000, example), ())
    new_tokens = section.get("max_new_tokens", whole(1, 8192), GenerationSettings().max_new_tokens)
    held_out = section.get("held_out", whole(0, 50), GenerationSettings().held_out)
    section.end()
    return GenerationSettings(prompts, new_tokens, held_out)


def loggers(study: Section) -> tuple[str, ...]:
    """Which loggers receive the trials' results, beside the study's own records."""
    return study.items(
        "loggers", list_of(0, len(LOGGER_PACKAGES), "names", "[tensorboard]"), one_of(LOGGER_PACKAGES), ()
    )


def _values(section: Section, rules: dict[str, Rule], defaults: Any) -> dict[str, Any]:
    values = {name: section.get(name, rule, getattr(defaults, name)) for name, rule in rules.items()}
    section.end()
    return values
