"""The phases that a plan shows are those that a run makes: compared whole, over shipped studies and drawn ones.

Both ways start from the study file: a plan from the hardware that it names, a run from what Ray says of its nodes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import StudyConfig, load_study
from study.errors import PlanError
from study.hardware.gpu_catalogue import catalogue, find_gpu
from study.hardware.targets import target_here
from study.plan.description import trial_counts
from study.plan.forecast import CARD_KIND, Forecast, forecast_on, workload_of
from study.plan.phases import phases_of
from study.plan.preflight import Preflight
from study.plan.shares import Node, Phase
from study.plan.study_plan import nodes_of, plan_study
from study.records.store import ResultsStore
from study.run.study_run import StudyRun
from study.search.study_search import open_search
from tests.support.made_up_studies import write_study_file
from tests.support.places import ROOT
from tests.support.plan_cases import LLAMA_3_8B, PUBMEDQA
from trainables.base_model.shape import ModelShape

SHIPPED = sorted((ROOT / "study/studies").glob("*.yaml"))
CORES = 8.0
DRAWN = 100
SMALL = ModelShape(576, 1536, 6, 9, 3, 64, 49152, True, 13 * 576)  # few layers: a prediction is a sum over them
LARGE = ModelShape(8192, 28672, 8, 64, 8, 128, 128256, False, 17 * 8192)


def found(shape: ModelShape, longest: int = 512) -> Preflight:
    statistics = {split: {**facts, "max_length": longest} for split, facts in PUBMEDQA.items()}
    return Preflight(8_000_000_000, "llama", statistics, shape)


def planned(config: StudyConfig, facts: Preflight) -> tuple[Phase, ...]:
    """The phases that `plan` shows."""
    workload, target = workload_of(config, facts), target_here(config.trial.hardware)
    assert workload is not None
    plan = plan_study(config, trial_counts(config), Forecast(workload, target), nodes_of(target, CORES))
    return tuple(one.phase for one in plan.phases)


def run(config: StudyConfig, facts: Preflight, left: Mapping[str, int]) -> tuple[Phase, ...]:
    """What `run` makes on a Ray node of the study's own cards."""
    hardware = config.trial.hardware
    on_cards = hardware.gpu != "cpu"
    node: dict[str, float] = {"CPU": CORES}
    if on_cards:
        node |= {"GPU": float(hardware.gpus or 1), f"{CARD_KIND}{find_gpu(hardware.gpu).key.upper()}": 1.0}
    forecast = forecast_on(config, facts, [node], on_cards, local=False)
    assert forecast is not None
    nodes = (Node(CORES, node.get("GPU", 0.0)),)
    return tuple(one.phase for one in phases_of(config, left, (), forecast, nodes, on_cards))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_studies_run_as_they_are_planned(file: Path, tmp_path: Path) -> None:
    config = load_study(file)
    facts = found(SMALL if config.trial.hardware.gpu == "cpu" else LLAMA_3_8B)
    search = open_search(config, tmp_path / "optuna.db", lambda one: 0.0)
    study = StudyRun(config, tmp_path, search, ResultsStore(tmp_path), facts)
    assert planned(config, facts) == run(config, facts, study.remaining()) != ()


def drawn_study(chance: random.Random) -> dict[str, Any]:
    """Sections of a study: any mix of precisions, ranks, targets, dropout; grid or search; one node of any card."""

    def some(values: list[Any]) -> list[Any]:
        return chance.sample(values, chance.randint(1, len(values)))

    space = {
        "precision": {"choice": some(["fp32", "bf16", "fp16", "nf4"])},
        "rank": {"choice": some([2, 8, 64, 160, 512])},
        "target_modules": {"choice": some(["q_v", "all_linear"])},
        "lora_dropout": {"choice": some([0.0, 0.05])},
        "lora_alpha": {"rank_times": 2},
        "learning_rate": {"log_float": [1e-5, 1e-3]},
    }
    training = {
        "micro_batch_size": chance.choice([1, 2, 8]),
        "gradient_accumulation_steps": chance.choice([1, 16]),
        "gradient_checkpointing": chance.random() < 0.7,
    }
    hardware = {
        "gpu": chance.choice(["cpu", *catalogue()]),
        "gpus": chance.choice([1, 2, 4, 8]),
        "memory_limit": chance.choice([None, None, "10 GiB"]),
        "max_adapters_per_gpu": chance.choice([None, None, 1, 3]),
    }
    search: dict[str, Any] = {"algorithm": chance.choice(["grid", "random", "tpe"]), "seed": 0}
    if search["algorithm"] != "grid":
        search["trials"] = chance.randint(1, 60)
    return {"space": space, "training": training, "hardware": hardware, "search": search}


def outcome(way: Any, *given: Any) -> tuple[Phase, ...] | str:
    """The phases of one way, or the words with which it refuses."""
    try:
        return way(*given)
    except PlanError as error:
        return str(error)


def test_drawn_studies_run_as_they_are_planned(tmp_path: Path) -> None:
    """Where a run refuses a precision, the plan shows no phase; each kind of outcome occurs among the hundred."""
    kinds: dict[str, int] = {"refused": 0, "nothing": 0, "one": 0, "several": 0}
    for seed in range(DRAWN):
        chance = random.Random(seed)
        config = load_study(write_study_file(tmp_path, **drawn_study(chance)))
        facts = found(chance.choice([SMALL, LARGE]), chance.choice([128, 512, 2048]))
        shown, made = outcome(planned, config, facts), outcome(run, config, facts, trial_counts(config))
        if isinstance(made, str) and made.startswith("Precision"):
            kinds["refused"] += 1
            assert shown == (), seed
            continue
        assert shown == made, seed
        kinds["nothing" if not made else "one" if len(made) == 1 else "several"] += 1
    assert min(kinds.values()) >= 3, kinds
