"""What is remembered of trials: in tables, and any sequence of words against the list of all that was said."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.actors.trial_ledger import TrialLedger
from trainables.gauges import PredictedMemory
from trainables.protocol import STAGES, ResidentStatus, Stage

Said = list[tuple[str, dict[str, Stage]]]  # the host that speaks, and its residents' stages


def status(trial_id: str, stage: Stage) -> ResidentStatus:
    return ResidentStatus(trial_id, stage, 0, 4)


def told(said: Said) -> TrialLedger:
    ledger = TrialLedger()
    for host, stages in said:
        ledger.note_statuses(host, [status(trial_id, stage) for trial_id, stage in stages.items()])
    return ledger


@pytest.mark.parametrize(
    ("said", "stages", "trials", "measuring"),
    [
        ([], {}, 0, False),
        ([("one", {"a": "loading"})], {"a": "loading"}, 1, True),
        ([("one", {"a": "measuring", "b": "training"})], {"a": "measuring", "b": "training"}, 2, True),
        ([("one", {"a": "measuring"}), ("one", {"a": "training"})], {"a": "training"}, 1, False),
        ([("one", {"a": "ended", "b": "training"}), ("one", {"b": "training"})], {"b": "training"}, 2, False),
        ([("one", {"b": "training"}), ("two", {"b": "measuring"}), ("one", {})], {"b": "measuring"}, 1, True),
        ([("one", {"b": "training"}), ("one", {})], {}, 1, False),
    ],
)
def test_the_last_word_on_each_trial(said: Said, stages: dict[str, Stage], trials: int, measuring: bool) -> None:
    ledger = told(said)
    assert ledger.statuses() == {trial_id: status(trial_id, stage) for trial_id, stage in stages.items()}
    assert (ledger.trials, ledger.measuring) == (trials, measuring)


words = st.tuples(
    st.sampled_from(["one", "two", "three"]),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(STAGES), max_size=4),
)


@given(st.lists(words, max_size=12))
def test_a_trial_is_where_it_was_spoken_of_last_unless_that_host_let_it_go(said: Said) -> None:
    """By definition: the host of the last word that names the trial says so still in its own last word."""
    ledger = told(said)
    last = dict(said)  # each host's last word
    expected = {}
    for trial_id in "abcd":
        speakers = [host for host, stages in said if trial_id in stages]
        if speakers and trial_id in last[speakers[-1]]:
            expected[trial_id] = status(trial_id, last[speakers[-1]][trial_id])
    assert ledger.statuses() == expected
    assert ledger.trials == len({trial_id for _, stages in said for trial_id in stages})
    assert ledger.measuring == any(one.stage in ("loading", "measuring") for one in expected.values())


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_incarnations_count_up_from_zero_for_each_trial(asked: list[str]) -> None:
    ledger = TrialLedger()
    assert [ledger.next_incarnation(trial_id) for trial_id in asked] == [
        asked[:place].count(trial_id) for place, trial_id in enumerate(asked)
    ]


Event = tuple[str, str]  # trial, what happens to it
events = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["begins", "ends", "host dies"])), max_size=20)


@given(events)
def test_a_death_counts_where_the_trial_was_at_work_alone(happened: list[Event]) -> None:
    """By definition: the trial's event before the death is that it began to work alone."""
    ledger = TrialLedger()
    for place, (trial_id, what) in enumerate(happened):
        if what != "host dies":
            ledger.note_alone(trial_id, what == "begins")
            continue
        own = [one for other, one in happened[: place + 1] if other == trial_id]
        alone = sum(pair == ("begins", "host dies") for pair in pairwise(own))
        assert ledger.note_host_death(trial_id) == alone


def test_a_host_is_predicted_from_what_its_own_residents_take() -> None:
    ledger = TrialLedger()
    ledger.note_predicted("a", PredictedMemory(5, 100))
    assert ledger.predicted_host_bytes([status("a", "training")]) == {"memory_predicted_bytes": 105.0}
    assert ledger.predicted_host_bytes([status("a", "training"), status("b", "training")]) == {}
    ledger.note_predicted("b", PredictedMemory(7, 100))
    both = [status("a", "training"), status("b", "training")]
    assert ledger.predicted_host_bytes(both) == {"memory_predicted_bytes": 112.0}
