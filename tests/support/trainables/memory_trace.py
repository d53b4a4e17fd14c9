"""Counts the bytes of all tensors that are alive, operation by operation: a peak without a card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from search_spaces.trial_config import TrialConfig
from trainables.base_model.probe.counting.live_bytes import LiveBytes
from trainables.dataset.rows import Row
from trainables.kernels import elementwise
from trainables.memory.setting import AdapterLoad
from trainables.packed import pack
from trainables.packed.adapter import LoraAdapter
from trainables.packed.dropout import Thinning
from trainables.packed.fused import cpu_attention
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import micro_step
from trainables.settings import TrainingSettings


class TracedBytes(LiveBytes):
    """Counts as `LiveBytes`, with the softmax of attention in the steps that a card takes."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is not torch.ops.aten._safe_softmax.default:
            return super().__torch_dispatch__(function, types, arguments, keywords)
        with self:
            return _safe_softmax(*arguments, **(keywords or {}))


def _safe_softmax(scores: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Computes what torch's operation of that name does inside, by operations that a mode sees."""
    softmax = torch.softmax(scores, dim)
    masked = scores.eq(float("-inf"))
    rows = masked.all(dim, keepdim=True)
    return torch.where(rows, torch.zeros((), dtype=softmax.dtype), softmax)


def traced_peak(model: PackedModel, loads: Sequence[AdapterLoad]) -> int:
    """Peak bytes of a pass of such adapters beside weights, gradients and states; it is their second: gradients are
    there.

    Targets are spread evenly over an adapter's rows.
    """
    rows: list[Row] = []
    members = []
    for load in loads:
        config = TrialConfig("fp32", load.rank, 16, 0.1 if load.dropout else 0.0, load.target_modules, 1e-4)
        plan = ((tuple(range(len(rows), len(rows) + load.rows)),),)
        members.append(TrainingMember(_adapter(model, config, load), TrainingSettings(), plan, half=False))
        start = load.tokens - load.targets // load.rows
        rows += [Row((5,) * load.tokens, start, None, "") for _ in range(load.rows)]
    micro_step(model, members, rows, 0)
    parameters = [parameter for member in members for parameter in member.adapter.parameters()]
    there = [*model.model.parameters(), *model.model.buffers(), *parameters, *(p.grad for p in parameters)]
    with TracedBytes(there) as live:
        micro_step(model, members, rows, 0)
    return live.peak


def _adapter(model: PackedModel, config: TrialConfig, load: AdapterLoad) -> LoraAdapter:
    """Initializes an adapter over the layers that the load names."""
    linears = {name: layer.base for name, layer in model.linears.items()}
    layers = model.model.config.num_hidden_layers
    lowest = 0 if load.reached is None else layers - load.reached
    carrying = range(lowest, layers if load.layers is None else lowest + load.layers)
    numbers = {name: int(re.search(r"\.(\d+)\.", name)[1]) for name in linears}
    own = {name: linear for name, linear in linears.items() if numbers[name] in carrying}
    return LoraAdapter.fresh(config, own, None)


def allocate_as_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces elementwise work by what allocates as the Triton kernels do and computes nothing.

    Attention goes to torch's own kernel, as it does on a card.
    """
    monkeypatch.setattr(cpu_attention, "serves", lambda q: False)
    monkeypatch.setattr(elementwise, "fused", lambda x: True)
    monkeypatch.setattr(elementwise, "_triton", lambda: _KERNELS)
    make_run = pack.Run.__init__

    def make_run_of_a_card(self, members, places, device):
        make_run(self, members, places, device)
        if members[0].dropout:
            counts = [member.rows.stop - member.rows.start for member in members]
            parts = [(m.adapter.config, m.dropout_key or 0, count) for m, count in zip(members, counts, strict=True)]
            self.thinning = Thinning(parts, device)

    monkeypatch.setattr(pack.Run, "__init__", make_run_of_a_card)


def _rotate(q, k, v, cos, sin):
    return (q, q.new_empty(q.shape), q.new_empty(q.shape)) if q.shape[1] > k.shape[1] else (q, k, v)


def _rotate_backward(grad_q, grad_k, grad_v, cos, sin, group):
    shape = (len(grad_k), grad_k.shape[1] // group, grad_k.shape[2])
    return (grad_q, grad_k, grad_v) if group == 1 else (grad_q, grad_k.new_empty(shape), grad_v.new_empty(shape))


_KERNELS = SimpleNamespace(
    rms_norm=lambda x, weight, eps, offset: torch.empty_like(x),
    rms_norm_backward=lambda grad, x, weight, eps, residual, offset: torch.empty_like(x),
    gated=lambda gate, up, activation: gate.new_empty(gate.shape),
    gated_backward=lambda grad, gate, up, activated, activation: (gate, up, grad if activated else None),
    rotate=_rotate,
    rotate_backward=_rotate_backward,
    thin=lambda x, keys, numbers, rates, layer, tokens, add_to=None: torch.empty_like(x) if add_to is None else add_to,
    softmax_nats=lambda logits, targets, factor, gradient, divisor, cap: torch.empty(len(logits)),
)
