"""Earlier studies' trials: what compares is told to the search, all else is refused with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load_study as load_results
from search_spaces.parameters import parse_space
from study.config.study_config import ConfigError, StudyConfig, load_study
from study.plan.known_memory import KnownMemory
from study.records.record import TrialRecord
from study.records.store import ResultsStore
from study.search import warm_start
from study.search.study_search import open_search
from study.search.warm_start import read_warm_starts, refusal, training_differences
from tests.support.made_up_studies import SPACE, make_config, make_record, write_study_file
from trainables.comparability import offloaded_cost
from trainables.memory.offload import Offload

OURS = {"quality": "q", "cost": "c"}
SEARCH = {"algorithm": "tpe", "trials": 4, "seed": 0}


def earlier(number: int, rank: int = 8, status: str = "complete", **changes: Any) -> TrialRecord:
    """A record of an earlier study that compares, with other values where `changes` say so."""
    config = changes.pop("config", make_config(rank=rank, precision="nf4", lora_dropout=0.0))
    return replace(make_record(f"t{number:03}", config, status), **{"comparable": OURS, **changes})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    """A study that begins with the one in `earlier`; its hashes of what compares are `OURS`."""
    monkeypatch.setattr(warm_start, "_comparable", lambda config: OURS)
    (tmp_path / "earlier").mkdir()
    write_study_file(tmp_path / "earlier")
    return load_study(write_study_file(tmp_path, search={**SEARCH, "warm_start": ["earlier"]}))


def keep(config: StudyConfig, *records: TrialRecord) -> None:
    with ResultsStore(config.search.warm_start[0]) as store:
        for record in records:
            store.append(record)


@pytest.mark.parametrize(
    ("space", "outside"),
    [({}, [1, 2]), ({"layers": "last_half"}, [0, 2]), ({"layers": {"choice": ["all", [0, 3]]}}, [1]),
     ({"layers": {"choice": ["last_half", [0, 3]]}}, [0])],
)  # fmt: skip
def test_trials_of_other_layers_are_outside_a_space(space: dict[str, Any], outside: list[int]) -> None:
    """Earlier versions' trials, which say nothing of layers, updated all of them."""
    configs = [make_config(rank=8), make_config(rank=8, layers="last_half"), make_config(rank=8, layers=[0, 3])]
    wider = parse_space({**SPACE, **space})
    reasons = [refusal(earlier(0, config=one), wider, [], OURS) for one in configs]
    assert [number for number, reason in enumerate(reasons) if reason] == outside
    assert {reason for reason in reasons if reason} == {"outside the space (layers)"}


def test_what_compares_is_taken_and_the_rest_is_counted_by_reason(config: StudyConfig) -> None:
    other = {"quality": "other", "cost": "other"}
    keep(config, earlier(0), earlier(1, 2, "stopped"), earlier(2, comparable=other), earlier(3, status="failed"))
    (found,) = read_warm_starts(config)
    assert [Path(one.source).name for one in found.taken] == ["t000", "t001"]
    assert found.refused == {
        "another base model, data, split or length": 1, "failed for a reason that is none of its configuration": 1,
    }  # fmt: skip
    assert "2 of 4 trials taken; 1 not: another base model" in str(found)


def test_a_search_knows_them_and_does_not_run_them_again(config: StudyConfig, tmp_path: Path) -> None:
    """All combinations of a space of four but one are known; of six trials that the search may spend it finds one."""
    records = [
        earlier(number, config=one)
        for number, one in enumerate(parse_space(SPACE).grid([7]))  # of another seed
        if (one.precision, one.rank) != ("nf4", 8)
    ]
    keep(config, *records)
    search = open_search(config, tmp_path / "optuna.db", KnownMemory(config))
    (found,) = read_warm_starts(config)
    before = {precision: search.count(precision) for precision in ("nf4", "fp32")}
    for _ in range(2):  # a second time changes nothing
        search.know(found.taken)
    left = {precision: search.count(precision) for precision in ("nf4", "fp32")}
    assert (before, left) == ({"nf4": 2, "fp32": 2}, {"nf4": 1, "fp32": 0})  # or the study would never be done
    asked = [search.ask("nf4"), search.ask("nf4"), search.ask("fp32")]
    assert [one and (one.config.precision, one.config.rank, one.config.seed) for one in asked] == [
        ("nf4", 8, 0), None, None,
    ]  # fmt: skip
    told = [trial for trial in search._database.trials() if "earlier" in trial.user_attrs]
    assert [trial.values for trial in told] == [
        [record.measurements["perplexity"], record.measurements["peak_memory_bytes"]] for record in records
    ]
    assert [one.trial_id for one in search.proposals()] == [asked[0].trial_id]
    assert {precision: search.count(precision) for precision in ("nf4", "fp32")} == left


def test_what_is_known_is_not_tried_first_again(config: StudyConfig, tmp_path: Path) -> None:
    first = tuple(one for one in parse_space(SPACE).grid([0]) if one.precision == "nf4")
    assert len(first) == 2
    known = replace(config, search=replace(config.search, try_first=first, trials=4))
    keep(config, earlier(0, config=replace(first[0], seed=7)))
    search = open_search(known, tmp_path / "optuna.db", KnownMemory(known))
    search.know(read_warm_starts(config)[0].taken)
    assert search.count("nf4") == 1
    asked = [search.ask("nf4"), search.ask("nf4")]
    assert [one and one.config for one in asked] == [first[1], None]


def test_ends_are_told_as_this_search_s_own(config: StudyConfig, tmp_path: Path) -> None:
    search = open_search(config, tmp_path / "optuna.db", KnownMemory(config))
    keep(config, earlier(0), earlier(1, 2, "stopped"), earlier(2, 8, "diverged", config=make_config(rank=8)))
    search.know(read_warm_starts(config)[0].taken)
    assert [(trial.state.name, trial.user_attrs["status"]) for trial in search._database.trials()] == [
        ("COMPLETE", "complete"), ("PRUNED", "stopped"), ("FAIL", "diverged"),
    ]  # fmt: skip


REFUSALS: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"comparable": {"quality": "q", "cost": "other"}}, "measured on another device"),
    ({"comparable": {}}, "another base model"),
    ({"status": "failed"}, "failed for a reason"),
    ({"status": "diverged"}, None),
    ({"measurements": {"perplexity": 7.0}}, "an objective was not measured"),
    ({"config": make_config(rank=4)}, r"outside the space \(rank\)"),
    (
        {"config": make_config(learning_rate=0.5, lora_dropout=0.1)},
        r"outside the space \(lora_dropout, learning_rate\)",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSALS)
def test_every_reason(config: StudyConfig, changes: dict[str, Any], reason: str | None) -> None:
    import re

    said = refusal(earlier(0, **changes), config.space, config.objectives, OURS)
    assert said is None if reason is None else re.match(reason, said or "")


@pytest.mark.parametrize(("theirs", "ours", "taken"), [("1 GiB", None, 0), ("1 GiB", "1 GiB", 1), (None, "1 GiB", 1)])
def test_what_did_not_fit_is_believed_of_no_less_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None, ours: str | None, taken: int
) -> None:
    monkeypatch.setattr(warm_start, "_comparable", lambda config: OURS)
    (tmp_path / "earlier").mkdir()
    write_study_file(tmp_path / "earlier", hardware={"gpu": "cpu", "memory_limit": theirs})
    changes = {"search": {**SEARCH, "warm_start": ["earlier"]}, "hardware": {"gpu": "cpu", "memory_limit": ours}}
    config = load_study(write_study_file(tmp_path, **changes))
    keep(config, earlier(0), earlier(1, 2, "infeasible"))
    (found,) = read_warm_starts(config)
    assert len(found.taken) == 1 + taken
    assert sum("smaller memory limit" in reason for reason in found.refused) == 1 - taken


@pytest.mark.parametrize(
    ("theirs", "ours", "taken"),
    [
        ({}, {}, ["t000", "t001"]),
        ({"base_in_host_memory": "never"}, {}, ["t000"]),
        ({}, {"memory_limit": "1 GiB"}, ["t000"]),
        ({}, {"base_in_host_memory": "always"}, []),
        ({"base_in_host_memory": "always"}, {"base_in_host_memory": "always"}, ["t000", "t001"]),
    ],
)
def test_what_waited_in_host_memory_is_known_where_as_much_would_wait_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], ours: dict[str, str], taken: list[str]
) -> None:
    monkeypatch.setattr(warm_start, "_comparable", lambda config: OURS)
    (tmp_path / "earlier").mkdir()
    write_study_file(tmp_path / "earlier", hardware={"gpu": "cpu", **theirs})
    changes = {"search": {**SEARCH, "warm_start": ["earlier"]}, "hardware": {"gpu": "cpu", **ours}}
    config = load_study(write_study_file(tmp_path, **changes))
    offload = Offload(layers=2)
    comparable = {**OURS, "cost": offloaded_cost(OURS["cost"], offload)}
    keep(config, earlier(0), earlier(1, 2, device={"offload": offload.to_dict()}, comparable=comparable))
    if not taken:
        with pytest.raises(ConfigError, match="another batch or offload"):
            read_warm_starts(config)
        return
    (found,) = read_warm_starts(config)
    assert [Path(one.source).name for one in found.taken] == taken


def test_other_training_says_nothing_of_this_one_s_quality(config: StudyConfig) -> None:
    own = load_results(Path(config.search.warm_start[0])).settings["training"]
    assert training_differences(own, config) is None
    assert training_differences({**own, "evaluations": 9, "gradient_checkpointing": False}, config) is None
    in_8_bits = replace(config.trial, training=replace(config.trial.training, optimizer="adamw_8bit"))
    of_before = {name: value for name, value in own.items() if name != "optimizer"}  # an earlier version's
    assert training_differences(of_before, config) is None
    assert training_differences(of_before, replace(config, trial=in_8_bits)) == "trained with other optimizer"
    assert training_differences({**own, "epochs": 3, "max_steps": 5}, config) == "trained with other epochs, max_steps"


def test_a_directory_that_gives_nothing_is_refused_with_its_reasons(config: StudyConfig) -> None:
    keep(config, earlier(0, comparable={}))
    with pytest.raises(ConfigError, match=r"must have trials that compare with this study's \(1: another base model"):
        read_warm_starts(config)


def test_a_directory_that_is_no_study_is_refused(tmp_path: Path, config: StudyConfig) -> None:
    file = write_study_file(tmp_path, search={**SEARCH, "warm_start": ["nowhere"]})
    with pytest.raises(ConfigError, match=r"search.warm_start.0.*must be a study's directory"):
        read_warm_starts(load_study(file))
    assert read_warm_starts(load_study(write_study_file(tmp_path))) == []
