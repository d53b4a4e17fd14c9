"""Shares of a machine: closed forms, and brute force over what Ray's ten-thousandths would let in."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import PlanError
from study.plan.shares import (
    PLACES_PER_DEVICE,
    Demand,
    Node,
    adapters_per_device,
    device_count,
    places_in_room,
    plan_demands,
    plan_phases,
)
from trainables.settings import HardwareSettings

GPU = HardwareSettings(gpu="t4")
CPU = HardwareSettings(gpu="cpu")
FOUR_CARDS, FOUR_NODES = (Node(8, 4),), (Node(8, 1),) * 4


def ten_thousandths(share: float) -> int:
    return round(share * 10_000)


def cards_in_use(phase, nodes) -> int:
    """How many cards the phase's trials hold when each takes a place on the fullest card that has one (as Ray
    packs)."""
    asked = ten_thousandths(phase.resources["GPU"])
    free = [10_000] * sum(int(node.gpus) for node in nodes)
    for _ in range(phase.places):
        card = min((card for card in range(len(free)) if free[card] >= asked), key=lambda card: free[card])
        free[card] -= asked
    return sum(left < 10_000 for left in free)


@pytest.mark.parametrize("nodes", [FOUR_CARDS, FOUR_NODES])
def test_the_paper_grid_uses_all_four_cards_of_one_node_or_of_four(nodes):
    for phase in plan_phases({"fp16": 4, "nf4": 4}, nodes, GPU, use_gpu=True):
        assert (phase.places, phase.resources["GPU"]) == (4, 1.0)
        assert cards_in_use(phase, nodes) == 4


def test_many_trials_on_one_card_fill_it_and_no_more():
    (phase,) = plan_demands([Demand("nf4", 64, adapter_bytes=1, room_bytes=100, most=16)], (Node(2, 1),), GPU, True)
    assert phase.places == 16
    assert 10_000 - 16 < 16 * ten_thousandths(phase.resources["GPU"]) <= 10_000
    assert 17 * ten_thousandths(phase.resources["GPU"]) > 10_000


def test_trials_spread_over_the_cards_first_and_are_packed_second():
    for trials, share in ((1, 1.0), (4, 1.0), (5, 0.5), (8, 0.5), (9, 0.3333), (32, 0.125), (1000, 0.125)):
        (phase,) = plan_phases({"nf4": trials}, FOUR_CARDS, GPU, use_gpu=True)
        assert phase.resources["GPU"] == share
        assert phase.places == min(trials, 4 * round(1 / share))


def test_memory_bounds_the_pack_and_the_user_does():
    demand = Demand("nf4", 100, adapter_bytes=30, room_bytes=100)
    (phase,) = plan_demands([demand], (Node(2, 1),), GPU, True)
    assert phase.resources["GPU"] == 0.3333
    hardware = HardwareSettings(gpu="t4", max_adapters_per_gpu=1)
    (phase,) = plan_demands([demand], (Node(2, 1),), hardware, True)
    assert (phase.resources["GPU"], phase.places) == (1.0, 1)


def test_a_larger_adapter_of_the_same_phase_asks_for_more():
    (phase,) = plan_demands([Demand("nf4", 100, adapter_bytes=10, room_bytes=100)], (Node(2, 1),), GPU, True)
    assert [phase.resources_for(size)["GPU"] for size in (10, 12, 13, 26, 50, 51, 100)] == [
        0.125, 0.125, 0.1666, 0.3333, 0.5, 1.0, 1.0,
    ]  # fmt: skip
    with pytest.raises(PlanError, match="101 B with its rows, and 100 B are left"):
        phase.resources_for(101)


@given(
    room=st.integers(1, 2**36),
    sizes=st.lists(st.integers(1, 2**36), min_size=1, max_size=24),
    trials=st.integers(1, 200),
    bound=st.one_of(st.none(), st.integers(1, 32)),
)
def test_no_card_is_given_more_adapters_than_its_room_holds(room, sizes, trials, bound):
    """Any trials that Ray's arithmetic lets onto one card have at most the room's bytes together."""
    sizes = [1 + size % room for size in sizes]
    hardware = HardwareSettings(gpu="t4", max_adapters_per_gpu=bound)
    demand = Demand("nf4", trials, adapter_bytes=min(sizes), room_bytes=room)
    (phase,) = plan_demands([demand], FOUR_CARDS, hardware, True)
    free, bytes_on_card, count = 10_000, 0, 0
    for size in sizes:
        share = ten_thousandths(phase.resources_for(size)["GPU"])
        if share <= free:
            free, bytes_on_card, count = free - share, bytes_on_card + size, count + 1
    assert bytes_on_card <= room
    assert count <= (bound or 8)


def test_rounding_down_never_hides_that_shares_exceed_a_card():
    """All multisets of up to 16 shares whose ten-thousandths fit have an exact sum of at most 1 (by dynamic
    programming)."""
    reached = {(0, 0): 0}  # (rounded sum, exact sum in 240ths) -> fewest shares
    for _ in range(16):
        for (rounded, exact), count in list(reached.items()):
            for places in PLACES_PER_DEVICE:
                key = (rounded + math.floor(10_000 / places), exact + 240 // places)
                if key[0] <= 10_000 and count < 16:
                    reached[key] = min(count + 1, reached.get(key, 99))
    assert max(exact for _, exact in reached) == 240
    assert all(240 % places == 0 for places in PLACES_PER_DEVICE)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 100), st.integers(1, 400))
def test_the_level_is_the_best_of_all_that_keep_the_rules(most, devices, trials, room):
    """Brute force over the levels: the most places that memory, the user's bound and the trials' spread allow."""
    hardware = HardwareSettings(gpu="t4", max_adapters_per_gpu=most)
    got = adapters_per_device(
        Demand("nf4", trials, adapter_bytes=min(7, room), room_bytes=room), devices, hardware, True
    )
    allowed = [
        level for level in PLACES_PER_DEVICE
        if level <= most and level * min(7, room) <= room and (level - 1) * devices < trials
    ]  # fmt: skip
    assert got == max(allowed)
    assert places_in_room(min(7, room), room) == max(n for n in PLACES_PER_DEVICE if n * min(7, room) <= room)


def test_a_base_over_two_cards_takes_two_of_one_node_in_one_bundle():
    demand = Demand("fp16", 4, cards=2)
    (phase,) = plan_demands([demand], FOUR_CARDS, GPU, True)
    assert phase.resources == {"CPU": 0.0, "GPU": 2.0}
    assert (phase.places, phase.cards) == (2, 2)
    nodes = (Node(8, 1), Node(8, 3), Node(8, 5))
    assert plan_demands([demand], nodes, GPU, True)[0].places == sum(int(node.gpus) // 2 for node in nodes)


@pytest.mark.parametrize(
    ("nodes", "gpus", "words"),
    [
        (FOUR_NODES, None, "fp16 needs 2 cards of one node .* the largest node has 1. Add a node with 2 cards"),
        (FOUR_CARDS, 1, "fp16 needs 2 cards of one node .* hardware.gpus allows 1. Raise it to 2"),
        ((Node(8, 0),), None, "there is no GPU here"),
        ((), None, "there is no GPU here"),
    ],
)
def test_what_no_node_can_ever_run_is_refused_with_the_numbers(nodes, gpus, words):
    with pytest.raises(PlanError, match=words):
        plan_demands([Demand("fp16", 1, cards=2)], nodes, HardwareSettings(gpu="t4", gpus=gpus), True)


def test_the_cards_are_at_most_those_that_the_study_may_use():
    assert device_count(FOUR_CARDS, HardwareSettings(gpu="t4", gpus=3), True) == 3
    assert device_count(FOUR_NODES, HardwareSettings(gpu="t4", gpus=9), True) == 4
    (phase,) = plan_phases({"nf4": 6}, FOUR_CARDS, HardwareSettings(gpu="t4", gpus=2), use_gpu=True)
    assert (phase.places, phase.resources["GPU"]) == (6, 0.3333)
    assert cards_in_use(phase, FOUR_CARDS) == 2


@pytest.mark.parametrize(("cpus", "trials"), itertools.product((1, 2, 3, 16, 96.5), (1, 2, 3, 7, 30)))
def test_cpu_hosts_share_cores_likewise(cpus, trials):
    nodes = (Node(cpus, 0), Node(cpus + 1, 0), Node(0, 0))  # a head node that offers no core holds no host
    (phase,) = plan_phases({"fp32": trials}, nodes, CPU, use_gpu=False)
    per_host = min(4, math.ceil(trials / 2))
    assert set(phase.resources) == {"CPU"}
    assert per_host * ten_thousandths(phase.resources["CPU"]) <= ten_thousandths(cpus)
    assert phase.resources["CPU"] == pytest.approx(cpus / per_host, abs=1e-4)
    assert phase.places == min(trials, 2 * per_host)


def test_memory_of_a_cpu_host_bounds_its_pack():
    (phase,) = plan_demands([Demand("fp32", 9, adapter_bytes=40, room_bytes=100)], (Node(8, 0),), CPU, False)
    assert (phase.resources, phase.places) == ({"CPU": 4.0}, 2)
    assert phase.resources_for(60) == {"CPU": 8.0}


def test_precisions_without_trials_have_no_phase_and_the_order_stays():
    phases = plan_phases({"nf4": 3, "bf16": 0, "fp16": 2}, FOUR_CARDS, GPU, use_gpu=True)
    assert [phase.precision for phase in phases] == ["nf4", "fp16"]
