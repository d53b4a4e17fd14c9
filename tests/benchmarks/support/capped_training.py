"""Trains one configuration alone under a cap on the allocator, and tells what it took or that it ran out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.benchmarks.support.edge_cases import EdgeCase
from tests.benchmarks.support.offloaded import packed, staged
from tests.benchmarks.support.random_models import assemble, random_weights
from trainables.dataset.batches import Step
from trainables.dataset.rows import Row
from trainables.measure.training_cost import measure_training_cost, measuring_plan
from trainables.memory.offload import RESIDENT, Offload
from trainables.packed.member import TrainingMember, apply_gradients
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import micro_step


@dataclass(frozen=True)
class Base:
    """A resident base model that computes in `dtype`."""

    model: PackedModel
    device: torch.device
    dtype: torch.dtype

    @property
    def on_card(self) -> bool:
        """Whether there is an allocator to cap and to ask."""
        return self.device.type == "cuda"


def load_base(shape: str, device: torch.device, compute: str, offload: Offload = RESIDENT) -> Base:
    """Makes a base model in NF4, resident but for what waits in host memory."""
    model, dtype = load_model(shape, device, compute)
    packed_model = packed(model, offload, device)
    _empty_cache(device)
    return Base(packed_model, device, dtype)


def load_model(shape: str, device: torch.device, compute: str) -> tuple[nn.Module, torch.dtype]:
    """Makes a model in NF4 whose weights lie closely, as those that are loaded from files do; and its type."""
    dtype = getattr(torch, {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[compute])
    made = random_weights(shape, device, dtype, nf4=True)
    if device.type == "cuda":  # once away and back: quantizing leaves holes between them
        made = {name: _moved(weight, torch.device("cpu")) for name, weight in made.items()}
        _empty_cache(device)
        made = {name: _moved(weight, device) for name, weight in made.items()}
    return assemble(shape, made, device, dtype), dtype


def _moved(weight: nn.Parameter, device: torch.device) -> nn.Parameter:
    moved = weight.to(device)
    return moved if isinstance(moved, nn.Parameter) else nn.Parameter(moved, requires_grad=False)


def train_capped(base: Base, case: EdgeCase, cap_bytes: int | None, typical: int = 2) -> dict[str, Any]:
    """Measures the case as a host does, then trains on batches as they come; all under a cap on the process.

    Returns bytes allocated and reserved at most, how often the allocator emptied its cache for want of memory, and
    where it ran out; on a CPU there are no bytes.
    """
    set_checkpointing(base.model.model, case.checkpointing)
    _empty_cache(base.device)
    _cap(base, cap_bytes)
    retries, ran_out = _statistics(base).get("num_alloc_retries", 0), None
    place = ["start"]
    try:
        measured = _trained(base, case, typical, place)
    except torch.OutOfMemoryError as error:
        measured = {}
        ran_out = {"where": place[0], "error": str(error)[:400]}
    found = {
        "cap_bytes": cap_bytes, "ran_out": ran_out, **measured,
        "retries": _statistics(base).get("num_alloc_retries", 0) - retries,
    }  # fmt: skip
    _cap(base, None)
    _empty_cache(base.device)
    return found


def _trained(base: Base, case: EdgeCase, typical: int, place: list[str]) -> dict[str, Any]:
    rows = case.data
    plan = (*measuring_plan(rows, case.rows, typical), _as_they_come(case))
    adapter = base.model.new_adapter(case.config)
    half, away = base.dtype == torch.float16, staged(case.offload, base.device)
    member = TrainingMember(adapter, case.training, plan, half, **away)
    place[0] = "measuring"
    cost = measure_training_cost(base.model, member, rows, rows[0].tokens[:64], 0)
    place[0] = "training"
    _reset_peaks(base)
    _train_step(base.model, member, rows)
    trained = _statistics(base)
    return {
        "peak_allocated_bytes": cost.peak_memory_bytes if base.on_card else None,
        "peak_reserved_bytes": cost.peak_reserved_bytes,
        "training_allocated_bytes": trained.get("allocated_bytes.all.peak"),
        "training_reserved_bytes": trained.get("reserved_bytes.all.peak"),
    }


def _as_they_come(case: EdgeCase) -> Step:
    """Two micro-batches of rows in their order, the second with the longest row."""
    first = tuple(range(case.rows, 2 * case.rows))
    return first, tuple(range(case.rows))


def _train_step(model: PackedModel, member: TrainingMember, rows: list[Row]) -> None:
    for number in range(len(member.plan[member.step])):
        micro_step(model, [member], rows, number)
    apply_gradients(member, rows, 0.0)


def set_checkpointing(model: nn.Module, on: bool) -> None:
    """Lets a model's layers keep their inputs alone, or all that their backward reads."""
    switch: Callable[..., Any] = model.gradient_checkpointing_enable if on else model.gradient_checkpointing_disable
    switch(**({"gradient_checkpointing_kwargs": {"use_reentrant": False, "preserve_rng_state": False}} if on else {}))


def _cap(base: Base, cap_bytes: int | None) -> None:
    if base.on_card:
        total = torch.cuda.get_device_properties(base.device).total_memory
        torch.cuda.set_per_process_memory_fraction(
            1.0 if cap_bytes is None else cap_bytes / total, torch.cuda.current_device()
        )


def _statistics(base: Base) -> dict[str, int]:
    return torch.cuda.memory_stats(base.device) if base.on_card else {}


def _reset_peaks(base: Base) -> None:
    if base.on_card:
        torch.cuda.reset_peak_memory_stats(base.device)


def _empty_cache(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
