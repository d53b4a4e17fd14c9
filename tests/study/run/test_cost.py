"""The hours and the price of the cards that a study held."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.records.layout import COST_FILE
from study.run.cost import cost_of, counted
from tests.support.plan_cases import GIB, cards, cpus


def clock(*times: float) -> Iterator[float]:
    return iter(times)


def test_hours_are_those_of_all_cards_and_the_price_is_the_studys_or_the_catalogues() -> None:
    listed, own = cost_of(cards(count=4), 1800.0, None), cost_of(cards(count=4), 1800.0, 2.0)
    assert (listed["gpu_hours"], listed["cards"], listed["card"]) == (2.0, 4, "NVIDIA T4")
    assert listed["price_usd"] == pytest.approx(2 * 0.526)
    assert listed["price_source"] == "AWS g4dn.xlarge, us-east-1, 2025-06"
    assert (own["price_usd"], own["price_source"]) == (4.0, None)
    target = cards()
    assert target.card is not None
    unknown = dataclasses.replace(target, card=dataclasses.replace(target.card, price_per_hour=None))
    assert cost_of(unknown, 60.0, None)["price_usd"] is None


def test_time_adds_up_over_interruptions(tmp_path: Path) -> None:
    ticks = clock(0.0, 3600.0, 10_000.0, 11_800.0)
    with pytest.raises(KeyboardInterrupt), counted(tmp_path, cards(count=2), None, lambda: next(ticks)):
        raise KeyboardInterrupt
    with counted(tmp_path, cards(count=2), None, lambda: next(ticks)):
        pass
    found = json.loads((tmp_path / COST_FILE).read_text(encoding="utf-8"))
    assert (found["seconds"], found["gpu_hours"]) == (5400.0, 3.0)


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": null}'])
def test_a_broken_file_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / COST_FILE).write_text(text, encoding="utf-8")
    ticks = clock(0.0, 7.0)
    with counted(tmp_path, cards(), None, lambda: next(ticks)):
        pass
    assert json.loads((tmp_path / COST_FILE).read_text(encoding="utf-8"))["seconds"] == 7.0


def test_a_study_without_cards_has_no_such_cost(tmp_path: Path) -> None:
    for target in (None, cpus(GIB)):
        with counted(tmp_path, target, 1.0):
            pass
    assert not list(tmp_path.iterdir())
