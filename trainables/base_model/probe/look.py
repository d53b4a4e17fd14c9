"""Builds a decoder on the meta device and writes its facts: a process of its own, since it imports torch.

Reads a configuration in JSON from its input. Writes one mapping in JSON: `facts`, or the `fault` that the model has and
its `remedy`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trainables.base_model.probe.counted_layer import CountedLayer
from trainables.base_model.probe.counting import count
from trainables.base_model.probe.facts import DecoderFacts, LayerLinear

FORMED = "Choose a model of a family that is described, such as Llama, Qwen, Mistral, Gemma, Phi-3, OLMo 2 or Granite."
DENSE = "Choose a dense model: one whose layers have no experts."
AGAIN = "Take config.json from where the model was published."
ALONE = "Give its language model by itself, saved with save_pretrained, or choose a model of text."
MOST_ELSEWHERE = 0.05  # of all parameters, in linear layers that are in no layer: OPT's projections are less


class NoDecoderError(ValueError):
    """The model cannot be trained here; `remedy` is what to do instead."""

    def __init__(self, fault: str, remedy: str = FORMED) -> None:
        self.remedy = remedy
        super().__init__(fault)


def main() -> None:
    """Answers one configuration."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


def answer(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is written of a configuration, as JSON-ready values."""
    try:
        return {"facts": facts_of(values).to_json()}
    except NoDecoderError as error:
        return {"fault": str(error), "remedy": error.remedy}


def facts_of(values: Mapping[str, Any]) -> DecoderFacts:
    """Returns the facts of a configuration's model. Raises NoDecoderError for one that cannot be trained here."""
    try:
        return _facts(values)
    except NoDecoderError as error:
        raise NoDecoderError(f"{values['model_type']}: {error}", error.remedy) from error


def _facts(values: Mapping[str, Any]) -> DecoderFacts:
    model = _built(dict(values))
    prefix, layers = _layers(model)
    linears = [_linears(f"{prefix}.{number}", layer) for number, layer in enumerate(layers)]
    _check_layers(layers, linears)
    _check_rest(model, prefix)
    _check_class(model, values)
    embedding, ties = _tables(model)
    tied: dict[str, str] = dict(model.all_tied_weights_keys)
    config = model.config
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    if heads % shared:
        raise NoDecoderError(f"num_key_value_heads, {shared}, must divide num_attention_heads, {heads}", AGAIN)
    hidden = int(embedding.weight.shape[1])
    facts = DecoderFacts(
        model_type=values["model_type"],
        layers=len(layers),
        hidden_size=hidden,
        intermediate_size=max(max(one.in_features, one.out_features) for one in linears[0]),
        attention_heads=heads,
        key_value_heads=shared,
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        vocab_size=int(embedding.weight.shape[0]),
        tie_word_embeddings=ties,
        max_positions=getattr(config, "max_position_embeddings", None),
        linears=tuple(one for layer in linears for one in layer),
        tensors={name: tuple(tensor.shape) for name, tensor in model.named_parameters() if name not in tied},
        tied=tied,
        renamings=_renamings(model),
        prefix=f"{model.base_model_prefix}." if model.base_model_prefix else "",
    )
    return DecoderFacts(**{**vars(facts), "counted": _counted(model)})


def _built(values: dict[str, Any]) -> PreTrainedModel:
    kind = values.pop("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise NoDecoderError("it is no causal language model of the installed transformers")
    values.pop("auto_map", None)  # no code but transformers' own
    try:
        config = AutoConfig.for_model(kind, **values)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever its classes raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NoDecoderError(f"transformers cannot build it ({type(error).__name__}: {reason})", AGAIN) from error


def _check_class(model: PreTrainedModel, values: Mapping[str, Any]) -> None:
    own = type(model).__name__
    named = values.get("architectures") or [own]
    if own not in named:
        raise NoDecoderError(f"its architecture must be {own}, a causal language model; it is {named[0]}")
    if model.config.is_encoder_decoder:
        raise NoDecoderError("it is an encoder with a decoder, no decoder alone")
    # Of classes that may be either: GPT-NeoX's configuration says it is none, and has no cross-attention to say it of.
    encodes = getattr(model.config, "is_decoder", None) is False and hasattr(model.config, "add_cross_attention")
    if encodes or any(getattr(module, "is_causal", True) is False for module in model.modules()):
        raise NoDecoderError("its tokens attend to later ones, so that it is no causal language model")


def _layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder's layers: the longest list of modules that all hold parameters of several dimensions."""
    lists = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.ModuleList) and len(one)]
    lists = [(name, one) for name, one in lists if all(any(p.dim() > 1 for p in layer.parameters()) for layer in one)]
    if not lists:
        raise NoDecoderError("it has no list of layers")
    return max(lists, key=lambda item: len(item[1]))


def _linears(prefix: str, layer: nn.Module) -> list[LayerLinear]:
    return [
        LayerLinear(f"{prefix}.{name}", one.in_features, one.out_features, one.bias is not None)
        for name, one in layer.named_modules()
        if isinstance(one, nn.Linear)
    ]


def _check_layers(layers: nn.ModuleList, linears: list[list[LayerLinear]]) -> None:
    for name, module in _others(layers):
        what = type(module).__name__
        if "expert" in what.lower() or "router" in what.lower() or "moe" in what.lower():
            raise NoDecoderError(f"it is a mixture of experts, whose weights ({what}) are no linear layers", DENSE)
        part = name.rpartition(".")[2]
        whose = "its projections are" if what == "Conv1D" else f"its layers' {part} is"
        raise NoDecoderError(f"{whose} {what}, not linear layers; adapters update linear layers only")
    if any(".experts." in one.name for one in linears[0]):
        raise NoDecoderError("it is a mixture of experts, each of whom sees few tokens", DENSE)
    if any("encoder_attn" in one.name or "cross" in one.name for one in linears[0]):
        raise NoDecoderError("it reads an encoder's output, and is no decoder alone")
    sizes = [[(one.name.split(".")[-1], one.in_features, one.out_features) for one in layer] for layer in linears]
    if not sizes[0] or any(one != sizes[0] for one in sizes):
        raise NoDecoderError("its layers must all have the same linear layers, and have not")


def _others(layers: nn.ModuleList) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules in layers that hold weights of several dimensions, and are no linear layers."""
    for name, module in layers.named_modules():
        if not isinstance(module, nn.Linear) and any(p.dim() > 1 for p in module.parameters(recurse=False)):
            yield name, module


def _check_rest(model: PreTrainedModel, prefix: str) -> None:
    """Raises NoDecoderError for a model with other parts than layers, embeddings and a head, such as one for images."""
    head = model.get_output_embeddings()
    rest = {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and module is not head
        if not name.startswith(f"{prefix}.")
    }
    if sum(rest.values()) > MOST_ELSEWHERE * sum(parameter.numel() for parameter in model.parameters()):
        raise NoDecoderError(f"it is more than a language model's layers, as it has {next(iter(rest))}", ALONE)


def _renamings(model: PreTrainedModel) -> tuple[tuple[str, str], ...]:
    """The patterns of tensors' names in files, with what transformers makes of them."""
    found: list[tuple[str, str]] = []
    for step in get_model_conversion_mapping(model, add_legacy=False):
        if type(step).__name__ not in ("WeightRenaming", "PrefixChange") or len(step.source_patterns) != 1:
            raise NoDecoderError("its files hold its tensors in another form than it computes with")
        found.append((step.source_patterns[0], step.target_patterns[0]))
    return tuple(found)


def _tables(model: PreTrainedModel) -> tuple[nn.Embedding, bool]:
    """The input embedding, and whether the output head is tied to it."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
        raise NoDecoderError("it must have an embedding of tokens, and a linear layer for its logits")
    if embedding.weight.shape != head.weight.shape:
        raise NoDecoderError("its embedding and the layer of its logits must have one shape, and have two")
    return embedding, head.weight is embedding.weight


def _counted(model: PreTrainedModel) -> CountedLayer:
    """The bytes that one layer needs."""
    try:
        return count(model)
    except ValueError as error:
        raise NoDecoderError(f"its memory cannot be counted ({error})") from error


if __name__ == "__main__":
    main()
