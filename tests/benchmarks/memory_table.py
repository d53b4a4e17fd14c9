"""Measures the peak memory of training one adapter alone, for many configurations, beside the prediction.

    python -m tests.benchmarks.memory_table --out tests/benchmarks/results/memory_table.json      on a card
    python -m tests.benchmarks.memory_table --families --out OUT.json                             two shapes each
    python -m tests.benchmarks.memory_table --offload --out tests/benchmarks/results/offload_table.json   parts wait
    python -m tests.benchmarks.memory_table --compare tests/benchmarks/results/memory_table.json  anywhere

Models have random weights: memory does not depend on values. A configuration is warmed up by a whole optimizer step;
the peak is that of two micro-batches (at the second, gradients are there) and the update. `--compare` shows
predictions, errors and the constants that the first model's rows ask for. `--tiny --device cpu` goes through everything
with a small model, to find faults; there is no peak to measure.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from search_spaces.trial_config import TrialConfig
from study.hardware.calibration import MeasuredFootprint, fit
from tests.benchmarks.support.capped_training import set_checkpointing
from tests.benchmarks.support.offloaded import CONFIGURATIONS as OFFLOADED
from tests.benchmarks.support.offloaded import packed, staged, words
from tests.benchmarks.support.random_models import assemble, random_weights, targets_of
from tests.benchmarks.support.shapes import SHAPES
from trainables.base_model.shape import ModelShape
from trainables.dataset.rows import Row
from trainables.measure.generation import synchronize
from trainables.measure.peak_memory import peak_memory
from trainables.memory.offload import Offload
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.packed.member import TrainingMember, apply_gradients
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import micro_step
from trainables.settings import TrainingSettings

GIB = 2**30
TUNED_ON = "llama-3-8b"  # the other models' rows are what nothing was fitted to
OTHERS = ("llama-3.2-3b", "llama-3.2-1b")
FAMILIES = (  # two shapes each
    "mistral-7b", "ministral-8b", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen3-0.6b", "qwen3-4b", "smollm3-3b",
    "smollm3-half", "gemma-2-2b", "gemma-2-9b", "gemma-3-1b", "gemma-3-4b", "phi-3-mini", "phi-4-mini", "olmo-2-1b",
    "olmo-2-7b", "granite-3.3-2b", "granite-3.3-8b",
)  # fmt: skip
# rank, targets, dropout, rows, tokens, checkpointing
CONFIGURATIONS = (
    (4, "q_v", False, 1, 256, True), (8, "q_v", True, 1, 512, True), (16, "q_v", False, 1, 512, False),
    (16, "q_v", True, 4, 512, True), (32, "q_v", True, 2, 1024, False), (64, "q_v", False, 4, 2048, True),
    (128, "q_v", False, 1, 2048, False), (128, "q_v", True, 1, 256, True), (4, "all_linear", True, 1, 256, True),
    (16, "all_linear", False, 1, 512, True), (16, "all_linear", True, 1, 512, False),
    (16, "all_linear", True, 4, 512, True), (8, "all_linear", False, 2, 1024, False),
    (64, "all_linear", True, 1, 512, True), (64, "all_linear", False, 4, 2048, True),
    (32, "all_linear", True, 2, 2048, True), (128, "all_linear", False, 1, 1024, True),
    (128, "all_linear", True, 4, 512, False), (16, "all_linear", False, 4, 1024, True),
)  # fmt: skip
FEWER = CONFIGURATIONS[1::3]  # of the other models
SHORT = 512  # tokens at most on a processor, which only looks for faults


def measure(model: PackedModel, load: AdapterLoad, setting: MemorySetting) -> dict[str, Any]:
    """Peak bytes (None on a CPU) and seconds of a pass; `status` is `out of memory` where it does not fit."""
    half = setting.compute_precision == "fp16"
    dropout = 0.05 if load.dropout else 0.0
    config = TrialConfig(setting.precision, load.rank, 16, dropout, load.target_modules, 1e-4)
    start = load.tokens - load.targets // load.rows
    rows = [Row((5,) * load.tokens, start, None, str(number)) for number in range(load.rows)]
    batch = tuple(range(load.rows))
    try:
        training, plan = TrainingSettings(optimizer=setting.optimizer), ((batch,), (batch, batch))
        away = staged(setting.offload, model.device)
        member = TrainingMember(model.new_adapter(config), training, plan, half, **away)
        apply_gradients(member, rows, float(micro_step(model, [member], rows, 0)[0]))
        with peak_memory(model.devices) as peak:
            micro_step(model, [member], rows, 0)
            synchronize(model.devices)
            begun = time.perf_counter()
            micro_step(model, [member], rows, 1)
            synchronize(model.devices)
            seconds = time.perf_counter() - begun
            apply_gradients(member, rows, 0.0)
            synchronize(model.devices)
    except torch.OutOfMemoryError:
        return {"status": "out of memory"}
    allocated, reserved, card = peak.bytes if model.device.type == "cuda" else (None, None, None)
    return {
        "status": "measured", "peak_memory_bytes": allocated, "peak_reserved_bytes": reserved,
        "peak_device_bytes": card, "seconds": seconds,
    }  # fmt: skip


def measured_rows(device: torch.device, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All rows of the table: each model, each precision, each configuration."""
    for name in models:
        for setting in _settings(device):
            model, row = _model(name, setting, device)
            for rank, targets, dropout, rows, tokens, keeps in CONFIGURATIONS if name == TUNED_ON else FEWER:
                load = AdapterLoad(rank, targets_of(name, targets), dropout, rows, tokens, rows * tokens // 2)
                set_checkpointing(model.model, keeps)
                own = replace(setting, gradient_checkpointing=keeps)
                yield row | {"setting": asdict(own), "load": asdict(load)} | measure(model, load, own)
            del model
            _collect(device)


def offloaded_rows(device: torch.device, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of configurations of which something waits in host memory, each with a model of its own."""
    for name in models:
        for setting, (offload, optimizer, rank, targets, dropout, rows, tokens) in product(
            _settings(device), OFFLOADED
        ):
            layers = min(offload.layers, SHAPES[name]["num_hidden_layers"])
            tokens = tokens if device.type == "cuda" else min(tokens, SHORT)
            own = replace(setting, offload=replace(offload, layers=layers), optimizer=optimizer)
            load = AdapterLoad(rank, targets_of(name, targets), dropout, rows, tokens, rows * tokens // 2)
            model, row = _model(name, own, device)
            set_checkpointing(model.model, True)
            yield row | {"setting": asdict(own), "load": asdict(load)} | measure(model, load, own)
            del model
            _collect(device)


def _settings(device: torch.device) -> list[MemorySetting]:
    """NF4 and 16 bits, as the device computes in them."""
    if device.type == "cpu":
        return [MemorySetting(precision, "fp32", device="cpu", attention="cpu") for precision in ("nf4", "fp32")]
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    attention = "flash" if ampere else "memory_efficient"
    return [
        MemorySetting("nf4", "bf16" if ampere else "fp16", attention=attention),
        MemorySetting("fp16", "fp16", attention=attention),
    ]


def _model(name: str, setting: MemorySetting, device: torch.device) -> tuple[PackedModel, dict[str, Any]]:
    """A model, and what its rows say of it."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[setting.compute_precision]
    weights = random_weights(name, device, dtype, nf4=setting.precision == "nf4")
    model = packed(assemble(name, weights, device, dtype), setting.offload, device)
    del weights
    _collect(device)  # quantizing, and what has left for host memory, leave holes
    base_bytes = torch.cuda.memory_allocated(device) if device.type == "cuda" else None
    shape = asdict(ModelShape.from_config(model.model.config.to_dict()))
    return model, {"model": name, "shape": shape, "base_bytes": base_bytes}


def _collect(device: torch.device) -> None:
    gc.collect()  # layers and what wraps them know each other
    if device.type == "cuda":
        torch.cuda.empty_cache()


def footprints(table: dict[str, Any], model: str | None = None) -> list[MeasuredFootprint]:
    """Returns the table's measured rows, of one model or all."""
    return [
        MeasuredFootprint.from_dict({
            **{key: row[key] for key in ("shape", "setting", "load")}, "engine": table["engine"],
            **{key: row[key] for key in ("peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes")},
        })
        for row in table["rows"]
        if row["status"] == "measured" and row["peak_memory_bytes"] is not None and model in (None, row["model"])
    ]  # fmt: skip


def relative_errors(measured: Sequence[MeasuredFootprint], constants: MemoryConstants) -> list[float]:
    """Predicted over measured peaks, less 1."""
    return [
        predict(one.shape, one.setting, one.load, constants).peak_memory_bytes / one.peak_memory_bytes - 1
        for one in measured
    ]


def compare(table: dict[str, Any]) -> str:
    """Each row's prediction and error, and the constants that the tuned model's rows ask for."""
    default = DEFAULT_CONSTANTS[table["rows"][0]["setting"]["device"]]
    lines = [f"{table['device']}, {table['versions']}"]
    for row, one in zip(_there(table), footprints(table), strict=True):
        prediction = predict(one.shape, one.setting, one.load, default)
        load, checkpointing = one.load, "checkpointing" if one.setting.gradient_checkpointing else "-"
        lines.append(
            f"{row['model']:13} {one.setting.precision:5} r{load.rank:<4} {len(load.target_modules)} targets "
            f"{'dropout' if load.dropout else '-':8} {load.rows} x {load.tokens:<5} {checkpointing:14}"
            f"{one.peak_memory_bytes / GIB:7.3f} measured {prediction.peak_memory_bytes / GIB:7.3f} predicted "
            f"{100 * (prediction.peak_memory_bytes / one.peak_memory_bytes - 1):+6.2f} %  {prediction.peak_moment:16}"
            f"{row['seconds']:7.3f} s  {one.setting.optimizer:10} {words(one.setting.offload)}"
        )
    tuned = fit(footprints(table, TUNED_ON), default)
    for title, constants in (("as they are", default), (f"fitted to {TUNED_ON}", tuned.constants)):
        for model in dict.fromkeys(row["model"] for row in table["rows"]):
            errors = [abs(error) for error in relative_errors(footprints(table, model), constants)]
            if errors:
                median, worst = 100 * statistics.median(errors), 100 * max(errors)
                lines.append(f"constants {title}: {model}: median {median:.2f} %, worst {worst:.2f} %")
    lines.append(f"fitted: {tuned.constants}")
    return "\n".join(lines)


def _there(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in table["rows"] if row["status"] == "measured" and row["peak_memory_bytes"] is not None]


def main() -> None:
    """Measures, or compares what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models")
    parser.add_argument("--families", action="store_true", help="shapes of every family but Llama")
    parser.add_argument("--offload", action="store_true", help="configurations of which parts wait in host memory")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, metavar="TABLE.json")
    options = parser.parse_args()
    if options.compare:
        print(compare(json.loads(options.compare.read_text())))
        return
    from trainables.engine.bench import device_name
    from trainables.protocol import ENGINE_VERSION

    device, begun, rows = torch.device(options.device), time.perf_counter(), []
    models = ("tiny",) if options.tiny else FAMILIES if options.families else (TUNED_ON, *OTHERS)
    for row in (offloaded_rows if options.offload else measured_rows)(device, models):
        rows.append(row)
        peak = row.get("peak_memory_bytes")
        shown = f"{peak / GIB:.3f} GiB" if peak else row["status"]
        away = words(Offload(**row["setting"]["offload"]))
        case = f"{row['model']} {row['setting']['precision']} {row['load']} ({away})"
        print(f"{time.perf_counter() - begun:6.1f} s  {case}: {shown}")
    table = {
        "device": device_name(device), "engine": ENGINE_VERSION, "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")},
        "rows": rows,
    }  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(table, indent=1) + "\n")
    print(compare(table))


if __name__ == "__main__":
    main()
