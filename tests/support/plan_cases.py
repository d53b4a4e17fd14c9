"""Llama 3 8B on rented cards: what the tests of plans start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.targets import Target
from study.plan.forecast import Forecast
from study.plan.phases import grid_phases, refused_precisions
from study.plan.study_plan import StudyPlan, make_plan, nodes_of
from study.plan.workload import Workload
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import DEFAULT_CONSTANTS
from trainables.settings import HardwareSettings, TrainingSettings

GIB = 2**30
ANY = HardwareSettings()
LLAMA_3_8B = ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False, 65 * 4096)
PUBMEDQA = {
    "train": {"rows": 450, "tokens": 450 * 340, "target_tokens": 450 * 70, "max_length": 512},
    "eval": {"rows": 50, "tokens": 50 * 340, "target_tokens": 50 * 70, "max_length": 512},
}


def config(precision: str = "nf4", rank: int = 8, targets: str = "q_v", **changes: Any) -> TrialConfig:
    """One configuration."""
    values = {"lora_alpha": 2 * rank, "lora_dropout": 0.05, "learning_rate": 2e-4, **changes}
    return TrialConfig(precision=precision, rank=rank, target_modules=TARGET_SETS[targets], **values)


PAPER_GRID = [config(p, r, t) for p in ("fp16", "nf4") for r in (8, 64) for t in ("q_v", "all_linear")]


def workload(longest: int = 512, **training: Any) -> Workload:
    """PubMedQA's rows, with other training settings."""
    found = Workload.of(LLAMA_3_8B, TrainingSettings(**training), PUBMEDQA)
    return Workload(**{**vars(found), "longest": longest})


def on_cards(longest: int = 512, **training: Any) -> Workload:
    """The same, whose base model never waits in host memory."""
    return replace(workload(longest, **training), base_in_host_memory="never")


def cards(name: str = "t4", count: int = 4, per_node: int | None = None, **more: Any) -> Target:
    """Cards of the catalogue, not calibrated."""
    card = find_gpu(name)
    constants = Calibration(DEFAULT_CONSTANTS["cuda"])
    return Target(card, card.memory_bytes, count, per_node or count, constants, **more)


def cpus(memory_bytes: int, **more: Any) -> Target:
    """A machine without a card."""
    return Target(None, memory_bytes, 1, 1, Calibration(DEFAULT_CONSTANTS["cpu"]), **more)


def plan(
    configs: Sequence[TrialConfig] = PAPER_GRID,
    target: Target | None = None,
    hardware: HardwareSettings = ANY,
    load: Workload | None = None,
    cores_per_node: float = 1.0,
) -> StudyPlan:
    """The plan of a grid of these configurations."""
    forecast = Forecast(load or workload(), target or cards())
    nodes, use_gpu = nodes_of(forecast.target, cores_per_node), forecast.target.card is not None
    fits = [forecast.fit(one) for one in configs]
    phases = () if refused_precisions(fits) else grid_phases(fits, forecast, nodes, hardware, use_gpu)
    return make_plan(configs, phases, forecast, nodes, hardware)
