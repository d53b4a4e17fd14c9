"""The settings that all trials share, with their defaults: model, data, training, generation, hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]
MeasuredCosts = Literal["reuse", "anew"]  # whether what an earlier study has measured may be taken over
Grouping = Literal["prompt", "none"]  # what never stands in two splits: rows of one prompt, or nothing
SpecialTokens = Literal["auto", "text", "markup"]
Optimizer = Literal["adamw", "adamw_8bit"]  # 8 bits: moments by blocks, Dettmers et al. 2022, arXiv 2110.02861
BaseInHostMemory = Literal["auto", "never", "always"]  # whether layers of the base model are streamed from there


@dataclass(frozen=True)
class BaseModelSettings:
    """The frozen weights' source: a hub id, a local folder, a `.gguf` file, or `package:NAME/FILE`."""

    path: str
    revision: str = "main"
    double_quantization: bool = True


@dataclass(frozen=True)
class DatasetSettings:
    """The rows that train, evaluate and test: of a named dataset, or of the user's own files (JSON Lines)."""

    name: str  # one of `trainables.dataset.named`; with train_file, any name
    source: str | None = None  # a hub id, a JSON file, or "sample" for the rows shipped with the project
    train_file: str | None = None
    eval_file: str | None = None
    test_file: str | None = None
    max_tokens: int = 512
    train_examples: int | None = None  # None: all that are there
    eval_examples: int | None = None
    test_examples: int | None = None
    seed: int = 0
    group: Grouping = "prompt"
    special_tokens: SpecialTokens = "auto"  # their texts in rows and prompts: text, or (markup) those tokens


@dataclass(frozen=True)
class TrainingSettings:
    """The training of every trial; an optimizer step has `micro_batch_size` x `gradient_accumulation_steps` rows."""

    epochs: float = 1.0
    max_steps: int | None = None  # optimizer steps; where given, it bounds the epochs
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 16
    schedule: Schedule = "cosine"
    warmup_ratio: float = 0.03
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = True
    evaluations: int = 4  # evenly spaced measurements of the evaluation split, the last at the end


@dataclass(frozen=True)
class GenerationSettings:
    """The prompts that base and tuned model continue, greedily."""

    prompts: tuple[str, ...] = ()
    max_new_tokens: int = 128
    held_out: int = 0  # so many questions of the evaluation split too, beside their reference answers


@dataclass(frozen=True)
class HardwareSettings:
    """The cards that the study runs on."""

    gpu: str = "auto"  # a catalogue name, "auto", or "cpu"
    gpus: int | None = None  # None: all that are there
    memory_limit_bytes: int | None = None
    max_adapters_per_gpu: int | None = None  # on a CPU: per host
    price_per_hour: float | None = None  # of one card, USD; None: the catalogue's
    force_bf16: bool = False  # on cards that only emulate it (compute capability under 8.0)
    measured_costs: MeasuredCosts = "reuse"
    base_in_host_memory: BaseInHostMemory = "auto"


@dataclass(frozen=True)
class RungSettings:
    """The parts of its training budget after which a trial may be stopped, and is evaluated."""

    fractions: tuple[float, ...] = ()  # above 0, under 1, upward
    grace_steps: int = 0  # optimizer steps before which no trial is stopped

    def steps(self, total_steps: int) -> tuple[int, ...]:
        """Returns the rungs as optimizer steps, upward; those in the grace move to its end, and the end is no rung."""
        steps = {max(1, math.ceil(part * total_steps), self.grace_steps) for part in self.fractions}
        return tuple(sorted(step for step in steps if step < total_steps))


@dataclass(frozen=True)
class TrialSettings:
    """All settings of a study that a host needs to run its trials."""

    base_model: BaseModelSettings
    dataset: DatasetSettings
    training: TrainingSettings = field(default_factory=TrainingSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)
    rungs: RungSettings = field(default_factory=RungSettings)
