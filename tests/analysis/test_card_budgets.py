"""Budgets that are a card's memory: what trials need of it is compared, not the allocator's peak alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.figures.front_figure import front_figure
from analysis.figures.front_rows import budget_line, front_points, infeasible_points
from analysis.load import Study
from analysis.wording import headline
from study.reporting.budget_card import budget_text
from tests.support.study_directory import GIB, on_cards


def beside(study: Study) -> float:
    """The most that a complete trial of `on_cards` needs beside its peak."""
    peaks = [one.measurements["peak_memory_bytes"] for one in study.records if one.status == "complete"]
    return 0.1 * max(peaks) + 0.5 * GIB


def test_the_first_sentence_names_the_card_and_what_fits_it(study: Study) -> None:
    assert headline(study).startswith("Best perplexity with peak memory at most 1.25 GiB")
    measured = on_cards(study)
    assert headline(measured).startswith("Best perplexity with a card of 1.25 GiB")
    assert headline(replace(measured, memory_limit=1.25 * GIB)).startswith(
        "Best perplexity with a memory limit of 1.25"
    )
    assert headline(replace(measured, memory_limit=0.1 * GIB)).startswith(
        "No complete trial fits a memory limit of 0.10 GiB. The nearest"
    )


def test_a_context_alone_can_make_what_seems_to_fit_too_large(study: Study) -> None:
    measured = on_cards(study)
    least = min(one.measurements["peak_memory_bytes"] for one in measured.records if one.status == "complete")
    cost = next(one for one in measured.objectives if one.metric == "peak_memory_bytes")
    card = replace(cost, reference=1.1 * least + 0.4 * GIB)
    others = tuple(one for one in measured.objectives if one is not cost)
    assert "No complete trial fits a card of" in headline(replace(measured, objectives=(*others, card)))


def test_the_budget_line_leaves_room_for_fragments_and_context(study: Study) -> None:
    measured = on_cards(study)
    line, plain = budget_line(measured, front_points(measured)), budget_line(study, front_points(study))
    assert line is not None
    assert plain is not None
    assert line["label"] == plain["label"] == "budget 1.25 GiB"
    assert line["x"] == pytest.approx(plain["x"] - beside(measured) / GIB)
    figure = front_figure(measured)
    assert figure is not None
    assert "for the allocator’s fragments and CUDA’s context" in figure.caption


def test_what_did_not_fit_stands_at_its_peak(study: Study) -> None:
    infeasible = next(one for one in study.records if one.status == "infeasible" and one.infeasible)
    facts = {"requested_bytes": 3 * GIB, "available_bytes": 2 * GIB, "source": "predicted",
             "components": {"base_linears": 2 * GIB, "fragments": GIB // 2, "context": GIB // 2}}  # fmt: skip
    records = tuple(replace(one, infeasible=facts) if one is infeasible else one for one in study.records)
    points = {row["trial_id"]: row for row in infeasible_points(replace(study, records=records))}
    assert points[infeasible.trial_id]["x"] == pytest.approx(2.0)
    assert points[infeasible.trial_id]["asked"] == "3.00 GiB"


def test_the_budget_card_says_what_a_card_must_have(study: Study) -> None:
    text = budget_text(on_cards(study), 8 * GIB, 0.02)
    assert "needed of a card" in text
    assert "what the allocator held at most, and CUDA's context" in text
    assert "needed of a card" not in budget_text(study, 8 * GIB, 0.02)
