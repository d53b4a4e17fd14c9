"""Which trials a search consists of: their names, their order, and how they are dealt out."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from search_spaces.parameters import parse_space
from study.search.planned_trials import shares
from study.search.study_search import Proposal
from tests.support.search.searches import (
    SPACE,
    ask_all,
    search_in,
    trial_names,
)


def test_a_grid_is_asked_for_in_its_order_whatever_phase_comes_first(tmp_path: Path) -> None:
    names = {f"t{number:03}": config for number, config in enumerate(SPACE.grid([3, 4]))}
    search = search_in(tmp_path, seeds=(3, 4))
    for_nf4, for_bf16 = ask_all(search, "nf4"), ask_all(search, "bf16")
    assert {proposal.trial_id: proposal.config for proposal in for_nf4 + for_bf16} == names
    for precision, asked in (("nf4", for_nf4), ("bf16", for_bf16)):
        assert [one.trial_id for one in asked] == [name for name in names if names[name].precision == precision]
        assert search.count(precision) == len(asked) == {"nf4": 16, "bf16": 8}[precision]
    assert search.proposals() == for_nf4 + for_bf16
    assert [one.trial_id for one in search.unfinished()] == list(names)


def test_a_shuffled_grid_keeps_its_names_and_its_order_also_after_a_restart(tmp_path: Path) -> None:
    grid = enumerate(SPACE.grid([3, 4]))
    nf4 = {f"t{number:03}": config for number, config in grid if config.precision == "nf4"}
    places = [tmp_path / name for name in ("whole", "torn", "other")]
    for folder in places:
        folder.mkdir()
    whole = ask_all(search_in(places[0], seeds=(3, 4), shuffled=True), "nf4")
    torn = search_in(places[1], seeds=(3, 4), shuffled=True)
    before = [torn.ask("nf4") for _ in range(5)]
    after = ask_all(search_in(places[1], seeds=(3, 4), shuffled=True), "nf4")
    assert [*before, *after] == whole
    assert {one.trial_id: one.config for one in whole} == nf4
    assert [one.trial_id for one in whole] != sorted(one.trial_id for one in whole)
    assert whole != ask_all(search_in(places[2], seeds=(3, 4), seed=8, shuffled=True), "nf4")


def test_trials_are_dealt_out_evenly_and_named_precision_after_precision(tmp_path: Path) -> None:
    search = search_in(tmp_path, "random", trials=7)
    assert (search.count("bf16"), search.count("nf4")) == (4, 3)
    assert [one.trial_id for one in ask_all(search, "nf4", "bf16")] == ["t004", "t005", "t006", *trial_names(4)]
    assert {one.config.seed for one in search.proposals()} == {3}


def test_random_trials_do_not_depend_on_the_order_of_phases(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = ask_all(search_in(tmp_path, "random"), "bf16", "nf4")
    assert ask_all(search_in(tmp_path / "other", "random"), "nf4", "bf16") == one[5:] + one[:5]


def test_more_trials_than_configurations_end_early_without_repeating(tmp_path: Path) -> None:
    space = parse_space({**SPACE.to_mapping(), "learning_rate": 1e-4})
    search = search_in(tmp_path, "tpe", space=space, trials=40)
    assert (search.count("bf16"), search.count("nf4")) == (4, 8)
    asked = ask_all(search, "bf16", "nf4")
    assert {one.config for one in asked} == set(space.grid([3]))
    assert len(asked) == 12


def test_what_is_to_be_tried_first_comes_first_in_its_precision(tmp_path: Path) -> None:
    first = [config for config in SPACE.grid([3]) if config.precision == "nf4" and config.rank == 16][:3]
    search = search_in(tmp_path, "tpe", trials=5, try_first=tuple(first))
    assert (search.count("bf16"), search.count("nf4")) == (2, 3)  # as many as were to be tried, the others the rest
    asked = ask_all(search, "bf16", "nf4")
    assert [one.trial_id for one in asked] == trial_names(5)
    assert [one.config for one in asked][2:] == first
    assert len({one.config for one in asked}) == 5
    assert ask_all(search_in(tmp_path, "tpe", trials=5, try_first=tuple(first)), "nf4") == []


def test_names_have_a_digit_for_every_trial(tmp_path: Path) -> None:
    search = search_in(tmp_path, "random", trials=2000)
    assert (search.ask("nf4") or Proposal("", SPACE.grid([3])[0])).trial_id == "t1000"
    assert (search.ask("bf16") or Proposal("", SPACE.grid([3])[0])).trial_id == "t0000"


@given(st.integers(0, 60), st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=4))
def test_shares_are_even_and_within_their_room(trials: int, room: list[int | None]) -> None:
    dealt = shares(trials, room)
    most = [trials if one is None else one for one in room]
    assert sum(dealt) == min(trials, sum(most))
    assert all(0 <= share <= bound for share, bound in zip(dealt, most, strict=True))
    for (one, bound), (other, _) in itertools.permutations(zip(dealt, most, strict=True), 2):
        assert one == bound or one >= other - 1  # who gets less than others has no room left
    free = [share for share, bound in zip(dealt, most, strict=True) if share < bound]
    assert free == sorted(free, reverse=True)  # the first get what is over


def test_shares_by_hand() -> None:
    assert shares(7, [None, None]) == [4, 3]
    assert shares(8, [2, None, None]) == [2, 3, 3]
    assert shares(9, [3, 2]) == [3, 2]


def test_shares_count_what_has_been_dealt_already() -> None:
    assert shares(5, [None, None], [0, 3]) == [2, 3]
    assert shares(3, [None, None], [0, 3]) == [0, 3]
    assert shares(9, [2, None], [1, 1]) == [2, 7]
