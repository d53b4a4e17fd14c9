"""A second study of the same footprints measures none of them, and says whose measurements it has taken over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.footprint import Footprint
from tests.support.small_engines import config, join, make_engine, run
from trainables.engine.engine import Engine
from trainables.engine.kept_costs import exchange, files
from trainables.protocol import Outcome

CONFIGS = {"a": config(4), "b": config(4, seed=1), "c": config(8)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    monkeypatch.setattr(exchange, "EXCHANGED_ON", ("cpu",))  # as if this were a card
    return tmp_path / files.FOLDER


def study(directory: str, monkeypatch: pytest.MonkeyPatch, **hardware: str) -> tuple[Engine, list[int]]:
    """An engine of a study, and the ranks that it measures."""
    engine = make_engine(study_directory=directory)
    settings = replace(engine.settings, hardware=replace(engine.settings.hardware, **hardware))
    engine._bench.settings = settings
    measured, real = [], engine._costs._measure
    monkeypatch.setattr(engine._costs, "_measure", lambda one: measured.append(one.rank) or real(one))
    return engine, measured


def outcomes_of(engine: Engine) -> dict[str, Outcome]:
    join(engine, CONFIGS)
    return run(engine)


COSTS = (
    "peak_memory_bytes", "train_tokens_per_second", "seconds_per_epoch", "generated_tokens_per_second",
    "base_generated_tokens_per_second",
)  # fmt: skip


def test_the_second_study_takes_over_all_and_compares_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, measured = study("/runs/first", monkeypatch)
    before = outcomes_of(first)
    assert sorted(measured) == [4, 8]
    second, measured = study("/runs/second", monkeypatch)
    after = outcomes_of(second)
    assert measured == []
    for name in CONFIGS:
        assert [after[name].measurements[one] for one in COSTS] == [before[name].measurements[one] for one in COSTS]
        assert after[name].comparable == before[name].comparable
        origin = after[name].device.pop("cost_taken_over_from")  # type: ignore[attr-defined]
        assert origin["directory"] == "/runs/first"
        assert after[name].device == before[name].device


def test_only_what_is_new_is_measured_and_kept_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = study("/runs/first", monkeypatch)
    join(first, {"a": CONFIGS["a"]})
    run(first)
    second, measured = study("/runs/second", monkeypatch)
    outcomes = outcomes_of(second)
    assert measured == [8]
    origins = {name: one.device.get("cost_taken_over_from", {}).get("directory") for name, one in outcomes.items()}
    assert origins == {"a": "/runs/first", "b": "/runs/first", "c": None}


def test_all_is_measured_anew_where_that_is_asked_for_and_kept_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes_of(study("/runs/first", monkeypatch)[0])
    second, measured = study("/runs/second", monkeypatch, measured_costs="anew")
    assert all("cost_taken_over_from" not in one.device for one in outcomes_of(second).values())
    assert sorted(measured) == [4, 8]
    third = outcomes_of(study("/runs/third", monkeypatch)[0])
    assert {one.device["cost_taken_over_from"]["directory"] for one in third.values()} == {"/runs/second"}


def test_an_interrupted_study_takes_over_its_own_measurements_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes_of(study("/runs/first", monkeypatch)[0])
    again, measured = study("/runs/first", monkeypatch)
    outcomes = outcomes_of(again)
    assert measured == []
    assert all("cost_taken_over_from" not in one.device for one in outcomes.values())


def test_a_trial_whose_cost_is_known_trains_while_nothing_is_measured_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes_of(study("/runs/first", monkeypatch)[0])
    second, _ = study("/runs/second", monkeypatch)
    join(second, {"a": CONFIGS["a"]})
    second.work()  # its stage passes
    second.work()
    assert second.residents["a"].member.step == 1


def test_on_a_cpu_and_without_a_directory_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    join(engine := make_engine(), {"a": CONFIGS["a"]})
    run(engine)
    monkeypatch.setattr(exchange, "EXCHANGED_ON", ("cuda",))
    outcomes_of(study("/runs/first", monkeypatch)[0])
    assert not cache.exists()


def test_what_ran_out_of_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    engine, _ = study("/runs/first", monkeypatch)

    def runs_out(one: object) -> None:
        raise MemoryError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(engine._costs, "_measure", runs_out)
    join(engine, {"a": CONFIGS["a"]})
    assert run(engine)["a"].status == "infeasible"
    assert Footprint.of(CONFIGS["a"]) in engine._bench.ran_out
    assert not cache.exists()
