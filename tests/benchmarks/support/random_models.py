"""Makes models of given shapes with random weights, on the device that they are measured on."""

from __future__ import annotations

from collections.abc import Iterator

import bitsandbytes
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from search_spaces.trial_config import TARGET_SETS
from tests.benchmarks.support.shapes import SHAPES
from trainables.base_model.families import FAMILIES

Weights = dict[str, nn.Parameter]


def model_type(shape: str) -> str:
    """The family of a shape."""
    return str(SHAPES[shape].get("model_type", "llama"))


def targets_of(shape: str, name: str) -> tuple[str, ...]:
    """The linear layers that a set of target modules means in the shape's family."""
    family = FAMILIES.get(model_type(shape))
    return TARGET_SETS[name] if family is None else family.targets[name]


def random_weights(shape: str, device: torch.device, dtype: torch.dtype, nf4: bool) -> Weights:
    """All weights of a model by name; with `nf4`, those of its linear layers in NF4 with double quantization."""
    return dict(drawn_weights(shape, device, dtype, nf4))


def drawn_weights(
    shape: str, device: torch.device, dtype: torch.dtype, nf4: bool
) -> Iterator[tuple[str, nn.Parameter]]:
    """Draws `random_weights` one after another, layer by layer."""
    generator = torch.Generator(device=device).manual_seed(0)
    model = skeleton(shape)
    linear = {f"{name}.weight" for name in _linears(model)}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # a norm's weight, or a bias
            fill = 0.0 if name.endswith(".bias") else 1.0 - _norm_offset(shape)
            value = torch.full(parameter.shape, fill, dtype=dtype, device=device)
        else:
            value = torch.empty(parameter.shape, dtype=dtype, device=device).normal_(0, 0.02, generator=generator)
        if nf4 and name in linear:
            yield name, bitsandbytes.nn.Params4bit(value, quant_type="nf4", compress_statistics=True).to(device)
        else:
            yield name, nn.Parameter(value, requires_grad=False)


def assemble(shape: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A frozen model that holds these very weights: several models may share them."""
    model = skeleton(shape)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    for name, parameter in weights.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            module = _linear_4bit(module, dtype)
            parent, _, own = path.rpartition(".")
            setattr(model.get_submodule(parent), own, module)
            bias = weights.get(f"{path}.bias")
            module.bias = bias
        setattr(module, leaf, parameter)
    model.tie_weights()
    model.config.use_cache = False
    return model.requires_grad_(False).train()


def _linear_4bit(like: nn.Module, dtype: torch.dtype) -> nn.Module:
    layer = bitsandbytes.nn.Linear4bit(
        like.in_features, like.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    layer.support_avx512bf16_for_cpu = False  # repacks weights in place, and backward passes do not know
    return layer


def _linears(model: PreTrainedModel) -> list[str]:
    """The linear layers of the decoder's layers, by name; the head is none of them."""
    decoder = {id(module) for module in model.get_decoder().modules()}
    return [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and id(one) in decoder]


def _norm_offset(shape: str) -> float:
    family = FAMILIES.get(model_type(shape))
    return 0.0 if family is None else family.norm_offset


def skeleton(shape: str) -> PreTrainedModel:
    """A model of the shape without weights."""
    config = AutoConfig.for_model(**{"model_type": "llama", **SHAPES[shape]}, attention_dropout=0.0)
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model
