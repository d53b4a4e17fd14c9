"""Plans of whole studies: packs, phases, time and price."""

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.footprint import Footprint
from study.hardware.gpu_catalogue import find_gpu
from study.plan.fitting import fit
from study.plan.forecast import Forecast
from study.plan.phases import grid_phases
from study.plan.plan_text import plan_text
from study.plan.study_plan import nodes_of
from tests.support.plan_cases import GIB, LLAMA_3_8B, cards, config, cpus, on_cards, plan, workload
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import predict_pack
from trainables.settings import HardwareSettings

ANY = HardwareSettings()


def test_the_paper_grid_on_four_t4s_of_one_machine():
    found = plan(load=on_cards())
    assert [(p.phase.precision, p.phase.places, p.cards, p.waves) for p in found.phases] == [
        ("fp16", 2, 4, 2), ("nf4", 4, 4, 1),
    ]  # fmt: skip
    assert [row.fit.cards for row in found.rows] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert found.gpu_hours == pytest.approx(4 * found.seconds / 3600)
    assert found.price == pytest.approx(found.gpu_hours * 0.526)


def test_the_paper_grid_on_four_machines_of_one_t4():
    found = plan(target=cards(per_node=1), load=on_cards())
    assert [(p.phase.precision, p.phase.places) for p in found.phases] == [("nf4", 4)]
    assert [row.fit.fits for row in found.rows] == [False] * 4 + [True] * 4
    assert found.rows[0].remedies == (
        "hardware.base_in_host_memory: auto (with 7 of 32 layers in host memory, 2.84 GiB)",
        "precision: nf4",
        "2 such cards in one node",
    )


def test_eight_trials_share_a_t4_where_one_fitted_before():
    found = plan([config(seed=seed) for seed in range(16)], cards(count=1))
    (phase,) = found.phases
    assert (phase.phase.places, phase.waves) == (8, 2)
    assert sum(row.fit.adapter_bytes * 8 for row in found.rows) <= found.rows[0].fit.room_bytes


def test_larger_adapters_make_more_waves():
    configs = [config(rank=32, targets="all_linear", seed=seed) for seed in range(16)]
    (phase,) = plan(configs, cards(count=1)).phases
    room, own = phase.phase.room_bytes, plan(configs, cards(count=1)).rows[0].fit.adapter_bytes
    assert room // own == 5
    assert (phase.phase.places, phase.at_once, phase.waves) == (4, 4, 4)  # as few waves as of 5, 5, 5 and 1


@given(
    ranks=st.lists(st.sampled_from([2, 8, 32, 64, 128, 160]), min_size=1, max_size=20),
    all_linear=st.lists(st.booleans(), min_size=20, max_size=20),
    longest=st.sampled_from([256, 512, 1024]),
)
@settings(max_examples=25, deadline=None)
def test_no_pack_that_rays_arithmetic_lets_in_exceeds_the_card(ranks, all_linear, longest):
    """Each trial asks for its share; those that Ray's ten-thousandths let onto one T4 fit it together, as predicted."""
    load, target = workload(longest=longest), cards(count=1)
    configs = [config(rank=r, targets="all_linear" if a else "q_v") for r, a in zip(ranks, all_linear, strict=False)]
    fits = [one for one in (fit(each, load, target) for each in configs) if one.fits]
    for own in grid_phases(fits, Forecast(load, target), nodes_of(target, 2.0), ANY, True):
        free, there = 10_000, []
        for one in (one for one in fits if own.holds(one.config)):
            share = round(10_000 * own.phase.resources_for(one.adapter_bytes)["GPU"])
            if share <= free:
                free, there = free - share, [*there, one]
        together = predict_pack(LLAMA_3_8B, there[0].setting, [one.load for one in there])
        assert together.needed_bytes <= there[0].capacity_bytes


def test_the_users_price_overrides_the_catalogues():
    assert plan(hardware=HardwareSettings(price_per_hour=1.0)).price == pytest.approx(plan().gpu_hours)
    unknown = dataclasses.replace(cards(), card=dataclasses.replace(find_gpu("t4"), price_per_hour=None))
    assert plan(target=unknown).price is None


def test_a_card_without_known_rates_has_no_times():
    bare = dataclasses.replace(find_gpu("t4"), tensor_flops=None, bandwidth_bytes_per_second=None)
    found = plan(target=dataclasses.replace(cards(), card=bare))
    assert found.seconds is found.gpu_hours is found.price is None
    assert all(row.seconds_per_epoch is None for row in found.rows)
    assert "not known for this hardware" in plan_text(found)


def test_a_measured_time_factor_scales_all_times():
    calibration = dataclasses.replace(cards().calibration, time_factor=2.0)
    slow, fast = plan(target=dataclasses.replace(cards(), calibration=calibration)), plan()
    for one, other in zip(slow.rows, fast.rows, strict=True):
        assert one.seconds_per_epoch == pytest.approx(2 * other.seconds_per_epoch)


def test_a_cpu_study_shares_cores():
    small = dataclasses.replace(workload(), shape=ModelShape(576, 1536, 30, 9, 3, 64, 49152, True, 61 * 576))
    found = plan([config("fp32", seed=seed) for seed in range(8)], cpus(8 * GIB), load=small, cores_per_node=2.0)
    (phase,) = found.phases
    assert (phase.phase.resources, phase.phase.places, phase.waves) == ({"CPU": 0.5}, 4, 2)
    assert found.price is None
    assert "CPU host" in plan_text(found)


def test_equal_footprints_are_one_row():
    configs = [config(learning_rate=rate, seed=seed) for rate in (1e-4, 2e-4) for seed in (0, 1)]
    (row,) = plan(configs).rows
    assert row.trials == 4
    assert Footprint.of(configs[0]) == Footprint.of(configs[3]) != Footprint.of(config(lora_dropout=0.0))


def test_a_long_search_is_planned_within_a_second():
    configs = [config(rank=rank, seed=seed) for rank in (2, 4, 8, 16, 32) for seed in range(60)]
    start = time.process_time()
    plan(configs)
    assert time.process_time() - start < 5  # a second on an idle machine
