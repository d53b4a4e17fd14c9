"""What a training's state depends on: every setting of its training, data and base model, and nothing else."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from trainables.comparability import comparable_hashes, differences, offloaded_cost, state_basis
from trainables.memory.offload import RESIDENT, Offload
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    RungSettings,
    TrainingSettings,
    TrialSettings,
)

SETTINGS = TrialSettings(BaseModelSettings("a/b"), DatasetSettings("mine"))


def another(value: Any) -> Any:
    """A value that is not this one."""
    return not value if isinstance(value, bool) else "linear" if isinstance(value, str) else (value or 0) + 1


@pytest.mark.parametrize("name", [one.name for one in fields(TrainingSettings)])
def test_every_training_setting_is_named(name: str) -> None:
    """A setting that is added later is named too."""
    training = replace(SETTINGS.training, **{name: another(getattr(SETTINGS.training, name))})
    was = state_basis("weights", "data", SETTINGS)
    assert differences(was, state_basis("weights", "data", replace(SETTINGS, training=training))) == (
        f"training.{name}",
    )


def test_base_model_data_and_engine_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    was = state_basis("weights", "data", SETTINGS)
    assert differences(was, state_basis("others", "data", SETTINGS)) == ("base_model.sha256",)
    assert differences(was, state_basis("weights", "others", SETTINGS)) == ("dataset.fingerprint",)
    single = replace(SETTINGS, base_model=BaseModelSettings("a/b", double_quantization=False))
    assert differences(was, state_basis("weights", "data", single)) == ("base_model.double_quantization",)
    monkeypatch.setattr("trainables.comparability.ENGINE_VERSION", 10**6)
    assert differences(was, state_basis("weights", "data", SETTINGS)) == ("engine",)


def test_where_a_study_runs_and_what_it_writes_is_no_difference() -> None:
    moved = replace(
        SETTINGS,
        base_model=BaseModelSettings("elsewhere/b", "other"),
        hardware=HardwareSettings("t4", 4, max_adapters_per_gpu=1),
        generation=GenerationSettings(("Hello",)),
        rungs=RungSettings((0.5,)),
    )
    assert state_basis("weights", "data", moved) == state_basis("weights", "data", SETTINGS)


def test_a_basis_survives_json() -> None:
    basis = state_basis("weights", "data", SETTINGS)
    assert json.loads(json.dumps(basis)) == basis


def test_what_an_earlier_version_did_not_know_is_no_difference() -> None:
    assert differences({"engine": 2}, {"engine": 2, "new": 7}) == ()
    assert differences({"engine": 2, "old": 1}, {"engine": 3}) == ("engine",)


def test_what_an_earlier_version_did_without_a_choice_is_what_it_began_with() -> None:
    now = state_basis("weights", "data", SETTINGS)
    was = {name: value for name, value in now.items() if name != "training.optimizer"}
    assert differences(was, now) == ()
    training = replace(SETTINGS.training, optimizer="adamw_8bit")
    now = state_basis("weights", "data", replace(SETTINGS, training=training))
    assert differences(was, now) == ("training.optimizer",)


def test_what_waits_in_host_memory_is_a_cost_and_no_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.comparability.ENGINE_VERSION", 4)
    resident = comparable_hashes("weights", "data", SETTINGS, "a card")
    assert resident == comparable_hashes("weights", "data", SETTINGS, "a card", RESIDENT)
    # As records of earlier versions have them.
    assert resident == {"quality": "c43525812d016f56", "cost": "955a99777f6224b0"}
    costs = {resident["cost"]}
    for offload in (Offload(layers=1), Offload(layers=2), Offload(optimizer_state=True), Offload(layer_inputs=True)):
        found = comparable_hashes("weights", "data", SETTINGS, "a card", offload)
        assert found["quality"] == resident["quality"]
        assert found["cost"] == offloaded_cost(resident["cost"], offload)
        costs.add(found["cost"])
    assert len(costs) == 5


def test_an_optimizers_memory_and_time_are_a_cost_and_what_it_learns_is_what_is_compared() -> None:
    training = replace(SETTINGS.training, optimizer="adamw_8bit")
    in_8_bits = comparable_hashes("weights", "data", replace(SETTINGS, training=training), "a card")
    resident = comparable_hashes("weights", "data", SETTINGS, "a card")
    assert in_8_bits["quality"] == resident["quality"]
    assert in_8_bits["cost"] != resident["cost"]
