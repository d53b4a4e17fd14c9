"""Reads the results that PEFT publishes in its folder `method_comparison` as a study.

Each file is one run: `run_info` (configurations), `train_info` (status, memory, metrics), `meta_info` (versions, card).
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.load import Study, StudyDirectoryError
from study.errors import StoreError
from study.records.layout import STUDY_FILE
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.records.study_files import read_object

NAME = "PEFT method_comparison"
MEMORY_SOURCE = "cuda allocator reserved, evaluation included"
PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# What a plain LoRA configuration holds; anything else that is set makes it another method than those studied here.
PLAIN = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "lora_alpha", "lora_dropout", "use_rslora", "megatron_core", "init_lora_weights",
}  # fmt: skip
REMEDY = "Give a .json file of PEFT's method_comparison results, or a folder of them."


def is_method_comparison(path: Path) -> bool:
    """Whether the path is a result file, or a folder of such, and no study directory."""
    if path.is_dir():
        return not (path / STUDY_FILE).exists() and any(path.glob("*.json"))
    return path.suffix == ".json" and path.is_file()


def load_method_comparison(path: Path) -> Study:
    """The runs of plain LoRA in a result file or folder as a study; `provenance["left_out"]` says why others are not.

    An rsLoRA run becomes the LoRA run of equal scaling: alpha / sqrt(r) is written as alpha sqrt(r) / r. Their memory
    is the reserved peak, evaluation included, so it stands as `peak_reserved_bytes`; accuracy is GSM8K's, of generated
    answers, never that of our records. Raises StudyDirectoryError for files that cannot be read or are others.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    records, left_out = [], {}
    for file in files:
        values = _read(file)
        try:
            reason = _not_plain(values)
            if reason:
                left_out[str(values["run_info"]["experiment_name"])] = reason
            else:
                records.append(_record(values))
        except (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError) as error:
            rule = f"must be a result of PEFT's method_comparison; {type(error).__name__}: {error}"
            raise StudyDirectoryError(f"{file}: {rule}. {REMEDY}") from error
    objectives = (Objective("accuracy", "maximize", 0.0), Objective("peak_reserved_bytes", "minimize", 80e9))
    return Study(NAME, path, objectives, tuple(records), provenance={"left_out": left_out})


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = read_object(file, REMEDY)
    except StoreError as error:
        raise StudyDirectoryError(str(error)) from error
    if not {"run_info", "train_info", "meta_info"} <= set(values):
        raise StudyDirectoryError(f"{file} must hold run_info, train_info and meta_info. {REMEDY}")
    return values


def _not_plain(values: Mapping[str, Any]) -> str | None:
    """Why a run is none of plain LoRA with AdamW; None where it is."""
    run = values["run_info"]
    config, training = run["peft_config"] or {}, run["train_config"]
    if config.get("peft_type") != "LORA":
        return str(config.get("peft_type") or "full fine-tuning")
    used = sorted(
        key for key, value in config.items() if key not in PLAIN and value not in (None, False, {}, [], "none")
    )
    if used:
        return f"LoRA with {', '.join(used)}"
    if config.get("init_lora_weights", True) is not True:
        return f"LoRA initialized by {config['init_lora_weights']}"
    if training.get("optimizer_type", "AdamW") != "AdamW":
        return f"LoRA trained by {training['optimizer_type']}"
    return None if isinstance(config.get("target_modules"), list) else "LoRA without a list of target modules"


def _record(values: Mapping[str, Any]) -> TrialRecord:
    run, train, meta = values["run_info"], values["train_info"], values["meta_info"]
    config, training = run["peft_config"], run["train_config"]
    done = train["status"] == "success"
    line = {
        "study": NAME,
        "trial_id": run["experiment_name"],
        "status": "complete" if done else "failed",
        "reason": None if done else str(run.get("error_msg") or train["status"]),
        "config": {
            "precision": PRECISIONS[training["dtype"]],
            "rank": config["r"],
            "lora_alpha": config["lora_alpha"] * (math.sqrt(config["r"]) if config.get("use_rslora") else 1),
            "lora_dropout": config["lora_dropout"],
            "target_modules": sorted(config["target_modules"]),
            "learning_rate": training["optimizer_kwargs"]["lr"],
            "seed": training.get("seed", 0),
        },
        "measurements": _measurements(run, train) if done else {},
        "base_model": {"path": training["model_id"], "sha256": _at(meta, "model_info", "sha"), "revision": None},
        "device": {
            "name": _at(meta, "system_info", "gpu"),
            "compute_dtype": training["dtype"],
            "memory_source": MEMORY_SOURCE,
        },
        "dataset": {"fingerprint": _digest({"dataset": meta.get("dataset_info"), **_asked(training)})},
    }
    quality = _digest({"model": line["base_model"], "data": line["dataset"]})
    cost = _digest({"quality": quality, "device": line["device"], "batch_size": training.get("batch_size")})
    return TrialRecord.from_json(json.dumps({**line, "comparable": {"quality": quality, "cost": cost}}))


def _measurements(run: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """In our names; the keys of memory were renamed from `cuda_…` to `accelerator_…` in 2025."""
    steps, last = train["metrics"], train["metrics"][-1]
    speeds = [step["tokens / sec"] for step in steps if step.get("tokens / sec") is not None]
    valid = [step["valid accuracy"] for step in steps if step.get("valid accuracy") is not None]
    return {
        "accuracy": valid[-1] if valid else None,
        "test_accuracy": last.get("test accuracy"),
        "peak_reserved_bytes": train.get("accelerator_memory_max", train.get("cuda_memory_max")),
        "train_tokens_per_second": statistics.median(speeds) if speeds else None,
        "trainable_parameters": train.get("num_trainable_params"),
        "train_steps": last["step"],
        "train_tokens": last.get("train total tokens"),
        "wall_seconds": run["total_time"],
    }


def _asked(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: training.get(key) for key in ("query_template", "max_seq_length", "generation_kwargs")}


def _at(values: Mapping[str, Any], section: str, key: str) -> Any:
    return (values.get(section) or {}).get(key)


def _digest(values: Any) -> str:
    return "peft:" + hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
