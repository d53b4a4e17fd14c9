"""Names all that a measured cost depends on beside its footprint: where that is equal, it may be taken over."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from trainables.dataset.batches import Plan
from trainables.dataset.rows import Row
from trainables.engine.bench import Bench
from trainables.kernels.elementwise import kernels_on
from trainables.measure.nvml import driver_version, power_limit_watts
from trainables.packed.packed_model import PackedModel
from trainables.protocol import ENGINE_VERSION

MEASURING_VERSION = 1  # counts changes of how costs are measured after which an earlier measurement is no longer one
PACKAGES = ("torch", "transformers", "bitsandbytes", "triton")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING")
ELSEWHERE = ("path", "revision")  # names of the same weights


def cost_basis(bench: Bench, model: PackedModel, plan: Plan, prompt: Sequence[int], new_tokens: int) -> dict[str, Any]:
    """Returns the names and values, JSON-ready; `plan` is what a footprint is measured on, over the training rows."""
    base, settings, rows = bench.base, bench.settings, bench.dataset.train.rows
    training = settings.training
    return {
        "measuring": MEASURING_VERSION,
        "engine": ENGINE_VERSION,
        "base_model": {name: value for name, value in asdict(base.info).items() if name not in ELSEWHERE},
        "precision": base.precision,
        "compute_dtype": str(base.compute_dtype),
        "double_quantization": settings.base_model.double_quantization,
        "attention": str(getattr(base.model.config, "_attn_implementation", None)),
        "fused": model.fused,
        "kernels": kernels_on(base.device),
        "cards": _cards(base.devices),
        "places": _places(model),
        "memory_limit_bytes": settings.hardware.memory_limit_bytes,
        # Only where it is not as usual: files of earlier versions, which do not have it, stay what they were.
        **({} if bench.offload.is_none else {"offload": bench.offload.to_dict()}),
        **({} if training.optimizer == "adamw" else {"optimizer": training.optimizer}),
        "micro_batch_size": training.micro_batch_size,
        "gradient_checkpointing": training.gradient_checkpointing,
        "batches": [[_length(rows[number]) for number in batch] for batch in plan[-1]],
        "prompt_tokens": len(prompt),
        "new_tokens": new_tokens,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """The part that no study decides: processor, threads, and versions of what computes."""
    return {
        "processor": {
            "name": _processor_name(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "versions": {
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "driver": driver_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "allocator": {name: os.environ.get(name) for name in ALLOCATOR},
    }


def _cards(devices: Sequence[torch.device]) -> list[dict[str, Any]]:
    found = []
    for device in devices:
        if device.type == "cuda":
            card = torch.cuda.get_device_properties(device)
            capability = f"{card.major}.{card.minor}"
            facts = {"name": card.name, "memory_bytes": card.total_memory, "compute_capability": capability}
            found.append({**facts, "power_limit_watts": power_limit_watts(device)})
    return found


def _places(model: PackedModel) -> dict[str, int]:
    """On which of several cards each linear layer is, by its name; nothing where there is one."""
    if len(model.devices) == 1:
        return {}
    return {name: model.devices.index(layer.base.weight.device) for name, layer in model.linears.items()}


def _length(row: Row) -> list[int]:
    return [len(row.tokens), row.target_tokens]


@cache
def _processor_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
