"""Runs one decoder layer forward and backward, and notes the bytes that are alive after each operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from trainables.base_model.probe.counted_layer import Attending, Attends
from trainables.base_model.probe.counting.flash import FlashInstead
from trainables.base_model.probe.counting.live_bytes import LiveBytes


@dataclass(frozen=True)
class LayerCall:
    """What a decoder hands to one of its layers: hidden states first, then the rest."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    @property
    def rest(self) -> list[torch.Tensor]:
        """The tensors beside the hidden states."""
        leaves = tree_leaves((self.arguments[1:], dict(self.keywords)))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@dataclass(frozen=True)
class Event:
    """An operation: the bytes alive after it, and the linear layer whose weight it used."""

    alive: int
    linear: str | None = None
    attends: Attends | None = None


@dataclass(frozen=True)
class Read:
    """A linear layer's input: a number that is the same for the same tensor, its width, and whether it is kept."""

    number: int
    width: int
    is_kept: bool


@dataclass
class LayerPass:
    """What one pass through a layer needed. `kept` is beside the input; `output` are the bytes of its output."""

    kept: int = 0
    output: int = 0
    keeps_input: bool = False
    forward: list[Event] = field(default_factory=list)
    backward: list[Event] = field(default_factory=list)
    prompt: list[Event] = field(default_factory=list)
    reads: dict[str, Read] = field(default_factory=dict)
    attending: Attending | None = None


def run_layer(layer: nn.Module, call: LayerCall) -> LayerPass:
    """Runs the layer without a backward, then with one. Its weights need no gradients."""
    found = LayerPass()
    hidden = call.arguments[0].detach()
    there = [*layer.parameters(), *layer.buffers(), *call.rest, hidden]
    with torch.no_grad(), _Recorder(layer, there) as recorder, FlashInstead(recorder.attended):
        _output(layer(hidden, *call.arguments[1:], **call.keywords))
        found.prompt = recorder.events
    hidden.requires_grad_()
    with _Recorder(layer, there) as recorder, FlashInstead(recorder.attended) as attention:
        with _inputs_of_linears(layer, hidden) as inputs, _saving(hidden) as saved:
            output = _output(layer(hidden, *call.arguments[1:], **call.keywords))
        found.output = output.untyped_storage().nbytes()
        found.kept = recorder.now - found.output
        found.keeps_input, found.attending = any(saved), attention.seen
        found.reads = {name: one.read() for name, one in inputs.items()}
        found.forward, recorder.events = recorder.events, []
        seed = _Seed.apply(output)
        del output
        _gradient = torch.autograd.grad(seed, hidden)  # held until the end, as the layer below would
        found.backward = recorder.events
    return found


def _output(result: Any) -> torch.Tensor:
    output = result[0] if isinstance(result, tuple) else result
    assert isinstance(output, torch.Tensor)
    return output


class _Seed(torch.autograd.Function):
    """Makes the gradient of the layer's output when it is asked for, so that only autograd holds it."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor) -> torch.Tensor:
        ctx.like = output.shape, output.dtype, output.device
        return output.new_empty(())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        shape, dtype, device = ctx.like
        return torch.empty(shape, dtype=dtype, device=device)


class _Recorder(LiveBytes):
    """Notes an event for each operation."""

    def __init__(self, layer: nn.Module, there: list[torch.Tensor]) -> None:
        super().__init__(there)
        self.events: list[Event] = []
        linears = {name: one for name, one in layer.named_modules() if isinstance(one, nn.Linear)}
        self._names = {one.weight.untyped_storage()._cdata: name for name, one in linears.items()}

    def after(self, function: Any, arguments: Any) -> None:
        """Notes the bytes alive, and the weight among the factors of a product."""
        if function.is_view:
            return
        factors = [one.untyped_storage()._cdata for one in arguments if isinstance(one, torch.Tensor)]
        self.events.append(Event(self.now, next((self._names[one] for one in factors if one in self._names), None)))

    def attended(self, direction: Attends) -> None:
        """Notes that the attention's output is there, or its gradients are."""
        self.events.append(Event(self.now, attends=direction))


@dataclass
class _Input:
    """A linear layer's input, without holding it."""

    storage: weakref.ref[Any]
    number: int
    width: int
    whole: bool  # the tensor is all of its memory, in order
    is_hidden: bool

    def read(self) -> Read:
        return Read(self.number, self.width, self.is_hidden or (self.whole and self.storage() is not None))


@contextmanager
def _inputs_of_linears(layer: nn.Module, hidden: torch.Tensor) -> Iterator[dict[str, _Input]]:
    """Notes what each linear layer reads, by its name below the layer."""
    found: dict[str, _Input] = {}
    numbers: dict[weakref.ref[Any], int] = {}

    def note(name: str, x: torch.Tensor) -> None:
        storage = x.untyped_storage()
        reference = weakref.ref(storage)  # equal to other references to it as long as it is there, and by identity then
        number = next((n for known, n in numbers.items() if known() is storage), len(numbers))
        numbers.setdefault(reference, number)
        whole = x.is_contiguous() and x.nbytes == storage.nbytes()
        is_hidden = storage._cdata == hidden.untyped_storage()._cdata
        found[name] = _Input(reference, number, x.shape[-1], whole, is_hidden)

    handles = [
        module.register_forward_pre_hook(lambda _, arguments, name=name: note(name, arguments[0]))
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _saving(hidden: torch.Tensor) -> Iterator[list[bool]]:
    """Notes of each tensor that autograd saves whether it is the layer's input."""
    own, found = hidden.untyped_storage()._cdata, []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor.untyped_storage()._cdata == own)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
