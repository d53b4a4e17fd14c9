"""Loads the frozen base model in fp32, bf16, fp16 or NF4, and keeps quantized weights for the next time.

NF4 with double quantization: Dettmers et al. 2023, arXiv 2305.14314.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from trainables.base_model.files import (
    BaseModelInfo,
    inspect,
    load_tokenizer,
    read_config,
    weights_folder,
)
from trainables.base_model.location import BaseModelError, locate
from trainables.base_model.upcast import upcast_products
from trainables.precision import Processor, compute_precision, cpu_multiplies_bf16, refusal
from trainables.settings import BaseModelSettings
from trainables.user_cache import CacheEntry, digest

__all__ = ["BaseModel", "BaseModelError", "compute_dtype", "count_parameters", "load_base_model"]

log = logging.getLogger(__name__)

Places = Mapping[str, Any]  # transformers' device map: names of modules to devices

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)  # not RuntimeError: out of memory is one
_NOT_WEIGHTS = ("_name_or_path", "transformers_version", "use_cache")  # in a configuration, without effect on weights


@dataclass(frozen=True)
class BaseModel:
    """A frozen base model on its device, with its tokenizer; whole layers may be on other cards, `devices` in all.

    No parameter requires a gradient; the model is in eval mode as loaded, and callers choose. `compute_dtype` is what
    activations are computed in: the weights' own type, or for NF4 the type that they are dequantized to.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: BaseModelInfo
    precision: str
    compute_dtype: torch.dtype
    device: torch.device  # of the input embedding

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All that hold a part of it, in the order of its layers."""
        return devices_of(self.model)


def load_base_model(
    settings: BaseModelSettings,
    precision: str,
    device: torch.device | str,
    use_cache: bool = True,
    force_bf16: bool = False,
    cards: Mapping[str, int] | None = None,
) -> BaseModel:
    """Loads the base model in a precision onto a device; `use_cache` keeps and reads quantized weights.

    `force_bf16` lets cards compute in bf16 that only emulate it. `cards` spreads the model over several: names of its
    modules to numbers of cards (`trainables.memory.card_split.module_cards`).

    Raises BaseModelError for what cannot be had, read or computed there, with the remedy.
    """
    device = torch.device(device)
    processor = _processor(device)
    if (why := refusal(precision, processor, force_bf16)) is not None:
        raise BaseModelError(why)
    dtype = _DTYPES[compute_precision(precision, processor)]
    places: Places = cards or {"": device}
    with _quiet():
        info = inspect(settings)
        if precision == "nf4":
            model = _load_nf4(settings, info, dtype, places, device.type, use_cache)
        else:
            model = _load(weights_folder(locate(settings)), places, dtype=_DTYPES[precision])
            if model.dtype != dtype:
                upcast_products(model)
        return BaseModel(_frozen(model), load_tokenizer(settings), info, precision, dtype, device)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What activations are computed in on the device: see `trainables.precision.compute_precision`."""
    return _DTYPES[compute_precision(precision, _processor(device))]


def _processor(device: torch.device) -> Processor:
    if device.type == "cpu":
        return Processor("the CPU", None, cpu_multiplies_bf16())
    return Processor(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """The devices of a model's parameters, in their order."""
    return tuple(dict.fromkeys(parameter.device for parameter in model.parameters()))


def count_parameters(model: nn.Module) -> int:
    """The model's parameters, tied ones once; a 4-bit weight counts the values that it stands for."""
    return sum(_logical_count(parameter) for parameter in model.parameters())


def _logical_count(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else torch.Size(state.shape).numel()


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    import bitsandbytes

    model.requires_grad_(False)
    model.config.use_cache = False  # keys and values are kept in generation only, which asks for it
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # Else the first forward in eval mode repacks the weights in place, on CPUs with AVX512-BF16, and every
            # later backward through them is silently wrong, after `.train()` too.
            module.support_avx512bf16_for_cpu = False
    return model


def _load(folder: Path, places: Places, **options: Any) -> PreTrainedModel:
    """A model from a folder of safetensors. Raises BaseModelError for what cannot be read or is not whole."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            device_map=dict(places),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attention_dropout=0.0,  # it has no seed of a trial's own; an adapter's dropout is lora_dropout
            **options,
        )
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the base model's files must be whole; those in {folder} cannot be read: {reason}. Get them again."
        ) from error
    if report["missing_keys"]:  # they would stay random
        raise BaseModelError(
            f"the base model's weights must be complete; {folder} lacks {len(report['missing_keys'])} of them, such as "
            f"{min(report['missing_keys'])!r}. Get the whole model."
        )
    return model


def _load_nf4(
    settings: BaseModelSettings, info: BaseModelInfo, dtype: torch.dtype, places: Places, kind: str, use_cache: bool
) -> PreTrainedModel:
    if not use_cache:
        return _quantize(settings, dtype, places)
    entry = CacheEntry("nf4", _nf4_key(settings, info, dtype, kind))
    model = _reload(entry, places)
    if model is not None:
        return model
    with entry.lock():
        model = _reload(entry, places)  # another process may have made it while we waited
        if model is None:
            model = _quantize(settings, dtype, places)
            _keep(entry, model)
    return model


def _nf4_key(settings: BaseModelSettings, info: BaseModelInfo, dtype: torch.dtype, kind: str) -> str:
    """Everything that quantized weights depend on: a reload takes the quantization and compute type as saved."""
    config = read_config(locate(settings)).to_dict()
    return digest(
        {
            "weights": info.sha256,
            "config": {name: value for name, value in config.items() if name not in _NOT_WEIGHTS},
            "double_quantization": settings.double_quantization,
            "compute_dtype": str(dtype),
            "device": kind,
            "versions": [importlib.metadata.version(name) for name in ("bitsandbytes", "transformers")],
        }
    )


def _quantize(settings: BaseModelSettings, dtype: torch.dtype, places: Places) -> PreTrainedModel:
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=settings.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )
    return _load(weights_folder(locate(settings)), places, dtype=dtype, quantization_config=quantization)


def _reload(entry: CacheEntry, places: Places) -> PreTrainedModel | None:
    if not entry.intact():
        return None
    try:
        return _load(entry.folder, places, dtype="auto")
    except BaseModelError as error:
        log.warning("The quantized weights in the cache are made anew: %s", error)
        return None


def _keep(entry: CacheEntry, model: PreTrainedModel) -> None:
    try:
        entry.fill(lambda folder: model.save_pretrained(str(folder)))
    except (OSError, ValueError) as error:  # the model is there all the same; the next load quantizes again
        log.warning("The quantized weights could not be kept in %s: %s", entry.folder, error)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no advice to install a kernel that only inference would use."""
    had_bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
