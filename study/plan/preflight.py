"""Checks model, tokenizer, data and target modules before Ray starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from search_spaces.resolution import TargetError, TargetFault
from search_spaces.target_modules import TARGET_SETS
from study.config.study_config import ConfigError, ConfigFault, StudyConfig
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.machine import find_cards
from study.hardware.targets import smallest_here
from trainables.base_model.shape import ModelShape
from trainables.dataset.prepared import PreparedDataset
from trainables.precision import Processor, refusal
from trainables.settings import BaseModelSettings, DatasetSettings

WEIGHTS, TOKENIZER = "weights", "tokenizer"


@dataclass(frozen=True)
class Preflight:
    """What was found: the base model's facts and the data's statistics."""

    parameter_count: int
    model_type: str
    statistics: Mapping[str, Mapping[str, Any]]
    shape: ModelShape | None = None
    missing: tuple[str, ...] = ()  # what a plan does without, and a run does not
    sha256: str = ""  # of the weights; of a hub's model its commit
    fingerprint: str = ""  # of the data's token ids
    tokenizer_sha256: str = ""  # of all that its library keeps of it
    tokens: str = ""  # what rows begin and end with, how special tokens' texts in them are read, what is unknown


def check(config: StudyConfig, weights: bool = True, here: bool = True) -> Preflight:
    """Looks at model, tokenizer, target modules and data, loading no weights. Raises ConfigError with every fault.

    Without `weights`, as for a plan, a model's folder may lack them, and its tokenizer with them: rows are then taken
    to be as long as they may get. `here`: the study's cards are this machine's, and not a cluster's.
    """
    # Here and not above: the readers of models and data, which a command without a study does not need.
    from trainables.base_model.checks.faults import BaseModelError
    from trainables.base_model.files import inspect
    from trainables.base_model.tokenizer import load_tokenizer
    from trainables.dataset.files import DatasetError
    from trainables.dataset.prepared import prepare_dataset

    faults: list[ConfigFault] = []

    def attempt(key: str, value: object, function: Callable[[], Any], error_type: type[Exception]) -> Any:
        try:
            return function()
        except error_type as error:
            own = getattr(error, "faults", ())  # of the model's files, each with its own place
            found = [ConfigFault(one.file, one.key, one.value, one.rule, one.remedy) for one in own]
            faults.extend(found or [ConfigFault(config.file, key, value, str(error), "")])
            return None

    model, data = config.trial.base_model, config.trial.dataset
    info = attempt("base_model.path", model.path, lambda: inspect(model, weights), BaseModelError)
    missing = () if weights or not info else _missing(model)
    tokenizer = None
    if info and TOKENIZER not in missing:
        tokenizer = attempt("base_model.path", model.path, lambda: load_tokenizer(model), BaseModelError)
    faults += _precision_faults(config, on_these_cards=weights and here)
    if info:
        faults += _module_faults(config, info.shape)
        faults += _length_faults(config, info.max_positions)
        faults += _quantization_faults(config, info.shape)
    statistics, fingerprint, tokens = None, "", ""
    where = data.source or data.train_file
    if tokenizer:
        dataset = attempt("dataset", where, partial(prepare_dataset, data, tokenizer, answers=False), DatasetError)
        if dataset and info:
            faults += _embedding_faults(config, dataset, tokenizer, info.shape.vocab_size)
            statistics, fingerprint, tokens = dataset.statistics, dataset.fingerprint, row_tokens(dataset)
    elif TOKENIZER in missing:
        statistics = attempt("dataset", where, partial(_longest_rows, data), DatasetError)
    if faults or statistics is None or info is None:
        raise ConfigError({str(fault): fault for fault in faults}.values())
    known = (info.sha256, fingerprint, tokenizer.sha256 if tokenizer else "", tokens)
    shape = info.shape
    return Preflight(shape.parameter_count, shape.model_type, statistics, shape, missing, *known)


def row_tokens(dataset: PreparedDataset) -> str:
    """Says what rows begin and end with, how special tokens' texts in them are read, and what is unknown."""
    begin = f"begin with {dataset.bos}" if dataset.bos else "begin with no special token"
    if dataset.eos:
        end = f"end with {dataset.eos}"
    else:
        end = "have no token for their end: tuned models will not stop (neither tokenizer nor config.json names EOS)"
    parts = (f"rows {begin} and {end}", str(dataset.special_tokens), dataset.unknown)
    return "; ".join(part for part in parts if part)


def _embedding_faults(
    config: StudyConfig, dataset: PreparedDataset, tokenizer: Any, embedding_rows: int
) -> list[ConfigFault]:
    from trainables.dataset.files import DatasetError
    from trainables.dataset.prepared import embedding_fault
    from trainables.dataset.tokens.encoding import Encoding, prompt_tokens

    encoding = Encoding(tokenizer, dataset.special_tokens.markup)
    prompts, path = config.trial.generation.prompts, config.trial.base_model.path
    try:
        fault = embedding_fault(dataset, [prompt_tokens(encoding, one) for one in prompts], tokenizer, embedding_rows)
    except DatasetError as error:
        return [ConfigFault(config.file, "generation.prompts", len(prompts), str(error), "")]
    return [ConfigFault(config.file, "base_model.path", path, fault, "")] if fault else []


def _longest_rows(data: DatasetSettings) -> Mapping[str, Mapping[str, Any]]:
    """The splits' statistics without a tokenizer: as if every row had `max_tokens` tokens, all of them targets."""
    from trainables.dataset.sources import load_examples, row_counts

    most, loaded = data.max_tokens, load_examples(data)
    counts = row_counts(loaded)
    return {
        name: {
            "rows": len(rows),
            "tokens": len(rows) * most,
            "target_tokens": len(rows) * most,
            "max_length": most,
            **counts[name],
        }
        for name, rows in loaded.examples.items()
    }


def _missing(model: BaseModelSettings) -> tuple[str, ...]:
    """What a model's folder lacks beside its configuration; the tokenizer alone may not be missing."""
    from trainables.base_model.checks.folders import tokenizer_fault
    from trainables.base_model.checks.weight_files import has_weights
    from trainables.base_model.location import locate

    files = locate(model)
    if files.kind != "folder" or has_weights(Path(files.path)):
        return ()
    return (WEIGHTS,) if tokenizer_fault(Path(files.path)) is None else (WEIGHTS, TOKENIZER)


def _precision_faults(config: StudyConfig, on_these_cards: bool) -> list[ConfigFault]:
    """Precisions that the study's own hardware should not compute in; `auto` is known where it runs here and now."""
    hardware = config.trial.hardware
    if hardware.gpu == "auto" and not on_these_cards:
        return []
    found = smallest_here(find_cards().cards) if hardware.gpu == "auto" else None
    card = found[0] if found else None if hardware.gpu in ("auto", "cpu") else find_gpu(hardware.gpu)
    device = card.processor if card else Processor.of_cpu()  # what it multiplies decides no refusal
    refused = {one: refusal(one, device, hardware.force_bf16) for one in config.space.precisions()}
    return [ConfigFault(config.file, "space.precision", one, why, "") for one, why in refused.items() if why]


def _quantization_faults(config: StudyConfig, shape: ModelShape) -> list[ConfigFault]:
    """What a study asks of a checkpoint in 4 bits that it cannot be: it is taken as it is."""
    from trainables.base_model.checks.quantization import USE_NF4, only_nf4

    four_bit, model = shape.four_bit, config.trial.base_model
    if four_bit is None:
        return []
    rule = only_nf4(model.path, four_bit)
    others = [one for one in config.space.precisions() if one != "nf4"]
    faults = [ConfigFault(config.file, "space.precision", one, rule, USE_NF4) for one in others]
    if four_bit.double_quantization and not model.double_quantization:
        rule = f"must not be off, as {model.path} is quantized already ({four_bit})"
        faults += [ConfigFault(config.file, "base_model.double_quantization", False, rule, "Leave it out.")]
    return faults


def _module_faults(config: StudyConfig, shape: ModelShape) -> list[ConfigFault]:
    """Target modules and layers of the space that the model does not have, each told once."""
    spelled = [(name,) for name in sorted(config.space.spelled - TARGET_SETS.keys())]
    found: dict[tuple[str, str], TargetFault] = {}
    for modules, layers in (*config.space.targets(), *((name, None) for name in spelled)):
        try:
            shape.targets(modules, layers)
        except TargetError as error:
            for fault in error.faults:
                found.setdefault((fault.name, str(fault.value)), fault)
    return [ConfigFault(config.file, f"space.{one.name}", one.value, one.rule, one.remedy) for one in found.values()]


def _length_faults(config: StudyConfig, positions: int) -> list[ConfigFault]:
    asked = config.trial.dataset.max_tokens
    if asked <= positions:
        return []
    rule = f"must be at most the base model's {positions} positions"
    return [ConfigFault(config.file, "dataset.max_tokens", asked, rule, f"Set it to {positions} or less.")]
