"""Times a step: wall time, and what the card was busy with."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

KINDS = (
    ("attention", re.compile(r"fmha|attention|flash|softmax_warp", re.I)),
    ("dequantization", re.compile(r"equantize", re.I)),
    ("products", re.compile(r"gemm|cutlass|xmma|nvjet|cublas|splitk", re.I)),
    ("fused elementwise", re.compile(r"^_?(rms_norm|gated|rotate|thin|softmax_nats)")),
    ("copies", re.compile(r"memcpy|memset|copy", re.I)),
    ("optimizer", re.compile(r"adam|multi_tensor", re.I)),
)


@dataclass
class StepTime:
    """Seconds of one step: the median by the wall; where there is a card, its busy time, in all and by kind."""

    wall: float
    busy: float | None = None
    by_kind: dict[str, float] = field(default_factory=dict)
    top: dict[str, float] = field(default_factory=dict)


def interleaved(steps: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, StepTime]:
    """Times each step `repeats` times in turn, after two to warm up; busy time from a profile of one more."""
    walls: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            walls[name].append(_wall(step, device))
    times = {name: StepTime(statistics.median(some)) for name, some in walls.items()}
    if device.type == "cuda":
        for name, step in steps.items():
            note_busy(step, times[name])
    return times


def _wall(step: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    step()
    _synchronize(device)
    return time.perf_counter() - start


def note_busy(step: Callable[[], object], into: StepTime, repeats: int = 1) -> None:
    """Notes how long a card is busy: the union of the kernels' intervals, kernels that overlap count once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
    events = [
        (event.start_ns(), event.start_ns() + event.duration_ns(), event.name())
        for event in profile.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA and not _is_annotation(event.name())
    ]
    into.busy = _union(sorted(events)) / repeats / 1e9
    kinds, names = Counter[str](), Counter[str]()
    for start, stop, name in events:
        kinds[_kind(name)] += stop - start
        names[name[:90]] += stop - start
    into.by_kind = {kind: nanoseconds / repeats / 1e9 for kind, nanoseconds in kinds.most_common()}
    into.top = {name: nanoseconds / repeats / 1e9 for name, nanoseconds in names.most_common(25)}


def _is_annotation(name: str) -> bool:
    return name.startswith(("Optimizer.", "ProfilerStep", "## ", "nccl:"))


def _kind(name: str) -> str:
    return next((kind for kind, pattern in KINDS if pattern.search(name)), "other")


def _union(events: list[tuple[int, int, str]]) -> int:
    busy, end = 0, 0
    for start, stop, _ in events:
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    return busy


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """The allocator's peak during a step; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device)
