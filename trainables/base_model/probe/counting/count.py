"""Counts the bytes that a decoder's layers keep and need, from passes through one of them on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.base_model.probe.counted_layer import (
    CountedBytes,
    CountedLayer,
    CountedMoment,
    Growth,
    ReadTogether,
)
from trainables.base_model.probe.counting.layer_pass import Event, LayerCall, LayerPass, run_layer
from trainables.base_model.probe.counting.live_bytes import ValuesAssumed

LENGTHS = (16, 24, 40, 56)  # tokens of one row, few so that any model has positions; the fourth checks the others


def count(model: Any) -> CountedLayer:
    """Returns the numbers of the model's heaviest layer.

    `model` is a causal model of transformers on the meta device; its weights' type is changed. Raises ValueError where
    a layer does other work for other lengths, or work that depends on values.
    """
    try:
        half, full = (_heaviest(model, dtype) for dtype in (torch.bfloat16, torch.float32))
    except (RuntimeError, AssertionError) as error:  # what meta tensors cannot do; an output of another form
        raise ValueError(f"a layer of {model.config.model_type} cannot be run on the meta device: {error}") from error
    return CountedLayer(model.config.model_type, half.attending, half.counted, full.counted)


@dataclass(frozen=True)
class _Kind:
    attending: Any
    counted: CountedBytes


def _heaviest(model: Any, dtype: torch.dtype) -> _Kind:
    """Counts one layer of each kind; the heaviest is that which keeps most."""
    model.to(dtype).requires_grad_(False).train()
    layers = decoder_layers(model)
    calls = [_calls(model, layers, tokens) for tokens in LENGTHS]
    kinds: dict[tuple[Any, ...], int] = {}
    for place, layer in enumerate(layers):
        kinds.setdefault(_signature(layer, calls[0][place]), place)
    found = [_counted(layers[place], [of_length[place] for of_length in calls]) for place in kinds.values()]
    return max(found, key=lambda kind: kind.counted.kept.bytes_at(1, 2048))


def decoder_layers(model: Any) -> list[nn.Module]:
    """Returns the decoder's layers: the longest list of modules that hold linear layers."""
    lists = [list(module) for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList)]
    decoders = [one for one in lists if all(any(isinstance(m, nn.Linear) for m in layer.modules()) for layer in one)]
    if not any(decoders):
        raise ValueError(f"{model.config.model_type} has no list of layers with linear layers in them")
    return max(decoders, key=len)


def _signature(layer: nn.Module, call: LayerCall) -> tuple[Any, ...]:
    """Layers of one signature do the same."""
    weights = tuple((name, tuple(one.shape)) for name, one in layer.named_parameters())
    return type(layer), weights, tuple(tuple(one.shape) for one in call.rest)


def _calls(model: Any, layers: Sequence[nn.Module], tokens: int) -> list[LayerCall]:
    """Runs the decoder as training does, and returns what it handed to each layer."""
    calls: list[LayerCall] = []

    def note(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if not arguments:
            first = next(iter(keywords))
            arguments, keywords = (keywords[first],), {name: keywords[name] for name in keywords if name != first}
        calls.append(LayerCall(arguments, keywords))

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad(), ValuesAssumed():
            ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
            model.get_decoder()(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != len(layers):
        raise ValueError(f"{model.config.model_type} calls {len(calls)} of its {len(layers)} layers once")
    return calls


def _counted(layer: nn.Module, calls: Sequence[LayerCall]) -> _Kind:
    passes = [run_layer(layer, call) for call in calls]
    kept, output = (_fitted([getattr(one, name) for one in passes]) for name in ("kept", "output"))
    forward = _moments([one.forward for one in passes])
    again = [_shifted(moment, output - kept) for moment in forward]  # the output's gradient is there
    backward = [_shifted(moment, Growth(0, 0, 0) - kept) for moment in _moments([one.backward for one in passes])]
    counted = CountedBytes(
        kept=kept,
        keeps_input=passes[0].keeps_input,
        moments=_outstanding([*again, *backward]),
        prompt=_outstanding(_moments([one.prompt for one in passes])),
        shared=_fitted([_shared_bytes(call) for call in calls]),
        inputs=_read_together(passes[0]),
    )
    return _Kind(passes[0].attending, counted)


def _shifted(moment: CountedMoment, by: Growth) -> CountedMoment:
    return CountedMoment(moment.beside_kept + by, moment.linear, moment.attends)


def _fitted(sizes: Sequence[int]) -> Growth:
    """Returns the parabola through the sizes at `LENGTHS`. Raises ValueError where the last is not on it."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = LENGTHS, sizes
    slope, next_slope = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    pair = (next_slope - slope) / (x2 - x0)
    token = slope - pair * (x0 + x1)
    growth = Growth(round(y0 - token * x0 - pair * x0**2), round(token), round(pair))
    if any(growth.bytes_at(1, x) != y for x, y in ((x0, y0), (x1, y1), (x2, y2), (x3, y3))):
        raise ValueError(f"the bytes of a layer are no parabola in tokens: {list(sizes)} at {list(LENGTHS)}")
    return growth


def _moments(passes: Sequence[Sequence[Event]]) -> list[CountedMoment]:
    """Fits each operation's bytes over passes of unlike length, whose operations are the same."""
    if len({len(events) for events in passes}) != 1:
        raise ValueError("a layer does other work for other lengths")
    return [
        CountedMoment(_fitted([event.alive for event in events]), events[0].linear, events[0].attends)
        for events in zip(*passes, strict=True)
    ]


def _outstanding(moments: Sequence[CountedMoment]) -> tuple[CountedMoment, ...]:
    """Leaves out moments that another outweighs in every way."""
    distinct = list(dict.fromkeys(moments))
    return tuple(one for one in distinct if not any(_outweighs(other, one) for other in distinct if other != one))


def _outweighs(one: CountedMoment, other: CountedMoment) -> bool:
    def sizes(moment: CountedMoment) -> tuple[int, ...]:
        growth = moment.beside_kept
        return growth.fixed, growth.of_token, growth.of_pair

    more = all(a >= b for a, b in zip(sizes(one), sizes(other), strict=True))
    return more and other.attends in (None, one.attends) and other.linear in (None, one.linear)


def _shared_bytes(call: LayerCall) -> int:
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in call.rest}
    return sum(storages.values())


def _read_together(one: LayerPass) -> tuple[ReadTogether, ...]:
    groups: dict[int, list[str]] = {}
    for name, read in one.reads.items():
        groups.setdefault(read.number, []).append(name)
    return tuple(
        ReadTogether(tuple(names), one.reads[names[0]].width, one.reads[names[0]].is_kept) for names in groups.values()
    )
