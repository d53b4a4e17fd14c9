"""Loads the frozen base model with its tokenizer, in fp32, bf16, fp16 or NF4."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from trainables.base_model.attention import attend_without_scores
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.quantization import USE_NF4, only_nf4
from trainables.base_model.files import BaseModelInfo, inspect, weights_folder
from trainables.base_model.loading.placement import Placement
from trainables.base_model.location import locate
from trainables.base_model.nf4 import load_nf4
from trainables.base_model.streaming.host_embedding import embed_from_host
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.base_model.tokenizer import load_tokenizer
from trainables.base_model.upcast import upcast_products
from trainables.base_model.weights import load_weights
from trainables.memory.offload import RESIDENT, Offload
from trainables.precision import Processor, compute_precision, cpu_multiplies_bf16, refusal
from trainables.settings import BaseModelSettings

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    blocks: Mapping[int, LayerBlock] = field(default_factory=dict)  # of the layers in host memory, by their number

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
    offload: Offload = RESIDENT,
) -> BaseModel:
    """Loads the base model in a precision onto a device; `use_cache` keeps and reads quantized weights.

    `force_bf16` lets cards compute in bf16 that only emulate it. `cards` spreads the model over several: names of its
    modules to numbers of cards (`trainables.memory.card_split.module_cards`). What of the base `offload` names
    is never on a card as a whole.

    Raises BaseModelError for what cannot be had, read, computed there or held in host memory, with the remedy.
    """
    device = torch.device(device)
    processor = _processor(device)
    if (why := refusal(precision, processor, force_bf16)) is not None:
        raise BaseModelError(why)
    compute = compute_precision(precision, processor)
    dtype = _DTYPES[compute]
    placement = Placement(cards or {"": device}, offload)
    with _quiet():
        info = inspect(settings)
        if info.shape.four_bit and precision != "nf4":
            raise BaseModelError(f"{only_nf4(settings.path, info.shape.four_bit)}, not {precision}. {USE_NF4}")
        if precision == "nf4":
            model = load_nf4(settings, info, dtype, placement, device.type, use_cache)
        else:
            model = load_weights(weights_folder(locate(settings)), placement, dtype=_DTYPES[precision])
            if model.dtype != dtype:
                upcast_products(model)
        attend_without_scores(model, processor, compute)
        if offload.embedding:
            embed_from_host(model)
        placement.pin()
        return BaseModel(_frozen(model), load_tokenizer(settings), info, precision, dtype, device, placement.blocks)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Returns the type of activations on the device: see `trainables.precision.compute_precision`."""
    return _DTYPES[compute_precision(precision, _processor(device))]


def _processor(device: torch.device) -> Processor:
    if device.type == "cpu":
        return Processor.of_cpu(cpu_multiplies_bf16())
    return Processor(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """Lists the devices that compute a model, in the order of its parameters.

    Host memory is none of them, where a part of a card's model waits there.
    """
    found = tuple(dict.fromkeys(parameter.device for parameter in model.parameters()))
    return tuple(device for device in found if device.type == "cuda") or found


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
