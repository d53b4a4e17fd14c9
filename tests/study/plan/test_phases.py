"""Which trials run together: by memory where it is known, on fake cards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig, load_study
from study.errors import PlanError
from study.plan.forecast import Forecast
from study.plan.phases import StudyPhase, grid_phases, phases_of
from study.plan.shares import Node
from tests.support.made_up_studies import write_study_file
from tests.support.plan_cases import GIB, LLAMA_3_8B, cards, cpus, on_cards, workload
from tests.support.plan_cases import config as make_config
from trainables.memory.prediction import base_bytes, predict_pack
from trainables.settings import HardwareSettings

ONE_CARD = (Node(8, 1),)
SPACE = {
    "precision": {"choice": ["fp16", "nf4"]}, "rank": {"choice": [8, 64]},
    "target_modules": {"choice": ["q_v", "all_linear"]}, "lora_alpha": {"rank_times": 2}, "lora_dropout": 0.05,
    "learning_rate": 2e-4,
}  # fmt: skip
EDGE_RANKS = [2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192]


def study(folder: Path, space: dict[str, Any], gpu: str = "t4", **changes: Any) -> StudyConfig:
    return load_study(write_study_file(folder, space=space, hardware={"gpu": gpu}, **changes))


def t4s(count: int = 1, **more: Any) -> Forecast:
    return Forecast(on_cards(**more), cards(count=count, per_node=1))


def phases(
    config: StudyConfig,
    forecast: Forecast | None,
    nodes: tuple[Node, ...] = ONE_CARD,
    ended: Any = (),
    gpu: bool = True,
) -> tuple[StudyPhase, ...]:
    counts = {name: config.search.trials // len(config.space.precisions()) for name in config.space.precisions()}
    return phases_of(config, counts, ended, forecast, nodes, gpu)


def test_what_does_not_fit_has_no_place_in_any_phase(tmp_path: Path) -> None:
    config = study(tmp_path, SPACE)
    (phase,) = phases(config, t4s())
    assert (phase.phase.precision, phase.phase.trials) == ("nf4", 4)
    assert [phase.holds(one) for one in config.space.grid([0])] == [False] * 4 + [True] * 4


def test_a_pack_is_sized_by_predicted_bytes_and_each_asks_for_its_own(tmp_path: Path) -> None:
    config = study(tmp_path, {**SPACE, "precision": "nf4", "learning_rate": {"choice": [1e-4, 2e-4, 3e-4, 4e-4]}})
    forecast = t4s()
    (phase,) = phases(config, forecast)
    assert phase.phase.room_bytes == forecast.fit(config.space.grid([0])[0]).room_bytes
    shares = {
        (one.rank, one.target_set): phase.phase.resources_for(forecast.fit(one).adapter_bytes)["GPU"]
        for one in config.space.grid([0])
    }
    assert shares[8, "q_v"] == 0.125
    assert shares[64, "all_linear"] > shares[64, "q_v"]


def test_what_takes_a_card_by_itself_runs_in_a_phase_of_its_own(tmp_path: Path) -> None:
    config = study(tmp_path, {**SPACE, "precision": "nf4", "rank": {"choice": [8, 160]}})
    alone, packed = phases(config, t4s())
    assert (alone.phase.trials, alone.phase.resources["GPU"]) == (1, 1.0)
    assert (packed.phase.trials, packed.phase.resources["GPU"]) == (3, 0.3333)
    for one in config.space.grid([0]):
        assert alone.holds(one) != packed.holds(one)


def test_what_has_ended_does_not_count(tmp_path: Path) -> None:
    config = study(tmp_path, {**SPACE, "precision": "nf4"})
    (phase,) = phases(config, t4s(), ended=config.space.grid([0])[:3])
    assert phase.phase.trials == 1


def test_a_searchs_phase_is_sized_by_draws(tmp_path: Path) -> None:
    search = {"algorithm": "random", "trials": 40}
    config = study(tmp_path, {**SPACE, "rank": {"log_int": [4, 64]}}, search=search)
    fp16, nf4 = phases(config, t4s())
    assert (fp16.phase.trials, fp16.phase.room_bytes) == (20, None)  # nothing drawn fits: each is looked at when asked
    assert nf4.phase.room_bytes is not None
    assert nf4.holds(config.space.grid([0])[-1])


def test_without_a_forecast_there_is_one_phase_a_precision(tmp_path: Path) -> None:
    found = phases(study(tmp_path, SPACE), None)
    assert [one.phase.precision for one in found] == ["fp16", "nf4"]
    assert all(one.phase.room_bytes is None for one in found)


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_a_precision_that_the_card_should_not_compute_in_is_an_error_that_says_why(
    tmp_path: Path, algorithm: str
) -> None:
    search = {"algorithm": algorithm, "trials": 8}
    config = study(tmp_path, {**SPACE, "precision": "bf16"}, gpu="auto", search=search)
    with pytest.raises(PlanError, match=r"^Precision bf16 needs a card of compute capability 8\.0 or more; NVIDIA T4"):
        phases(config, t4s())
    forced = dataclasses.replace(t4s(), workload=dataclasses.replace(on_cards(), force_bf16=True))
    assert len(phases(config, forced)) == (algorithm == "random")  # not refused: 8 B parameters just do not fit
    on_cpu = Forecast(workload(), cpus(99 * GIB))
    with pytest.raises(PlanError, match=r"^Precision fp16 needs a GPU"):
        phases(study(tmp_path, SPACE, gpu="auto", search=search), on_cpu, gpu=False)


def edge(tmp_path: Path) -> tuple[StudyConfig, Forecast]:
    """24 configurations around 14.56 GiB: rows without checkpointing take most of it, the ranks the rest."""
    config = study(tmp_path, {**SPACE, "precision": "nf4", "rank": {"choice": EDGE_RANKS}}, gpu="auto")
    capped = dataclasses.replace(cards("h100", count=1), limit_bytes=round(14.56 * GIB))
    return config, Forecast(workload(1024, micro_batch_size=2, gradient_checkpointing=False), capped)


def test_a_study_at_the_edge_admits_what_fits_and_nothing_else(tmp_path: Path) -> None:
    config, forecast = edge(tmp_path)
    configs = config.space.grid([0])
    found = phases(config, forecast)
    placed = [[one for one in configs if phase.holds(one)] for phase in found]
    admitted = sum(placed, list[TrialConfig]())
    assert len(configs) == 24
    assert 0 < len(admitted) < 24
    assert len(set(admitted)) == len(admitted) == sum(phase.phase.trials for phase in found)
    for one in configs:
        fit = forecast.fit(one)
        assert (one in admitted) == (fit.largest.reserved_bytes <= round(14.56 * GIB))
    for phase, own in zip(found, placed, strict=True):
        together(phase, own, forecast)


def together(phase: StudyPhase, own: list[TrialConfig], forecast: Forecast) -> None:
    """Those that Ray's ten-thousandths let onto the one card fit it together, as predicted."""
    for start in range(len(own)):
        free, there = 10_000, []
        for one in own[start:]:
            fit = forecast.fit(one)
            share = round(10_000 * phase.phase.resources_for(fit.adapter_bytes)["GPU"])
            if share <= free:
                free, there = free - share, [*there, fit]
        pack = predict_pack(LLAMA_3_8B, there[0].setting, [fit.load for fit in there])
        assert pack.needed_bytes <= there[0].capacity_bytes


def test_the_charts_prediction_is_the_base_and_never_less_than_the_pack() -> None:
    forecast = t4s()
    small, large = (forecast.memory(make_config(rank=rank)) for rank in (8, 64))
    fits = [forecast.fit(make_config(rank=rank)) for rank in (8, 64)]
    assert small.base_bytes == large.base_bytes == base_bytes(LLAMA_3_8B, fits[0].setting)
    pack = predict_pack(LLAMA_3_8B, fits[0].setting, [one.load for one in fits])
    together = small.base_bytes + small.adapter_bytes + large.adapter_bytes
    assert pack.needed_bytes <= together < 1.2 * pack.needed_bytes


def test_a_grid_parts_by_precision_cards_and_who_takes_a_whole_card() -> None:
    configs = [
        make_config(), make_config(rank=160, targets="all_linear"), make_config("fp16"), make_config(rank=16)
    ]  # fmt: skip
    forecast = Forecast(on_cards(), cards(host_memory_bytes=4 * GIB))  # nothing may wait there
    fits = [forecast.fit(one) for one in configs]
    whole, packed, spread = grid_phases(fits, forecast, (Node(8, 4),), HardwareSettings(), use_gpu=True)
    assert [(one.phase.precision, one.phase.trials, one.phase.cards) for one in (whole, packed, spread)] == [
        ("nf4", 1, 1), ("nf4", 2, 1), ("fp16", 1, 2)
    ]  # fmt: skip
    assert [[one.holds(config) for config in configs] for one in (whole, packed, spread)] == [
        [False, True, False, False], [True, False, False, True], [False, False, True, False]
    ]  # fmt: skip
