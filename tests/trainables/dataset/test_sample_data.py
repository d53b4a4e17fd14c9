"""The sample shipped with the project: PubMedQA's form, enough rows, balanced decisions, short texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import groupby
from typing import Any

import pytest

from trainables.dataset.pubmedqa import ANSWERS, SAMPLE_FILE, pubmedqa_pool

README = SAMPLE_FILE.with_name("README.md")
KEYS = {"QUESTION", "CONTEXTS", "LABELS", "MESHES", "final_decision", "LONG_ANSWER"}
SHARES = {"yes": (0.42, 0.58), "no": (0.22, 0.38), "maybe": (0.12, 0.28)}  # about 50, 30 and 20 %, each within 8 %
LONGEST_RUN = 6  # rows of one decision after each other: the order is mixed


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice in one object"
        return dict(pairs)

    loaded: dict[str, dict[str, Any]] = json.loads(SAMPLE_FILE.read_text(encoding="utf-8"), object_pairs_hook=distinct)
    return loaded


def _texts(row: dict[str, Any]) -> list[str]:
    return [
        row["QUESTION"],
        *row["CONTEXTS"],
        *row["LABELS"],
        *row["MESHES"],
        row["final_decision"],
        row["LONG_ANSWER"],
    ]


def _words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def _outside(rows: dict[str, dict[str, Any]], sizes: dict[str, int], low: int, high: int) -> dict[str, int]:
    assert sizes.keys() == rows.keys()
    return {row_id: size for row_id, size in sizes.items() if not low <= size <= high}


def test_there_are_enough_rows_with_ids_in_sequence(rows: dict[str, dict[str, Any]]) -> None:
    assert len(rows) >= 128
    assert list(rows) == [f"lf-{number:04d}" for number in range(1, len(rows) + 1)]


def test_every_row_has_the_keys_of_the_form_and_no_other(rows: dict[str, dict[str, Any]]) -> None:
    assert {row_id: set(row) ^ KEYS for row_id, row in rows.items() if set(row) != KEYS} == {}


def test_every_text_is_there_and_tidy(rows: dict[str, dict[str, Any]]) -> None:
    for row_id, row in rows.items():
        assert 1 <= len(row["CONTEXTS"]) <= 2, row_id
        assert len(row["LABELS"]) == len(row["CONTEXTS"]), row_id
        assert row["MESHES"], row_id
        for text in _texts(row):
            assert isinstance(text, str), (row_id, text)
            assert text, row_id
            assert text == " ".join(text.split()), (row_id, text)
        assert row["QUESTION"].endswith("?"), row_id
        assert all(text.endswith(".") for text in (*row["CONTEXTS"], row["LONG_ANSWER"])), row_id


@pytest.mark.parametrize("key", ["QUESTION", "CONTEXTS", "LONG_ANSWER"])
def test_no_two_rows_say_the_same(rows: dict[str, dict[str, Any]], key: str) -> None:
    counts = Counter(" ".join(re.findall(r"\w+", str(row[key]).lower())) for row in rows.values())
    assert [text for text, count in counts.items() if count > 1] == []


def test_questions_are_not_near_copies_of_each_other(rows: dict[str, dict[str, Any]]) -> None:
    words = [(row_id, set(re.findall(r"\w+", row["QUESTION"].lower()))) for row_id, row in rows.items()]
    pairs = ((one, other) for n, one in enumerate(words) for other in words[:n])
    alike = [(a, b) for (a, x), (b, y) in pairs if len(x & y) > 0.5 * len(x | y)]
    assert alike == []  # Jaccard similarity of the word sets, at most one half


def test_every_decision_is_there_with_its_share(rows: dict[str, dict[str, Any]]) -> None:
    counts = Counter(row["final_decision"] for row in rows.values())
    assert set(counts) == set(ANSWERS) == set(SHARES)
    shares = {decision: counts[decision] / len(rows) for decision in SHARES}
    assert all(low <= shares[decision] <= high for decision, (low, high) in SHARES.items()), shares


def test_decisions_come_in_mixed_order(rows: dict[str, dict[str, Any]]) -> None:
    runs = groupby(row["final_decision"] for row in rows.values())
    assert max(len(list(run)) for _, run in runs) <= LONGEST_RUN


def test_texts_are_short(rows: dict[str, dict[str, Any]]) -> None:
    assert _outside(rows, {row_id: _words(*row["CONTEXTS"]) for row_id, row in rows.items()}, 35, 65) == {}
    assert _outside(rows, {row_id: _words(row["LONG_ANSWER"]) for row_id, row in rows.items()}, 12, 22) == {}
    assert _outside(rows, {row_id: _words(row["QUESTION"]) for row_id, row in rows.items()}, 4, 22) == {}


def test_no_context_gives_the_decision_away_as_a_word(rows: dict[str, dict[str, Any]]) -> None:
    given = re.compile(rf"\b({'|'.join(ANSWERS)})\b", re.IGNORECASE)
    assert [row_id for row_id, row in rows.items() if any(map(given.search, row["CONTEXTS"]))] == []


def test_the_reader_takes_every_row(rows: dict[str, dict[str, Any]]) -> None:
    examples, official_test = pubmedqa_pool("sample")
    assert [(example.row_id.removeprefix("row "), example.label) for example in examples] == [
        (row_id, row["final_decision"]) for row_id, row in rows.items()
    ]
    assert official_test == frozenset()


def test_the_readme_counts_right_and_says_what_it_is_not(rows: dict[str, dict[str, Any]]) -> None:
    text = README.read_text(encoding="utf-8")
    counts = Counter(row["final_decision"] for row in rows.values())
    assert f"{len(rows)} short medical questions" in text
    assert f"`yes` ({counts['yes']} rows), `no` ({counts['no']}) or `maybe` ({counts['maybe']})" in text
    assert all(phrase in text for phrase in ("not medical advice", "not a benchmark", "Apache-2.0"))
