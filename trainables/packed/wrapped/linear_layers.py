"""Finds the linear layers of a decoder that adapters may update, and puts adapters' layers in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainables.packed.wrapped.grouped_linear import PackContext, PackedLoraLinear, of_batch

SURVEY_ROWS, SURVEY_TOKENS = 2, 3  # unlike, so that a layer that takes tokens for rows shows


def decoder_linears(model: Any) -> dict[str, nn.Linear]:
    """Returns the linear layers within a decoder's repeated layers by their names in the model.

    Neither the head nor what stands before or after the layers; of a mixture of experts neither routers nor experts,
    which see some of the tokens only.
    """
    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    found = {}
    for name, module in decoder.named_modules(prefix=prefix):
        if isinstance(module, nn.Linear) and _is_repeated(name) and not _is_of_experts(name, model):
            found[name] = module
    return found


def _is_repeated(name: str) -> bool:
    """Whether a module is of one of several equal layers, which have numbers."""
    return any(part.isdigit() for part in name.split("."))


def _is_of_experts(name: str, model: nn.Module) -> bool:
    """Whether a layer is an expert's or a router's: it stands in a block that has `experts`; what they share is not."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        block = model.get_submodule(".".join(parts[:depth]))
        shared = parts[depth].startswith("shared") and depth + 1 < len(parts)
        if hasattr(block, "experts") and not shared:
            return True
    return False


def wrap_linears(model: Any, context: PackContext) -> dict[str, PackedLoraLinear]:
    """Puts a `PackedLoraLinear` in the place of each of a decoder's linear layers; returns them by name."""
    wrapped = {name: PackedLoraLinear(one, name, context) for name, one in decoder_linears(model).items()}
    for name, layer in wrapped.items():
        _put(model, name, layer)
    model.get_decoder().register_forward_pre_hook(_noting_batch(context), with_kwargs=True)
    return wrapped


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _noting_batch(context: PackContext) -> Any:
    def note(decoder: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        embedded = named.get("inputs_embeds")
        shape = ids.shape if ids is not None else None if embedded is None else embedded.shape
        context.batch = None if shape is None else (shape[0], shape[1])

    return note


@contextmanager
def surveyed(context: PackContext) -> Iterator[list[tuple[PackedLoraLinear, torch.Tensor]]]:
    """Notes which layer reads what in a pass of few tokens."""
    context.survey = []
    try:
        yield context.survey
    finally:
        context.survey = None


def taken_up(
    model: nn.Module,
    wrapped: Mapping[str, PackedLoraLinear],
    seen: Sequence[tuple[PackedLoraLinear, torch.Tensor]],
) -> dict[str, PackedLoraLinear]:
    """Groups what reads the same input in a decoder's layer, given a pass' survey; returns what adapters may update.

    A layer that the pass did not call once, whose weight the decoder takes by itself, or that reads something else than
    the batch's rows, gets its place in the decoder back.
    """
    calls = Counter(layer.name for layer, _ in seen)
    read = {layer.name: x for layer, x in seen if calls[layer.name] == 1 and of_batch(x, (SURVEY_ROWS, SURVEY_TOKENS))}
    for name, layer in wrapped.items():
        if name not in read:
            _put(model, name, layer.base)
    readers: dict[tuple[int, torch.device, str], list[PackedLoraLinear]] = {}
    for layer, x in seen:  # `seen` holds all inputs: none has the address of another
        if layer.name in read:
            readers.setdefault((id(x), layer.base.weight.device, _decoder_layer(layer.name)), []).append(layer)
    for group in readers.values():
        for layer in group:
            layer.group = tuple(group)
    return {name: layer for name, layer in wrapped.items() if name in read}


def _decoder_layer(name: str) -> str:
    """Returns the name of the repeated layer that a module is in: no other's weights need be there in its turn."""
    parts = name.split(".")
    return ".".join(parts[: next(place for place, part in enumerate(parts) if part.isdigit()) + 1])


def few_tokens(model: Any) -> Any:
    """Returns what a causal model makes of a few tokens, in eval mode and without a graph."""
    device = model.get_input_embeddings().weight.device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(SURVEY_ROWS * SURVEY_TOKENS, device=device).remainder(vocabulary)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return model(input_ids=ids.view(SURVEY_ROWS, SURVEY_TOKENS), use_cache=False)
    finally:
        model.train(was_training)
