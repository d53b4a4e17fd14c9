"""Which way is taken, and when a phase's trials share another offload than the mildest."""

from __future__ import annotations

import dataclasses

import pytest

from search_spaces.footprint import Footprint
from study.plan.forecast import Forecast
from study.plan.offloading.choice import choose, rivals
from study.plan.offloading.ladder import Permitted
from study.plan.phases import StudyPhase, grid_phases, search_phases
from study.plan.shares import Node
from tests.support.plan_cases import GIB, PAPER_GRID, cards, config, cpus, on_cards, plan, workload
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import Offload
from trainables.memory.prediction import predict_pack
from trainables.settings import HardwareSettings

ONE, ANY = (Node(8, 1),), HardwareSettings()
T4 = cards(count=1, host_memory_bytes=16 * GIB)


def test_another_way_must_be_a_tenth_faster():
    times = {"mild": 10.0, "a": 9.1, "b": 9.0, "c": 8.0}
    assert choose("mild", ["a"], times.get).way == "mild"
    assert (choose("mild", ["b"], times.get).way, choose("mild", "abc", times.get).gain) == ("b", 1.25)
    assert choose("mild", ["c"], lambda way: None).way == "mild"


def test_rivals_are_permitted_and_other_than_nothing():
    every = list(rivals(Permitted(0, 32, True, True, True)))
    assert len(every) == len(set(every)) == 11
    assert Offload() not in every
    assert {one.layers for one in rivals(Permitted(32, 32, True, True, True))} == {32}
    assert list(rivals(Permitted())) == []
    assert {one.layers for one in rivals(Permitted(0, 7, True, True, True))} == {0, 7}  # 3 have as many buffers


def phases(forecast: Forecast, configs: list) -> tuple[StudyPhase, ...]:
    fits = [forecast.fit_with(one, None) for one in configs]
    return grid_phases(fits, forecast, ONE, ANY, use_gpu=True)


def test_the_paper_grid_fits_one_t4():
    """fp16 shares one offload, the mildest with which all of it fits, and NF4 stays resident."""
    forecast = Forecast(workload(), T4)
    found = phases(forecast, PAPER_GRID)
    assert {one.phase.offload for one in found if one.phase.precision == "nf4"} == {Offload()}
    (shared,) = {one.phase.offload for one in found if one.phase.precision == "fp16"}
    own = [Forecast(workload(), T4).fit(one) for one in PAPER_GRID if one.precision == "fp16"]
    assert shared.layers == max(one.offload.layers for one in own)
    for one in PAPER_GRID:
        (phase,) = (each for each in found if each.holds(one))
        assert forecast.fit(one).offload == phase.phase.offload
        assert forecast.fit(one).room_bytes == phase.phase.room_bytes


def test_all_that_a_phases_shares_let_together_fits_card_and_host_memory():
    forecast = Forecast(workload(), T4)
    found = phases(forecast, [dataclasses.replace(one, seed=seed) for one in PAPER_GRID for seed in range(3)])
    for phase in found:
        fits = [forecast.fit(one) for one in PAPER_GRID if phase.holds(one)]
        pack = (
            [max(fits, key=lambda one: one.adapter_bytes)] * phase.phase.per_device if phase.phase.equal else fits[:1]
        )
        together = predict_pack(forecast.workload.shape, pack[0].setting, [one.load for one in pack[:1]])
        assert together.needed_bytes <= T4.memory_bytes
        host = pack[0].host_base_bytes + phase.phase.per_device * max(one.host_adapter_bytes for one in fits)
        assert host <= T4.host_room_bytes


def test_larger_passes_win_where_the_least_leaves_room_for_one_row():
    """Four T4s: with a few layers streamed a pass has one row and waits for the bus; with half of them it does not."""
    configs = [config("fp16", rank) for rank in (8, 16, 32, 64)]
    mild, chosen = plan(configs, cards(count=1), load=workload()), plan(configs, cards(count=4), load=workload())
    (phase,) = chosen.phases
    assert phase.gain > 1.1
    assert phase.phase.offload.layers > mild.rows[0].fit.offload.layers or mild.phases[0].gain
    assert phase.full_pass.transfer < phase.full_pass.busy


def test_one_card_streamed_comes_before_two_that_hold_all():
    """It takes less of the cards' time; a base that may not wait is spread, and so is one without known times."""
    forecast = Forecast(workload(), cards(count=4))
    assert (forecast.fit(config("fp16")).cards, forecast.fit(config("fp16")).offload.streams) == (1, True)
    assert Forecast(on_cards(), cards(count=4)).fit(config("fp16")).cards == 2
    unknown = dataclasses.replace(cards(count=4).card, tensor_flops=None)
    assert Forecast(workload(), dataclasses.replace(cards(count=4), card=unknown)).fit(config("fp16")).cards == 2
    slow = dataclasses.replace(cards(count=4).card, bus_bytes_per_second=1e9)
    assert Forecast(workload(), dataclasses.replace(cards(count=4), card=slow)).fit(config("fp16")).cards == 2


@pytest.mark.parametrize("ranks", [(8, 16), (8, 64, 128)])
def test_a_searchs_phase_has_the_mildest_with_which_all_drawn_fit(ranks):
    forecast = Forecast(workload(), T4)
    drawn = [config("fp16", rank, "all_linear") for rank in ranks]
    own = [forecast.fit_with(one, None) for one in drawn]
    (phase,) = search_phases({"fp16": 9}, own, forecast, ONE, ANY, use_gpu=True)
    assert phase.phase.trials == 9
    assert all(forecast.fit(one, 1).fits for one in drawn)
    assert {forecast.fit(one, 1).offload for one in drawn} == {phase.phase.offload}
    assert not forecast.fit(config("fp16", 256, "all_linear"), 1).fits
    other = config("fp16", ranks[0], "q_v")
    assert forecast.fit(other, 1).offload == phase.phase.offload
    assert Footprint.of(other) not in map(Footprint.of, drawn)


def test_a_cpu_streams_only_what_a_study_asks_for():
    """The same phases, places and bytes as resident: what waits is in the machine's memory too."""
    shape = ModelShape(576, 1536, 6, 9, 3, 64, 49152, True, 13 * 576)
    usual = dataclasses.replace(workload(), shape=shape)
    asked = dataclasses.replace(usual, base_in_host_memory="always")
    configs = [config("fp32", seed=seed) for seed in range(8)]
    resident, streamed = (plan(configs, cpus(8 * GIB), load=load).phases[0].phase for load in (usual, asked))
    assert (resident.offload, streamed.offload) == (Offload(), Offload(6))
    assert dataclasses.replace(streamed, offload=Offload(), room_bytes=resident.room_bytes) == resident
