"""A made-up study: sixteen trials with plausible numbers, every unhappy end among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.load import Study
from search_spaces.trial_config import TrialConfig
from study.records.infeasible import does_not_fit
from study.records.record import TrialRecord

GIB = 2**30
PROMPTS = (
    "Diagnose a patient with fever, neck stiffness and photophobia.",
    "Does metformin lower blood pressure in people without diabetes?",
)
BASES = {"bf16": 21.37, "nf4": 22.94}
LENGTHS = {
    "rows": 64, "dropped": 1, "truncated": 7, "tokens": 21422, "target_tokens": 3120, "min_length": 96,
    "median_length": 341.5, "p95_length": 498, "max_length": 512,
}  # fmt: skip


MakeRecord = Callable[..., TrialRecord]
WriteStudy = Callable[..., Path]


def make_record(
    index: int = 0,
    precision: str = "nf4",
    rank: int = 8,
    modules: str = "q_v",
    rate: float = 2e-4,
    status: str = "complete",
    **changes: Any,
) -> TrialRecord:
    """A record whose numbers follow from its configuration; `changes` replace fields, or single measurements."""
    measurements = _measurements(index, precision, rank, modules, rate) if status == "complete" else {}
    measurements |= {"base_perplexity": BASES[precision], "base_accuracy": 0.34, "wall_seconds": 31.0 + index}
    measurements |= changes.pop("measurements", {})
    values: dict[str, Any] = {
        "study": "made-up",
        "trial_id": f"t{index:03}",
        "status": status,
        "config": {
            "precision": precision, "rank": rank, "lora_alpha": 2.0 * rank, "lora_dropout": 0.05,
            "target_modules": modules, "learning_rate": rate, "seed": 0,
        },
        "measurements": measurements,
        "predictions": {"peak_memory_bytes": _predicted(measurements, index)},
        "curve": _curve(precision, measurements.get("perplexity") or 30.0),
        "samples": _samples(precision, rank, modules) if status == "complete" else [],
        "base_model": {"path": "SmolLM2-135M", "revision": "main", "sha256": "5af571cbf074e6d21a03528d2330792e"},
        "device": {"name": "Tesla T4", "compute_dtype": "float16", "memory_source": "cuda allocator peak"},
        "dataset": {
            "fingerprint": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
            "statistics": {"train": LENGTHS, "eval": {**LENGTHS, "rows": 32}, "test": {**LENGTHS, "rows": 500}},
        },
        "comparable": {"quality": "0a1b", "cost": "2c3d"},
    }  # fmt: skip
    values |= changes
    values["config"] = TrialConfig.from_dict(values["config"])
    # Not by way of JSON, so that numbers may be what no file may hold.
    return TrialRecord(**{**values, "curve": tuple(values["curve"]), "samples": tuple(values["samples"])})


def _measurements(index: int, precision: str, rank: int, modules: str, rate: float) -> dict[str, Any]:
    wide = modules == "all_linear"
    gain = 0.22 + 0.025 * math.log2(rank) * (1.4 if wide else 1.0) - 0.09 * abs(math.log10(rate / 3e-4))
    memory = (1.05 if precision == "bf16" else 0.62) + rank * (0.0042 if wide else 0.0011)
    speed = 4200 / (1.55 if precision == "nf4" else 1.0) / (1.35 if wide else 1.0)
    return {
        "perplexity": BASES[precision] * (1 - gain), "accuracy": 0.42 + 0.3 * gain,
        "peak_memory_bytes": int(memory * GIB),
        "train_tokens_per_second": speed, "seconds_per_epoch": 21422 / speed, "generated_tokens_per_second": speed / 90,
        "base_generated_tokens_per_second": speed / 80, "trainable_parameters": rank * 57_600, "train_steps": 12,
        "train_tokens": 64_000, "restarts": 0, "test_perplexity": BASES[precision] * (1.01 - gain),
    }  # fmt: skip


def _predicted(measurements: dict[str, Any], index: int) -> int | None:
    """Up to 3 % off, either way."""
    measured = measurements.get("peak_memory_bytes")
    return (
        None
        if measured is None or not math.isfinite(measured)
        else int(measured * (0.97 + 0.06 * (index * 7 % 11) / 10))
    )


def _curve(precision: str, last: float) -> list[dict[str, Any]]:
    steps = (0, 3, 6, 9, 12)
    start = BASES[precision]
    return [
        {
            "step": step,
            "train_loss": 3.0 - 0.05 * step,
            "perplexity": last + (start - last) * math.exp(-step / 3),
            "learning_rate": 1e-4,
        }
        for step in steps
    ]


def _samples(precision: str, rank: int, modules: str) -> list[dict[str, str]]:
    base = f"The patient has a fever. The patient has a fever. The patient has a fever. ({precision})"
    tuned = "Fever, neck stiffness and photophobia together suggest meningitis; take blood cultures and begin"
    return [
        {"prompt": prompt, "base": base, "tuned": f"{tuned} ceftriaxone at once. (rank {rank}, {modules})"}
        for prompt in PROMPTS
    ]


def on_cards(study: Study) -> Study:
    """Returns the study as cards would have measured it: a tenth held beside the peak, and a context of 0.5 GiB."""
    records = []
    for record in study.records:
        peak = record.measurements["peak_memory_bytes"]
        held = {} if peak is None else {"peak_reserved_bytes": 1.1 * peak, "peak_device_bytes": 1.1 * peak + 0.5 * GIB}
        records.append(replace(record, measurements={**record.measurements, **held}))
    return replace(study, records=tuple(records))


def made_up_records() -> list[TrialRecord]:
    """Sixteen trials: eleven complete, and one or two of every other end."""
    grid = [(p, r, m) for p in ("bf16", "nf4") for m in ("q_v", "all_linear") for r in (8, 64)]
    records = [make_record(i, p, r, m, 2e-4) for i, (p, r, m) in enumerate(grid)]
    records += [make_record(8, "nf4", 16, "q_v", 6e-4), make_record(9, "bf16", 16, "all_linear", 5e-5)]
    records.append(make_record(10, "bf16", 32, "q_proj+o_proj", 1e-3))
    stopped = {"train_steps": 3, "perplexity": 19.9}
    records.append(make_record(11, "nf4", 2, status="stopped", reason="dominated at rung 3", measurements=stopped))
    records.append(
        make_record(12, "nf4", 4, rate=1e-5, status="stopped", reason="dominated at rung 3", measurements=stopped)
    )
    reason = f"{does_not_fit(2.15 * GIB, 1.4 * GIB, 'one NVIDIA T4')}, as predicted"
    asked = {
        "moment": "loss",
        "requested_bytes": int(2.15 * GIB),
        "available_bytes": int(1.4 * GIB),
        "source": "predicted",
    }
    records.append(make_record(13, "bf16", 256, "all_linear", status="infeasible", reason=reason, infeasible=asked))
    records.append(make_record(14, "nf4", 64, rate=0.3, status="diverged", reason="the loss is not finite at step 4"))
    error = 'Traceback (most recent call last):\n  File "engine.py", line 3\nValueError: <b>bad</b> </script> & worse'
    records.append(make_record(15, "nf4", 8, status="failed", reason="its host died 5 times", error=error))
    return records


def study_settings(name: str = "pubmedqa-t4", **changes: Any) -> dict[str, Any]:
    """A resolved study file."""
    values: dict[str, Any] = {
        "name": name,
        "base_model": {"path": "SmolLM2-135M", "revision": "main", "double_quantization": True},
        "dataset": {"name": "pubmedqa", "source": "sample", "max_tokens": 512, "seed": 0},
        "seeds": [0],
        "objectives": [
            {"metric": "perplexity", "direction": "minimize", "reference": 30.0},
            {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "1.25 GiB"},
        ],
        "hardware": {"gpu": "t4", "gpus": None, "memory_limit": None},
        "generation": {"prompts": list(PROMPTS), "max_new_tokens": 128},
    }
    return {**values, **changes}


PROVENANCE = {
    "versions": {"python": "3.11.7", "torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.2"},
    "hardware": {"gpus": ["Tesla T4", "Tesla T4"], "cpu": "x86_64", "memory_bytes": 33_000_000_000},
    "git": {"commit": "c50a4d1", "dirty": False},
}
