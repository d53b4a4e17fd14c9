"""Plans of whole studies: packs, phases, time and price."""

import dataclasses
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.footprint import Footprint
from study.hardware.gpu_catalogue import find_gpu
from study.plan.fitting import fit
from study.plan.plan_text import duration, plan_text
from study.plan.shares import plan_demands
from study.plan.study_plan import StudyPlan, demands_of, make_plan, nodes_of
from study.plan.time_model import adapters_that_pay, pass_time, total_steps
from tests.support.plan_cases import GIB, LLAMA_3_8B, PAPER_GRID, cards, config, cpus, workload
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import predict_pack
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.settings import HardwareSettings

ANY = HardwareSettings()


def plan(configs=PAPER_GRID, target=None, hardware=ANY, load=None, **more) -> StudyPlan:
    return make_plan(configs, load or workload(), target or cards(), hardware, **more)


def test_the_paper_grid_on_four_t4s_of_one_machine():
    found = plan()
    assert [(p.phase.precision, p.phase.places, p.cards, p.waves) for p in found.phases] == [
        ("fp16", 2, 4, 2), ("nf4", 4, 4, 1),
    ]  # fmt: skip
    assert [row.fit.cards for row in found.rows] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert found.gpu_hours == pytest.approx(4 * found.seconds / 3600)
    assert found.price == pytest.approx(found.gpu_hours * 0.526)


def test_the_paper_grid_on_four_machines_of_one_t4():
    found = plan(target=cards(per_node=1))
    assert [(p.phase.precision, p.phase.places) for p in found.phases] == [("nf4", 4)]
    assert [row.fit.fits for row in found.rows] == [False] * 4 + [True] * 4
    assert found.rows[0].remedies == ("precision: nf4", "2 such cards in one node")


def test_eight_trials_share_a_t4_where_one_fitted_before():
    found = plan([config(seed=seed) for seed in range(16)], cards(count=1))
    (phase,) = found.phases
    assert (phase.phase.places, phase.waves) == (8, 2)
    assert sum(row.fit.adapter_bytes * 8 for row in found.rows) <= found.rows[0].fit.room_bytes


def test_larger_adapters_make_more_waves():
    configs = [config(rank=32, targets="all_linear", seed=seed) for seed in range(16)]
    (phase,) = plan(configs, cards(count=1)).phases
    room, own = phase.phase.room_bytes, plan(configs, cards(count=1)).rows[0].fit.adapter_bytes
    assert phase.phase.places == max(n for n in (1, 2, 3, 4, 5, 6, 8) if n * own <= room)
    assert phase.waves == -(-16 // phase.phase.places)


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
    for phase in plan_demands(demands_of(fits, load, target), nodes_of(target, 2.0), ANY, True):
        free, there = 10_000, []
        for one in fits:
            share = round(10_000 * phase.resources_for(one.adapter_bytes)["GPU"])
            if share <= free:
                free, there = free - share, [*there, one]
        together = predict_pack(LLAMA_3_8B, there[0].setting, [one.load for one in there])
        assert together.needed_bytes <= there[0].capacity_bytes


def test_the_users_price_overrides_the_catalogues():
    assert plan(price_per_hour=1.0).price == pytest.approx(plan().gpu_hours)
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
    start = time.perf_counter()
    plan(configs)
    assert time.perf_counter() - start < 5  # a second on an idle machine


def test_the_text_says_what_fits_how_and_what_would_help():
    text = plan_text(plan(target=cards(per_node=1)))
    for words in (
        "4 x NVIDIA T4, 14.56 GiB, compute capability 7.5", "not calibrated", "does not fit: it needs 15.3 GiB",
        "What would make it fit: precision: nf4; or 2 such cards in one node.", "nf4: 4 trials, 4 at a time on 4 cards",
        "0.526 USD an hour", "hardware.price_per_hour overrides it",
    ):  # fmt: skip
        assert words in text
    header = next(line for line in text.splitlines() if line.startswith("precision"))
    assert [name for name in ("base", "adapter", "activations", "workspace") if name in header] == [
        "base", "adapter", "activations", "workspace",
    ]  # fmt: skip


def test_dropout_is_told_where_footprints_differ_in_it_alone():
    both = [replace(PAPER_GRID[0], lora_dropout=share) for share in (0.0, 0.1)]
    assert plan_text(plan(both)).count(" + dropout ") == 1
    assert " + dropout " not in plan_text(plan(both[1:]))


def test_the_texts_components_sum_to_the_peak():
    for line in plan_text(plan()).splitlines():
        cells = line.split()
        if cells[:1] in (["nf4"], ["fp16"]) and cells[1].isdigit():
            peak, *parts = map(float, cells[4:9])
            assert sum(parts) == pytest.approx(peak, abs=0.03)


def test_a_refused_precision_says_why():
    text = plan_text(plan([config("bf16"), config("nf4")]))
    assert "bf16, rank 8, q_v is refused." in text
    assert "Precision bf16 needs a card of compute capability 8.0 or more; NVIDIA T4 has 7.5" in text
    assert "Nothing of this study fits here." in plan_text(plan([config("bf16")]))


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0, "0 s"), (89, "89 s"), (91, "2 min"), (5300, "88 min"), (9000, "2.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_steps_are_those_that_are_trained():
    assert total_steps(workload()) == 29
    assert total_steps(workload(epochs=2.5)) == 73
    assert total_steps(workload(max_steps=7)) == 7


@pytest.mark.parametrize("name", ["t4", "h200"])
def test_a_pass_roofline(name):
    """Twice the rows: twice the products, the same dequantization; checkpointing computes forward again."""
    card, setting = find_gpu(name), MemorySetting("nf4", "fp16")
    load = AdapterLoad(16, ("q_proj", "v_proj"), False, 1, 512, 128)
    one, two = (pass_time(LLAMA_3_8B, setting, Pass((load,) * count), card) for count in (1, 2))
    assert two.products == pytest.approx(2 * one.products)
    assert two.dequantization == one.dequantization
    assert one.seconds >= one.busy
    plain = pass_time(LLAMA_3_8B, dataclasses.replace(setting, gradient_checkpointing=False), Pass((load,)), card)
    assert plain.dequantization == pytest.approx(one.dequantization * 2 / (3 - 4096 * 14336 / 218_103_808))
    assert plain.busy < one.busy
    half = pass_time(LLAMA_3_8B, MemorySetting("fp16", "fp16"), Pass((load,)), card)
    assert half.dequantization == 0


def test_what_was_measured_of_the_h200():
    """Field measurements of a prototype: 31 ms of products and 23 ms of dequantization for one row of 512 tokens."""
    load = AdapterLoad(16, ("q_proj", "v_proj"), False, 1, 512, 512)
    found = pass_time(LLAMA_3_8B, MemorySetting("nf4", "fp16"), Pass((load,)), find_gpu("h200"))
    assert found.products == pytest.approx(0.031, rel=0.15)
    assert found.dequantization == pytest.approx(0.023, rel=0.15)


def test_packs_pay_where_rows_are_short():
    setting = MemorySetting("nf4", "fp16")
    pays = [
        adapters_that_pay(
            LLAMA_3_8B, setting, AdapterLoad(16, ("q_proj",), False, 1, tokens, tokens), find_gpu("t4"), 8192
        )
        for tokens in (64, 256, 1024, 8192)
    ]
    assert pays == sorted(pays, reverse=True)
    assert pays[-1] == 1
    assert pays[0] >= 16
