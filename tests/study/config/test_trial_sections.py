"""What each trial is, key by key."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from study.config import trial_sections
from study.config.study_config import (
    load_study,
)
from study.records.objectives import Objective
from tests.support.study_files import load_changed, read_again, write_study
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    HardwareSettings,
    TrainingSettings,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("key", "value", "section", "name", "found"),
    [
        ("base_model.revision", "abc", "base_model", "revision", "abc"),
        ("base_model.double_quantization", False, "base_model", "double_quantization", False),
        ("dataset.max_tokens", 1024, "dataset", "max_tokens", 1024),
        ("dataset.train_examples", 64, "dataset", "train_examples", 64),
        ("dataset.eval_examples", 1, "dataset", "eval_examples", 1),
        ("dataset.test_examples", 0, "dataset", "test_examples", 0),
        ("dataset.seed", 2**31 - 1, "dataset", "seed", 2**31 - 1),
        ("dataset.source", None, "dataset", "source", None),
        ("training.epochs", 3, "training", "epochs", 3.0),
        ("training.max_steps", 12, "training", "max_steps", 12),
        ("training.schedule", "linear", "training", "schedule", "linear"),
        ("training.warmup_ratio", 0, "training", "warmup_ratio", 0.0),
        ("training.max_grad_norm", 0, "training", "max_grad_norm", 0.0),
        ("training.evaluations", 7, "training", "evaluations", 7),
        ("training.gradient_checkpointing", False, "training", "gradient_checkpointing", False),
        ("hardware.gpu", "cpu", "hardware", "gpu", "cpu"),
        ("hardware.gpu", "A100_80", "hardware", "gpu", "a100-80"),
        ("hardware.gpus", 2, "hardware", "gpus", 2),
        ("hardware.memory_limit", "8 GiB", "hardware", "memory_limit_bytes", 8 * GIB),
        ("hardware.max_adapters_per_gpu", 1, "hardware", "max_adapters_per_gpu", 1),
        ("generation.max_new_tokens", 1, "generation", "max_new_tokens", 1),
        ("generation.held_out", 2, "generation", "held_out", 2),
        ("generation.prompts", ["a", "b"], "generation", "prompts", ("a", "b")),
        ("generation.prompts", [], "generation", "prompts", ()),
    ],
)
def test_keys_of_sections(tmp_path: Path, key: str, value: Any, section: str, name: str, found: Any) -> None:
    config = load_study(write_study(tmp_path, {key: value}))
    read = getattr(getattr(config.trial, section), name)
    assert (type(read), read) == (type(found), found)
    assert read_again(config, tmp_path) == config


def test_every_setting_can_be_written() -> None:
    """The sections' keys are their settings' fields, so none can be forgotten."""
    for rules, settings_type in (
        (trial_sections.BASE_MODEL, BaseModelSettings),
        (trial_sections.DATASET, DatasetSettings),
        (trial_sections.TRAINING, TrainingSettings),
    ):
        assert list(rules) == [field.name for field in dataclasses.fields(settings_type)]
    hardware = {
        field.name.replace("memory_limit_bytes", "memory_limit") for field in dataclasses.fields(HardwareSettings)
    }
    assert {"gpu", *trial_sections.HARDWARE} == hardware


def test_objectives(tmp_path: Path) -> None:
    objectives = [
        {"metric": "accuracy", "direction": "maximize", "reference": 0},
        {"metric": "perplexity", "direction": "maximize", "reference": 1},
        {"metric": "peak_device_bytes", "direction": "minimize", "reference": "1 B"},
        {"metric": "energy_joules", "direction": "minimize", "reference": 5.5},
    ]
    config = load_changed(tmp_path, objectives=objectives, adapters="none")
    assert config.objectives == (
        Objective("accuracy", "maximize", 0.0),
        Objective("perplexity", "maximize", 1.0),
        Objective("peak_device_bytes", "minimize", 1),
        Objective("energy_joules", "minimize", 5.5),
    )
    assert config.adapters == "none"
