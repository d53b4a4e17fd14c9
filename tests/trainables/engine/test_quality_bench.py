"""What a trial has learned is shown beside the base model and the reference."""

from __future__ import annotations

import math

import pytest

from tests.support.small_engines import Letters, config, join, letter_rows, make_engine, run
from trainables.settings import GenerationSettings


def test_held_out_questions_stand_beside_their_reference_and_how_likely_it_is():
    """The perplexity of a row's reference is that of its own nats, as the evaluation summed them."""
    engine = make_engine(generation=GenerationSettings((), 4, held_out=2))
    join(engine, {"a": config(rate=5e-3)})
    outcome = run(engine)["a"]
    rows_of, rows_there = outcome.eval_rows, letter_rows(6, 2).rows
    assert len(outcome.samples) == 2
    for number, sample in enumerate(outcome.samples):
        row = rows_there[number]
        assert sample["prompt"] == Letters().decode(list(row.tokens[: row.target_start]))
        assert sample["reference"] == Letters().decode(list(row.tokens[row.target_start :]))
        expected = math.exp(rows_of["nats"][number] / rows_of["tokens"][number])
        assert sample["tuned_perplexity"] == pytest.approx(expected, rel=1e-9)
        assert sample["base_perplexity"] > sample["tuned_perplexity"]  # it has learned something
        assert len(sample["tuned"]) == len(sample["base"]) == 4
        assert sample["tuned"] != sample["base"]
