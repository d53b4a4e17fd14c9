"""What a continued study is held to: every difference at once, and what may be accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import ConfigError
from study.run.resumption.basis import BASE_CONFIG, Basis
from study.run.resumption.changes import ACCEPTABLE, continued
from trainables.comparability import state_basis
from trainables.settings import BaseModelSettings, DatasetSettings, TrialSettings

SETTINGS = TrialSettings(BaseModelSettings("a/b"), DatasetSettings("mine"))
STATES = {**state_basis("weights", "data", SETTINGS), BASE_CONFIG: "config"}
WAS = Basis(STATES, {"rows": {"train": 32, "eval": 4}, "base_model": {"path": "a/b", "kind": "hub"}})
STUDY = Path("/somewhere/study")


def with_changed(*names: str) -> Basis:
    """The basis with other values under these names."""
    return replace(WAS, states={**STATES, **{name: f"another {name}" for name in names}})


@given(st.sets(st.sampled_from(sorted(STATES))), st.booleans())
def test_all_differences_are_refused_at_once_and_data_alone_may_be_accepted(names: set[str], accept: bool) -> None:
    refused = {name for name in names if not (accept and name in ACCEPTABLE)}
    now = with_changed(*names)
    if not refused:
        found = continued(STUDY, WAS, now, accept)
        assert found.states == now.states
        assert [set(change) for change in found.changes] == ([names] if names else [])
        return
    with pytest.raises(ConfigError) as caught:
        continued(STUDY, WAS, now, accept)
    assert len(caught.value.faults) == len(refused)
    assert ("--accept-changed-data" in str(caught.value)) == bool(refused.intersection(ACCEPTABLE))


def test_an_accepted_change_stays_known() -> None:
    first = continued(STUDY, WAS, with_changed("dataset.fingerprint"), True)
    again = continued(STUDY, first, with_changed("dataset.fingerprint"), False)
    assert again.changes == first.changes
    assert again.changes[0]["dataset.fingerprint"] == {"was": "data", "now": "another dataset.fingerprint"}
    back = continued(STUDY, again, WAS, True)
    assert len(back.changes) == 2


def test_since_when_it_is_known_stays() -> None:
    was = replace(WAS, since="records", states={"dataset.fingerprint": "data"})
    assert continued(STUDY, was, WAS, False) == replace(WAS, since="records")


def said(was: Basis, now: Basis) -> str:
    with pytest.raises(ConfigError) as caught:
        continued(STUDY, was, now, False)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "remedy"), [("hub", "Set base_model.revision to weights"), ("folder", "Put the")])
def test_a_model_of_the_hub_is_brought_back_by_its_commit(kind: str, remedy: str) -> None:
    now = with_changed("base_model.sha256")
    assert remedy in said(WAS, replace(now, facts={"base_model": {"path": "a/b", "kind": kind}}))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"rows": {"train": 40, "eval": 4}}, "32 train, 4 eval, tokens data; it gives 40 train, 4 eval, tokens anoth"),
        ({}, "it gives tokens another dat"),
        ({"tokenizer": "b" * 20}, "the tokenizer has changed, it was aaaaaaaaaaaa and is bbbbbbbbbbbb"),
        ({"dataset": {"train_file": "rows.jsonl"}}, 'dataset = "rows.jsonl"'),
        ({"dataset": {"name": "pubmedqa", "train_file": None, "source": "sample"}}, 'dataset = "sample"'),
    ],
)
def test_data_are_said_by_their_rows_and_their_tokenizer(facts: dict[str, Any], words: str) -> None:
    was = replace(WAS, facts={**WAS.facts, "tokenizer": "a" * 20})
    assert words in said(was, replace(with_changed("dataset.fingerprint"), facts=facts))


def test_an_earlier_version_s_unknown_settings_are_no_difference() -> None:
    now = with_changed("training.epochs", "base_model.config")
    assert continued(STUDY, Basis({"dataset.fingerprint": "data"}), now, False).states == now.states
