"""What is read from the cache is what was written there, or nothing: whoever has changed the file meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.footprint import Footprint
from trainables.engine.kept_costs import files
from trainables.engine.kept_costs.files import KeptCost, keep_cost, kept_cost
from trainables.measure.training_cost import CostOrigin, TrainingCost
from trainables.packed.passes import PassCost

FOOTPRINT = Footprint("nf4", ("q_proj", "v_proj"), 8, True)
BASIS = {"engine": 3, "cards": [{"name": "Some card", "memory_bytes": 2**34}], "batches": [[[5, 2]], [[9, 4]]]}
ORIGIN = CostOrigin("/runs/first", "2030-01-02T03:04:05+00:00")
COST = TrainingCost(2**30, 2**30 + 512, None, 0.001, 0.01, 0.2, 20.5, (2**30,))
KEPT = KeptCost(COST, 25.0, 2**20, 512, PassCost(285, 40, 0.0001))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    return tmp_path / files.FOLDER


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_kept_is_taken_over_with_its_origin(folder: Path) -> None:
    assert kept_cost(BASIS, FOOTPRINT) is None
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    assert kept_cost(BASIS, FOOTPRINT) == replace(KEPT, cost=replace(COST, origin=ORIGIN))
    bare = KeptCost(TrainingCost(1, None, None, 0.1, 0.0, None, None), 1.0, 0, 0, None)
    keep_cost({**BASIS, "cards": []}, FOOTPRINT, bare, ORIGIN)
    assert kept_cost({**BASIS, "cards": []}, FOOTPRINT) == replace(bare, cost=replace(bare.cost, origin=ORIGIN))


@pytest.mark.parametrize(
    ("basis", "footprint"),
    [
        ({**BASIS, "engine": 4}, FOOTPRINT),
        ({**BASIS, "more": None}, FOOTPRINT),
        ({name: value for name, value in BASIS.items() if name != "engine"}, FOOTPRINT),
        ({**BASIS, "batches": [[[5, 2]], [[9, 5]]]}, FOOTPRINT),
        *((BASIS, replace(FOOTPRINT, **one)) for one in (
            {"precision": "bf16"}, {"rank": 9}, {"has_dropout": False}, {"target_modules": ("q_proj",)},
        )),
    ],
)  # fmt: skip
def test_under_another_basis_or_footprint_nothing_is_found(
    folder: Path, basis: dict[str, Any], footprint: Footprint
) -> None:
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    assert kept_cost(basis, footprint) is None
    only(folder).rename(files._path(basis, footprint))  # nor where a file of another key stands in its place
    assert kept_cost(basis, footprint) is None


def test_a_newer_measurement_takes_an_older_ones_place(folder: Path) -> None:
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    keep_cost(BASIS, FOOTPRINT, replace(KEPT, pass_cost=None), replace(ORIGIN, directory="/runs/second"))
    found = kept_cost(BASIS, FOOTPRINT)
    assert found is not None
    assert found.cost.origin == replace(ORIGIN, directory="/runs/second")
    assert only(folder).suffix == ".json"


def set_in(*path: str) -> Callable[[dict[str, Any], Any], None]:
    def change(values: dict[str, Any], value: Any) -> None:
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = value

    return change


COST_AT = ("measured", "cost")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*COST_AT, "peak_memory_bytes"), 0),
        ((*COST_AT, "peak_memory_bytes"), 2**30 - 1),  # not the sum of its cards' peaks
        ((*COST_AT, "peak_memory_bytes"), float(2**30)),
        ((*COST_AT, "peak_memory_bytes"), True),
        ((*COST_AT, "card_peak_bytes"), []),
        ((*COST_AT, "card_peak_bytes"), [2**29, 2**29]),
        ((*COST_AT, "card_peak_bytes"), [2**35]),  # more than the card has
        ((*COST_AT, "card_peak_bytes"), "1"),
        ((*COST_AT, "peak_reserved_bytes"), -1),
        ((*COST_AT, "seconds_per_token"), 0),
        ((*COST_AT, "seconds_per_token"), None),
        ((*COST_AT, "seconds_per_token"), float("nan")),
        ((*COST_AT, "seconds_per_token"), float("inf")),
        ((*COST_AT, "seconds_per_update"), "0.1"),
        ((*COST_AT, "joules_per_token"), -0.1),
        ((*COST_AT, "generated_tokens_per_second"), 0),
        ((*COST_AT, "generated_tokens_per_second"), 10**400),
        ((*COST_AT, "more"), 1),
        (COST_AT, []),
        (("measured",), None),
        (("measured", "pass_bytes"), 1.5),
        (("measured", "pass_tokens"), -1),
        (("measured", "base_generated_tokens_per_second"), None),
        (("measured", "pass_cost"), {}),
        (("measured", "pass_cost", "fixed_tokens"), 2**60),
        (("measured", "pass_cost", "seconds_per_token"), 0),
        (("origin",), {}),
        (("origin", "directory"), "two\nlines"),
        (("origin", "directory"), "a" * 5000),
        (("origin", "measured_at"), "yesterday"),
        (("origin", "more"), 1),
        (("schema_version",), 2),
        (("more",), 1),
    ],
)
def test_a_changed_value_is_not_taken_over(folder: Path, path: tuple[str, ...], value: Any) -> None:
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    values = json.loads(only(folder).read_text())
    set_in(*path)(values, value)
    only(folder).write_text(json.dumps(values))
    assert kept_cost(BASIS, FOOTPRINT) is None
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    assert kept_cost(BASIS, FOOTPRINT) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 10**5, b" " * 2**19])
def test_what_is_no_such_file_is_not_taken_over(folder: Path, content: bytes) -> None:
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    only(folder).write_bytes(content)
    assert kept_cost(BASIS, FOOTPRINT) is None


def test_a_pipe_or_a_folder_in_its_place_is_not_waited_for(folder: Path) -> None:
    folder.mkdir()
    path = files._path(BASIS, FOOTPRINT)
    os.mkfifo(path)
    assert kept_cost(BASIS, FOOTPRINT) is None
    path.unlink()
    path.mkdir()
    assert kept_cost(BASIS, FOOTPRINT) is None
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)  # cannot be kept there, which is only said
    assert [one.name for one in folder.iterdir()] == [path.name]


ONCE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=200, **ONCE)
@given(st.data())
def test_whatever_one_byte_becomes_nothing_else_than_a_measurement_is_read(folder: Path, data: st.DataObject) -> None:
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    content = bytearray(only(folder).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    only(folder).write_bytes(content)
    found = kept_cost(BASIS, FOOTPRINT)
    if found is not None:  # a digit of a measured value may be another digit
        assert found.cost.seconds_per_token > 0
        assert found.cost.peak_memory_bytes == sum(found.cost.card_peak_bytes) <= 2**34


def test_the_oldest_go_where_there_are_too_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 3)
    for rank in range(1, 6):
        footprint = replace(FOOTPRINT, rank=rank)
        keep_cost(BASIS, footprint, KEPT, ORIGIN)
        os.utime(files._path(BASIS, footprint), (rank, rank))
    keep_cost(BASIS, replace(FOOTPRINT, rank=6), KEPT, ORIGIN)
    there = [rank for rank in range(1, 7) if kept_cost(BASIS, replace(FOOTPRINT, rank=rank))]
    assert there == [4, 5, 6]


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_next_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "file"))
    keep_cost(BASIS, FOOTPRINT, KEPT, ORIGIN)
    assert kept_cost(BASIS, FOOTPRINT) is None
