"""Times a step of K packed adapters against K steps of PEFT, and against the floor.

    python -m tests.benchmarks.packed_step --json tests/benchmarks/results/packed_step_NAME.json
    python -m tests.benchmarks.packed_step --model qwen2.5-1.5b --precision bf16 --targets all_linear --tokens 512
    python -m tests.benchmarks.packed_step --model gemma-3-1b --unfused --targets all_linear --tokens 512
    python -m tests.benchmarks.packed_step --device cpu --model smollm2-135m --tokens 100 --adapters 1 2 4

Weights are random; each adapter has rank 16 and one row (`--rows` for more), whose last quarter are targets. On a card:
NF4 with double quantization, fp16, activation checkpointing, FlashAttention off as on a T4, unless `--precision` says
otherwise. On a CPU: fp32, no checkpointing. `--unfused` leaves out the family's form: transformers' own layers compute.
PEFT is used as its users do: `get_peft_model`, transformers' checkpointing, fp16 autocast with a GradScaler, AdamW. It
is timed with FlashAttention too, which a T4 has not ("peft flash"), and gains are against the faster of the two. The
floor is the step's products with frozen weights and their dequantizations, alone, in a loop.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from search_spaces.trial_config import TARGET_SETS
from tests.benchmarks.support.device_time import interleaved, peak_bytes
from tests.benchmarks.support.shapes import SHAPES
from tests.benchmarks.support.step_bench import RANK, TARGET_SHARE, Bench
from trainables.dataset.rows import Row
from trainables.packed.target_loss import target_nats
from trainables.packed.training import train_step


def measure_cell(bench: Bench, targets: str, tokens: int) -> list[dict[str, Any]]:
    """PEFT, packs of each size and their floors, for one set of targets and one length."""
    options = bench.options
    rows = bench.rows(max(options.adapters) * options.rows, tokens)
    members = bench.members(max(options.adapters), targets)
    counts = sorted(options.adapters)
    steps: dict[str, Callable[[], object]] = {"peft": bench.peft_step(targets, rows[: options.rows])}
    if bench.on_card:
        steps["peft flash"] = partial(_with_flash, steps["peft"])
    for count in counts:
        steps[f"packed {count}"] = partial(train_step, bench.model, members[:count], rows)
        steps[f"floor {count}"] = bench.floor(
            count * options.rows * tokens, count * options.rows * round(tokens * TARGET_SHARE)
        )
    times = interleaved(steps, options.repeats, bench.device)
    del members
    peaks = _peaks(bench, targets, rows, counts, steps)
    return [
        {
            "step": name, "targets": targets, "tokens": tokens, "rows": options.rows, "adapters": _count(name),
            "peak_bytes": peaks.get(name), **asdict(taken),
        }
        for name, taken in times.items()
    ]  # fmt: skip


def _with_flash(step: Callable[[], object]) -> None:
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        step()


def _count(name: str) -> int:
    last = name.split()[-1]
    return int(last) if last.isdigit() else 1


def _peaks(
    bench: Bench, targets: str, rows: list[Row], counts: list[int], steps: dict[str, Callable[[], object]]
) -> dict[str, int | None]:
    """The allocator's peak of each step with nothing on the card beside it and the base model."""
    if not bench.on_card:
        return {}
    peaks: dict[str, int | None] = {}
    alone = [steps.pop(name) for name in list(steps) if name.startswith("peft")]
    steps.clear()
    for name, step in zip(("peft", "peft flash"), alone, strict=True):
        peaks[name] = peak_bytes(step, bench.device)
    del alone, step
    gc.collect()
    for count in counts:
        members = bench.members(count, targets)
        train_step(bench.model, members, rows)
        peaks[f"packed {count}"] = peak_bytes(partial(train_step, bench.model, members, rows), bench.device)
        del members
    return peaks


def loss_table(bench: Bench, counts: tuple[int, ...] = (512, 4096)) -> list[dict[str, Any]]:
    """The loss on target positions alone against full logits: time, and peak bytes for each target."""
    head, lines = bench.model.head, []
    for count in counts:
        hidden = torch.randn(count, head.shape[1], device=bench.device, dtype=bench.dtype).requires_grad_()
        targets = torch.randint(head.shape[0], (count,), device=bench.device)

        def full(hidden: torch.Tensor = hidden, targets: torch.Tensor = targets) -> None:
            nn.functional.cross_entropy((hidden @ head.T).float(), targets).backward()

        def chunked(hidden: torch.Tensor = hidden, targets: torch.Tensor = targets) -> None:
            target_nats(hidden, head, targets).mean().backward()

        times = interleaved({"full": full, "chunked": chunked}, 5, bench.device)
        line: dict[str, Any] = {"loss_targets": count}
        for name, step in (("full", full), ("chunked", chunked)):
            hidden.grad = None
            before = torch.cuda.memory_allocated() if bench.on_card else 0
            peak = peak_bytes(step, bench.device)
            bytes_per_target = None if peak is None else (peak - before) / count
            line[name] = {**asdict(times[name]), "bytes_per_target": bytes_per_target}
        lines.append(line)
    return lines


def table(cells: list[dict[str, Any]]) -> str:
    """One line for each pack: milliseconds by the wall and busy, and the gains."""
    lines = [
        f"{'targets':11}{'tokens':>7}{'K':>3}{'PEFT wall':>11}{'busy':>7}{'packed':>9}{'busy':>7}{'floor':>7}"
        f"{'x wall':>8}{'x busy':>8}{'/ floor':>9}{'tokens/s':>10}{'peak GiB':>10}{'PEFT':>7}"
    ]
    for cell in cells:
        if cell["step"].startswith("packed"):
            lines.append(_line(cell, cells))
    return "\n".join(lines)


def _line(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    count = cell["adapters"]
    tokens = count * cell["rows"] * cell["tokens"]
    same = {c["step"]: c for c in cells if (c["targets"], c["tokens"]) == (cell["targets"], cell["tokens"])}
    floor, key = same[f"floor {count}"], "wall" if cell["busy"] is None else "busy"
    alone = [other for name, other in same.items() if name.startswith("peft")]
    wall, best = (min(other[what] for other in alone) for what in ("wall", key))
    busy = best if key == "busy" else None
    milli = [_milli(value) for value in (wall, busy, cell["wall"], cell["busy"], floor[key])]
    gains = [count * wall / cell["wall"], count * best / cell[key], cell[key] / floor[key]]
    return (
        f"{cell['targets']:11}{cell['tokens']:7}{count:3}{milli[0]:>11}{milli[1]:>7}{milli[2]:>9}{milli[3]:>7}{milli[4]:>7}"
        f"{gains[0]:8.2f}{gains[1]:8.2f}{gains[2]:9.2f}{tokens / cell['wall']:10.0f}"
        f"{_gibibytes(cell['peak_bytes']):>10}{_gibibytes(alone[-1]['peak_bytes']):>7}"
    )


def _milli(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def _gibibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**30:.2f}"


def about(bench: Bench) -> dict[str, Any]:
    """What was measured, on what, with which versions."""
    name = torch.cuda.get_device_name() if bench.on_card else f"{platform.processor() or platform.machine()} CPU"
    options = {key: value for key, value in vars(bench.options).items() if key != "json"}
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft, bitsandbytes)}
    return {
        "device": name, "threads": torch.get_num_threads(), "base_bytes": bench.base_bytes, "rank": RANK,
        "target_share": TARGET_SHARE, "options": options, "versions": versions,
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llama-3-8b", choices=sorted(SHAPES))
    parser.add_argument("--precision", choices=["nf4", "fp16", "bf16", "fp32"])
    parser.add_argument("--unfused", action="store_true", help="through transformers' own layers")
    parser.add_argument("--rows", type=int, default=1, help="rows of each adapter")
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--targets", nargs="+", default=["q_v", "all_linear"], choices=sorted(TARGET_SETS))
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-loss", action="store_true", help="leave the loss' own table out")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    started = time.perf_counter()
    bench = Bench(options)
    result: dict[str, Any] = {"about": about(bench), "cells": [], "loss": []}
    print(json.dumps(result["about"]), f"built in {time.perf_counter() - started:.0f} s", flush=True)
    for targets in options.targets:
        for tokens in options.tokens:
            result["cells"] += measure_cell(bench, targets, tokens)
            _write(options.json, result)
            print(f"{targets} {tokens}: {time.perf_counter() - started:.0f} s", flush=True)
    if not options.no_loss:
        result["loss"] = loss_table(bench)
        _write(options.json, result)
    print(table(result["cells"]))
    for line in result["loss"]:
        print(json.dumps(_without_kernels(line)))


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(result, indent=1))


def _without_kernels(line: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {name: value for name, value in part.items() if name not in ("top", "by_kind")}
        if isinstance(part, dict)
        else part
        for key, part in line.items()
    }


if __name__ == "__main__":
    main()
