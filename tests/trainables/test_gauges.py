"""The gauges' names and values, and the dashboard that charts them."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.places import ROOT
from trainables.gauges import (
    GAUGES,
    PredictedMemory,
    Sample,
    host_samples,
    predicted_host_bytes,
    study_samples,
    trial_samples,
)
from trainables.protocol import ResidentStatus

NAMES = {kind.name: kind for kind in GAUGES}


def test_names_are_prometheus_own_and_end_with_their_unit() -> None:
    for kind in GAUGES:
        assert re.fullmatch(r"lora_frontier_(trial|host|study)_[a-z_]+", kind.full_name)
        assert kind.tags[0] == "study"
    for word, unit in (("memory", "_bytes"), ("power", "_watts"), ("busy", "_ratio"), ("loss", "_nats")):
        assert all(name.endswith(unit) for name in NAMES if word in name)


def test_trials_tell_what_they_know() -> None:
    first = ResidentStatus("t0", "training", 3, 10, train_loss=2.5)
    assert trial_samples([first, ResidentStatus("t1", "measuring", 0, 10, perplexity=9.0)]) == [
        Sample("trial_step", 3.0, {"trial": "t0"}),
        Sample("trial_loss_nats", 2.5, {"trial": "t0"}),
        Sample("trial_step", 0.0, {"trial": "t1"}),
        Sample("trial_perplexity", 9.0, {"trial": "t1"}),
    ]


def test_a_host_sums_over_those_at_work() -> None:
    statuses = [
        ResidentStatus("t0", "training", 3, 10, tokens_per_second=100.0),
        ResidentStatus("t1", "evaluating", 3, 10, tokens_per_second=50.0),
        ResidentStatus("t2", "ended", 10, 10, tokens_per_second=70.0),
    ]
    seconds = {"training": 6.0, "evaluating": 2.0, "waiting": 2.0, "all": 10.0}
    found = {one.name: one.value for one in host_samples("1 nf4", statuses, seconds, {"power_watts": 60.0})}
    assert found == {
        "host_adapters": 2.0,
        "host_tokens_per_second": 150.0,
        "host_power_watts": 60.0,
        "host_busy_ratio": pytest.approx(0.8),
    }
    assert "host_busy_ratio" not in {one.name for one in host_samples("1 nf4", [], {}, {})}


def test_a_host_is_predicted_to_take_its_base_and_the_adapters_at_work() -> None:
    statuses = [ResidentStatus("t0", "training", 3, 10), ResidentStatus("t1", "measuring", 0, 10)]
    ended = ResidentStatus("t2", "ended", 10, 10)
    predicted = {"t0": PredictedMemory(5, 100), "t1": PredictedMemory(7, 100), "t2": PredictedMemory(11, 100)}
    assert predicted_host_bytes([*statuses, ended], predicted) == {"memory_predicted_bytes": 112.0}
    assert predicted_host_bytes([ended], predicted) == {}
    assert predicted_host_bytes([*statuses, ResidentStatus("t3", "training", 0, 10)], predicted) == {}


def test_a_study_counts_its_ends() -> None:
    found = study_samples(["complete", "failed", "complete"], 4.5)
    assert found == [
        Sample("study_trials", 2, {"status": "complete"}),
        Sample("study_trials", 1, {"status": "failed"}),
        Sample("study_hypervolume", 4.5),
    ]
    assert study_samples([], None) == []


def test_samples_have_the_tags_of_their_gauge() -> None:
    status = ResidentStatus("t0", "training", 3, 10, train_loss=1.0, perplexity=2.0)
    device = {"memory_allocated_bytes": 1.0, "memory_predicted_bytes": 1.0, "power_watts": 1.0}
    samples = [*trial_samples([status]), *host_samples("h", [status], {"all": 1.0}, device), *study_samples(["x"], 1.0)]
    assert {sample.name for sample in samples} == set(NAMES)
    for sample in samples:
        assert {"study", *sample.tags} == set(NAMES[sample.name].tags)


def test_the_dashboard_charts_every_gauge_and_no_other() -> None:
    board = json.loads((ROOT / "study/grafana_dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    charted = [re.fullmatch(r'ray_(\w+)\{study=~"\$study"\}', one).group(1) for one in expressions]  # type: ignore[union-attr]
    assert sorted(charted) == sorted(kind.full_name for kind in GAUGES)
    for panel in board["panels"]:
        legend = panel["targets"][0]["legendFormat"].strip("{}")
        (kind,) = [one for one in GAUGES if f"ray_{one.full_name}{{" in panel["targets"][0]["expr"]]
        assert legend in kind.tags
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {one["name"] for one in board["templating"]["list"]} == {"datasource", "study"}
