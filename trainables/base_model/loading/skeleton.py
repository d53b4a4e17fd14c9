"""Builds a model's modules without memory, as `from_pretrained` does, and fills them with tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.quantizers import AutoHfQuantizer

from trainables.base_model.attention import implementation

KEPT = "_is_hf_initialized"  # transformers' mark of a parameter that it must not make anew


def build_skeleton(config: PretrainedConfig, dtype: torch.dtype, quantized_files: bool = True) -> PreTrainedModel:
    """Returns the model in eval mode, its parameters on the meta device, with 4-bit layers where `config` has them.

    `quantized_files` tells whether the weights of those are quantized already.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation(config), dtype=dtype)
        quantization = getattr(config, "quantization_config", None)
        if quantization is not None:
            quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=quantized_files)
            quantizer.preprocess_model(model=model, device_map=None, dtype=dtype)
            quantizer.postprocess_model(model)
            model.hf_quantizer = quantizer
    return model.eval()


def is_plain(model: PreTrainedModel) -> bool:
    """Whether all tensors have the model's own type, and its modules make those buffers that no file holds."""
    fp32 = [getattr(model, name, None) for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")]
    making = [module for _, module in _making_buffers(model)]
    others = [module for module in making if not isinstance(module, nn.Embedding)]  # as Gemma scales it
    return not any(fp32) and all(not list(module.parameters(recurse=False)) for module in others)


def wanted_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the tensors that files must hold, on the meta device, by their names; of tied ones the source alone."""
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in tied}


def four_bit_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the layers whose weights are quantized, by the names of their weights."""
    import bitsandbytes

    layers = (item for item in model.named_modules() if isinstance(item[1], bitsandbytes.nn.Linear4bit))
    return {f"{name}.weight": module for name, module in layers}


def fill(
    model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], device_of: Callable[[str], torch.device], folder: Path
) -> None:
    """Puts the tensors of the folder's files in the place of the skeleton's, and makes what files do not hold.

    `device_of` names the device of a module or tensor. `tensors` are there, but for the states of quantized weights
    (`*.quant_state.*`), which are on the CPU. Weights that are to be quantized may be absent.
    """
    layers = four_bit_layers(model)
    for name in (name for name in wanted_tensors(model) if name in tensors):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if name in layers:
            module.weight = _four_bit_weight(name, tensors, module, device_of(name))
        elif leaf in module._buffers:
            module._buffers[leaf] = tensors[name]
        else:
            module._parameters[leaf] = nn.Parameter(tensors[name], tensors[name].is_floating_point())
    for path, module in _making_buffers(model):
        for parameter in module.parameters(recurse=False):
            setattr(parameter, KEPT, True)
        for name in module._non_persistent_buffers_set:
            made = module._buffers[name]
            if made is not None:
                module._buffers[name] = torch.empty(made.shape, dtype=made.dtype, device=device_of(path))
        model._init_weights(module)
    model.tie_weights()
    _read_generation(model, folder)


def quantize(layer: nn.Module, weight: torch.Tensor, device: torch.device) -> None:
    """Quantizes the weight into its 4-bit layer, as that one asks for; bitsandbytes does so when it moves one."""
    from bitsandbytes.nn import Params4bit

    layer.weight = Params4bit(weight, requires_grad=False, **vars(layer.weight)).to(device)


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Lets all quantized weights be dequantized to the type that is computed in, whatever type they had before."""
    for module in four_bit_layers(model).values():
        weight: Any = module.weight
        weight.quant_state.dtype = dtype


def _making_buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules with buffers that no file holds, such as rotary frequencies, and their names."""
    return (item for item in model.named_modules() if item[1]._non_persistent_buffers_set)


def _four_bit_weight(
    name: str, tensors: Mapping[str, torch.Tensor], module: nn.Module, device: torch.device
) -> nn.Parameter:
    from bitsandbytes.nn import Params4bit

    statistics = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    return Params4bit.from_prequantized(
        data=tensors[name], quantized_stats=statistics, requires_grad=False, device=device, module=module
    )


def _read_generation(model: PreTrainedModel, folder: Path) -> None:
    """Reads what ends an answer, as `from_pretrained` does: of generation_config.json, or of config.json."""
    model.adjust_generation_fn(
        None, False, None, str(folder), cache_dir=None, force_download=False, proxies=None, local_files_only=True,
        token=None, revision="main", subfolder="", trust_remote_code=False,
    )  # fmt: skip
