"""Shares of a machine: closed forms, and brute force over what Ray's ten-thousandths would let in."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import PlanError
from study.plan.places import AdapterBytes, any_that_fit, equal_places
from study.plan.shares import (
    LEVELS,
    MOST_EQUAL,
    MOST_PLACES,
    PARTS,
    PLACES_PER_DEVICE,
    Demand,
    Node,
    device_count,
    own_level,
    places_in_room,
    plan_demands,
    plan_phases,
    sharing,
)
from trainables.settings import HardwareSettings

GPU = HardwareSettings(gpu="t4")
CPU = HardwareSettings(gpu="cpu")
FOUR_CARDS, FOUR_NODES = (Node(8, 4),), (Node(8, 1),) * 4


def search(trials: int, *totals: int, room: int, **more) -> Demand:
    """A search's trials, of which some that were drawn take so many bytes."""
    return Demand("nf4", trials, tuple(map(AdapterBytes, totals)), room, **more)


def grid(*totals: int, room: int, **more) -> Demand:
    """A grid's trials, which take so many bytes."""
    return search(len(totals), *totals, room=room, listed=True, **more)


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
    (phase,) = plan_demands([search(64, 1, room=100, most=16)], (Node(2, 1),), GPU, True)
    assert phase.places == 16
    assert 10_000 - 16 < 16 * ten_thousandths(phase.resources["GPU"]) <= 10_000
    assert 17 * ten_thousandths(phase.resources["GPU"]) > 10_000


def test_trials_spread_over_the_cards_first_and_are_packed_second():
    for trials, share in ((1, 1.0), (4, 1.0), (5, 0.5), (8, 0.5), (9, 0.3333), (28, 0.1428), (1000, 0.125)):
        (phase,) = plan_phases({"nf4": trials}, FOUR_CARDS, GPU, use_gpu=True)
        assert phase.resources["GPU"] == share
        assert phase.places == min(trials, 4 * round(1 / share))


def test_memory_bounds_the_pack_and_the_user_does():
    demand = search(100, 30, room=100)
    (phase,) = plan_demands([demand], (Node(2, 1),), GPU, True)
    assert phase.resources["GPU"] == 0.3333
    hardware = HardwareSettings(gpu="t4", max_adapters_per_gpu=1)
    (phase,) = plan_demands([demand], (Node(2, 1),), hardware, True)
    assert (phase.resources["GPU"], phase.places) == (1.0, 1)


def test_a_larger_adapter_of_the_same_phase_asks_for_more():
    (phase,) = plan_demands([search(100, 10, room=100)], (Node(2, 1),), GPU, True)
    assert [phase.resources_for(size)["GPU"] for size in (10, 12, 13, 26, 50, 51, 81, 100)] == [
        0.125, 0.125, 0.1666, 0.3333, 0.5, 0.6, 1.0, 1.0,
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
    demand = search(trials, min(sizes), room=room)
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
    for _ in range(MOST_PLACES):
        for (rounded, exact), count in list(reached.items()):
            for level in LEVELS:
                key = (rounded + math.floor(10_000 * level / PARTS), exact + level)
                if key[0] <= 10_000 and count < MOST_PLACES:
                    reached[key] = min(count + 1, reached.get(key, 99))
    assert max(exact for _, exact in reached) == PARTS
    assert tuple(PARTS // level for level in LEVELS[::-1] if PARTS % level == 0) == PLACES_PER_DEVICE


def test_of_equal_shares_as_many_fit_a_card_as_it_has_places():
    for places in range(1, MOST_EQUAL + 1):
        share = ten_thousandths(math.floor(10_000 / places) / 10_000)
        assert places * share <= 10_000 < (places + 1) * share


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 100), st.integers(1, 400), st.booleans())
def test_a_searchs_level_is_the_best_of_all_that_keep_the_rules(most, devices, trials, room, ends_together):
    """Brute force over the levels: the most places that memory, the user's bound and the trials' spread allow, and
    where trials end together the fewest that hold rounds as few and as small as those."""
    hardware = HardwareSettings(gpu="t4", max_adapters_per_gpu=most)
    size = min(7, room)
    got = sharing(search(trials, size, room=room, ends_together=ends_together), devices, hardware, True)
    allowed = [
        level for level in PLACES_PER_DEVICE
        if level <= most and level * size <= room and (level - 1) * devices < trials
    ]  # fmt: skip
    fewest = min(level for level in allowed if level >= equal_places(trials, devices, max(allowed)))
    assert (got.places, got.equal) == (fewest if ends_together else max(allowed), False)
    assert places_in_room(size, room) == max(n for n in PLACES_PER_DEVICE if n * size <= room)
    assert own_level(size, room, most) == min(n for n in LEVELS if n * room >= PARTS * size and n * most >= PARTS)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 2**34), st.integers(0, 2**33)), min_size=1, max_size=40),
    room=st.integers(1, 2**36),
    in_a_pass=st.integers(1, 20),
    devices=st.integers(1, 4),
    ends_together=st.booleans(),
)
def test_a_grids_equal_places_hold_any_of_its_trials(sizes, room, in_a_pass, devices, ends_together):
    """In every order in which they may meet on a card; else trials ask for their own, and less often wait."""
    adapters = tuple(AdapterBytes(min(state, room), min(rows, room - min(state, room))) for state, rows in sizes)
    demand = Demand("nf4", len(sizes), adapters, room, most=16, in_a_pass=in_a_pass, listed=True)
    demand = dataclasses.replace(demand, ends_together=ends_together)
    (phase,) = plan_demands([demand], (Node(8, devices),), GPU, True)
    rounds = phase.rounds([one.total_bytes for one in adapters], devices)
    assert sum(map(sum, rounds)) == len(sizes)
    fits = any_that_fit(adapters, room, in_a_pass)
    wanted = min(16, math.ceil(len(sizes) / devices))
    if phase.equal:
        assert phase.per_device <= min(fits, wanted)
        assert phase.per_device == (
            equal_places(len(sizes), devices, min(fits, wanted)) if ends_together else min(fits, wanted)
        )
        assert {phase.resources_for(one.total_bytes)["GPU"] for one in adapters} == {phase.resources["GPU"]}
    else:
        assert fits < wanted
        assert max(fits, 1) * devices * len(rounds) < len(sizes) or fits == 0


def test_sixteen_trials_of_four_footprints_are_one_pack():
    """Llama-3-8B in NF4 under 14.56 GiB, in MiB: with shares of their own 14 fitted, and two trained alone."""
    sizes = [269, 538, 322, 859] * 4
    (phase,) = plan_demands([grid(*sizes, room=8742, most=16, in_a_pass=16)], (Node(16, 1),), GPU, True)
    assert (phase.places, phase.resources["GPU"], phase.equal) == (16, 0.0625, True)
    assert phase.rounds(sizes, 1) == [(16,)]
    (own,) = plan_demands([search(16, *sizes, room=8742, most=16)], (Node(16, 1),), GPU, True)
    assert own.rounds(sizes, 1) == [(14,), (2,)]


def test_large_micro_batches_take_turns_in_passes():
    """Of 8 rows of 512 tokens a usual pass holds two: all states are there, and two micro-batches' rows."""
    adapters = (AdapterBytes(5, 100),) * 12
    demand = Demand("nf4", 12, adapters, 270, most=16, in_a_pass=2, listed=True)
    assert sharing(demand, 1, GPU, True).places == 12
    assert sharing(dataclasses.replace(demand, room_bytes=255), 1, GPU, True).places == 6
    assert sharing(dataclasses.replace(demand, in_a_pass=12), 1, GPU, True).places == 2


def test_what_is_stopped_early_keeps_all_places():
    demand = grid(*[10] * 20, room=1000, most=16)
    assert sharing(demand, 1, GPU, True).places == 10
    assert sharing(dataclasses.replace(demand, ends_together=False), 1, GPU, True).places == 16


def test_few_large_trials_leave_many_small_ones_their_places():
    """One adapter takes half the room: any 16 do not fit, so each trial asks for its own share."""
    sizes = [500, *[10] * 60]
    (phase,) = plan_demands([grid(*sizes, room=1000, most=16)], (Node(2, 1),), GPU, True)
    assert phase.equal  # 500 + 15 x 10 fit
    (phase,) = plan_demands([grid(600, 600, *[10] * 60, room=1000, most=16)], (Node(2, 1),), GPU, True)
    assert not phase.equal
    assert phase.rounds([600, 600, *[10] * 60], 1) == [(7,), (7,), (16,), (16,), (16,)]
    assert phase.places == 16  # not fewer: with unlike shares trials do not end in rounds
    assert phase.resources_for(10)["GPU"] == 0.0625
    assert phase.resources_for(600)["GPU"] == 0.6


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
    (phase,) = plan_demands([search(9, 40, room=100)], (Node(8, 0),), CPU, False)
    assert (phase.resources, phase.places) == ({"CPU": 4.0}, 2)
    assert phase.resources_for(60) == {"CPU": 4.8}
    assert phase.resources_for(81) == {"CPU": 8.0}


def test_precisions_without_trials_have_no_phase_and_the_order_stays():
    phases = plan_phases({"nf4": 3, "bf16": 0, "fp16": 2}, FOUR_CARDS, GPU, use_gpu=True)
    assert [phase.precision for phase in phases] == ["nf4", "fp16"]
