"""Configurations, rows and adapters for tests, over `tiny_llama` or any other small model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from search_spaces.trial_config import TrialConfig
from trainables.dataset.batches import batch_plan
from trainables.dataset.pubmedqa import ANSWERS
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter
from trainables.packed.adapter_files import peft_files, peft_tensors
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step
from trainables.settings import TrainingSettings


def lora_config(**changes: Any) -> TrialConfig:
    """A configuration that learns quickly."""
    values = {
        "precision": "fp32", "rank": 4, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all_linear",
        "learning_rate": 0.02, "seed": 3,
    }  # fmt: skip
    return TrialConfig.from_dict({**values, **changes})


def random_rows(count: int, vocabulary: int = 97, longest: int = 24, seed: int = 0) -> list[Row]:
    """Rows of various lengths and target counts, each with a label."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        tokens = tuple(draw.randrange(vocabulary) for _ in range(draw.randint(3, longest)))
        rows.append(Row(tokens, draw.randint(1, len(tokens) - 1), ANSWERS[number % 3], str(number)))
    return rows


def new_member(model: PackedModel, config: TrialConfig, rows: Sequence[Row], **training: Any) -> TrainingMember:
    """A member at the start of its training: micro-batches of two rows, two of them a step."""
    settings = TrainingSettings(**{"micro_batch_size": 2, "gradient_accumulation_steps": 2, "epochs": 4, **training})
    return TrainingMember(model.new_adapter(config), settings, batch_plan(len(rows), settings, config.seed), half=False)


def trained_adapter(model: PackedModel, config: TrialConfig, rows: Sequence[Row], steps: int = 3) -> LoraAdapter:
    """An adapter that has taken a few steps, so that neither A nor B is what it was."""
    member = new_member(model, config, rows)
    for _ in range(steps):
        train_step(model, [member], rows)
    return member.adapter


def files_of(adapter: LoraAdapter, base: str = "any/base", revision: str = "main") -> dict[str, bytes]:
    """The adapter as PEFT's files, by name."""
    return peft_files(peft_tensors(adapter), adapter.config, base, revision)


def peft_model(base: torch.nn.Module, adapter: LoraAdapter, folder: Path) -> PeftModel:
    """The base with the adapter as exported, loaded by PEFT from files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(adapter).items():
        (folder / name).write_bytes(content)
    return PeftModel.from_pretrained(base, str(folder)).eval()
