"""PEFT's published results as a study: the format as PEFT writes it, old and new names, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.load import StudyDirectoryError
from analysis.method_comparison import is_method_comparison, load_method_comparison


def result(name: str = "lora/llama-3.2-3B-rank32", **changes: Any) -> dict[str, Any]:
    """A result as PEFT's benchmark writes it; numbers of `lora--llama-3.2-3B-rank32.json` of June 2025."""
    config = {
        "task_type": "CAUSAL_LM", "peft_type": "LORA", "auto_mapping": None, "inference_mode": False, "r": 32,
        "target_modules": ["v_proj", "q_proj"], "lora_alpha": 64, "lora_dropout": 0.0, "fan_in_fan_out": False,
        "bias": "none", "use_rslora": False, "modules_to_save": None, "init_lora_weights": True, "rank_pattern": {},
        "loftq_config": {}, "use_dora": False, "megatron_core": "megatron.core", "revision": None,
        "base_model_name_or_path": "meta-llama/Llama-3.2-3B",
    }  # fmt: skip
    training = {
        "model_id": "meta-llama/Llama-3.2-3B", "dtype": "bfloat16", "max_seq_length": 768, "batch_size": 4, "seed": 0,
        "optimizer_type": "AdamW", "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1},
        "query_template": "Q: {query}",
    }  # fmt: skip
    steps = [
        {"step": 250, "valid accuracy": 0.34, "train loss": 0.98, "tokens / sec": 6743.0},
        {"step": 500, "valid accuracy": 0.5, "train loss": 0.72, "tokens / sec": 6769.0},
        {"step": 500, "test accuracy": 0.482, "train loss": 0.61, "train total tokens": 4198051},
    ]
    train = {
        "cuda_memory_max": 22273851392, "train_time": 1796.2, "num_trainable_params": 9175040, "status": "success",
        "metrics": steps,
    }  # fmt: skip
    renamed = changes.pop("accelerator", False)
    if renamed:
        train["accelerator_memory_max"] = train.pop("cuda_memory_max")
    train |= changes.pop("train", {})
    return {
        "run_info": {
            "experiment_name": name,
            "total_time": 1993.5,
            "peft_config": changes.pop("peft_config", {**config, **changes.pop("config", {})}),
            "train_config": {**training, **changes.pop("training", {})},
            "error_msg": changes.pop("error_msg", ""),
        },
        "train_info": train,
        "meta_info": {
            "model_info": {"sha": "13afe512"},
            "dataset_info": {"gsm8k": {"sha": "e53f0488"}},
            "system_info": {"gpu": "NVIDIA L40S"},
        },
    }


def write(folder: Path, *results: dict[str, Any]) -> Path:
    for number, values in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("accelerator", [False, True])
def test_a_run_of_lora_is_a_trial(accelerator: bool, tmp_path: Path) -> None:
    study = load_method_comparison(write(tmp_path, result(accelerator=accelerator)))
    (record,) = study.records
    assert record.trial_id == "lora/llama-3.2-3B-rank32"
    assert (record.config.precision, record.config.rank, record.config.scaling) == ("bf16", 32, 2.0)
    assert (record.config.target_set, record.config.learning_rate) == ("q_v", 1e-4)
    found = {name: value for name, value in record.measurements.items() if value is not None}
    assert found == {
        "accuracy": 0.5, "test_accuracy": 0.482, "peak_reserved_bytes": 22273851392, "train_tokens_per_second": 6756.0,
        "trainable_parameters": 9175040, "train_steps": 500, "train_tokens": 4198051, "wall_seconds": 1993.5,
    }  # fmt: skip
    assert record.device["name"] == "NVIDIA L40S"
    assert all(value.startswith("peft:") for value in record.comparable.values())  # never a hash of ours


def test_rslora_becomes_the_lora_of_equal_scaling(tmp_path: Path) -> None:
    (record,) = load_method_comparison(write(tmp_path, result(config={"use_rslora": True, "r": 64}))).records
    assert record.config.scaling == pytest.approx(64 / 64**0.5)


def test_what_is_no_plain_lora_is_left_out_with_its_reason(tmp_path: Path) -> None:
    others = [
        result("ia3", peft_config={"peft_type": "IA3"}),
        result("full", peft_config=None),
        result("dora", config={"use_dora": True}),
        result("pissa", config={"init_lora_weights": "pissa"}),
        result("lora-fa", training={"optimizer_type": "lora-fa"}),
        result("default modules", config={"target_modules": None}),
    ]
    study = load_method_comparison(write(tmp_path, *others))
    assert study.records == ()
    assert study.provenance["left_out"] == {
        "ia3": "IA3", "full": "full fine-tuning", "dora": "LoRA with use_dora", "pissa": "LoRA initialized by pissa",
        "lora-fa": "LoRA trained by lora-fa", "default modules": "LoRA without a list of target modules",
    }  # fmt: skip


def test_a_run_that_failed_stays_with_its_reason(tmp_path: Path) -> None:
    failed = result(train={"status": "failed", "metrics": []}, error_msg="CUDA error: out of memory")
    (record,) = load_method_comparison(write(tmp_path, failed)).records
    assert (record.status, record.reason) == ("failed", "CUDA error: out of memory")


def test_runs_on_other_data_or_cards_do_not_compare(tmp_path: Path) -> None:
    other_card = result("b")
    other_card["meta_info"]["system_info"]["gpu"] = "H100"
    records = load_method_comparison(
        write(tmp_path, result("a"), other_card, result("c", training={"max_seq_length": 512}))
    ).records
    first, card, data = (record.comparable for record in records)
    assert first["quality"] == card["quality"] != data["quality"]
    assert len({each["cost"] for each in (first, card, data)}) == 3


@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"run_info": {}}', '{"run_info": {}, "train_info": {}, "meta_info": {}}']
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(StudyDirectoryError, match=r"a\.json.* must .*Give a \.json file"):
        load_method_comparison(tmp_path / "a.json")


def test_a_study_directory_is_no_method_comparison(tmp_path: Path) -> None:
    assert not is_method_comparison(tmp_path)
    write(tmp_path, result())
    assert is_method_comparison(tmp_path)
    assert is_method_comparison(tmp_path / "0.json")
    (tmp_path / "study.yaml").write_text("name: a", encoding="utf-8")
    assert not is_method_comparison(tmp_path)
