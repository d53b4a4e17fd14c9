"""Checkpoints restore bit for bit, and exported adapters are PEFT's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load, save

from search_spaces.trial_config import MODULE_NAMES
from tests.support.lora_cases import files_of, lora_config, new_member, peft_model, random_rows, trained_adapter
from tests.support.small_models import tiny_llama
from trainables.comparability import state_basis
from trainables.packed.adapter import PackedRows
from trainables.packed.adapter_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    restore_training,
    training_state,
)
from trainables.packed.member import StepResult, TrainingMember
from trainables.packed.optimization import LossScaler
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step
from trainables.settings import BaseModelSettings, DatasetSettings, TrialSettings

ROWS = random_rows(13)
IDS = torch.randint(97, (2, 15), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> PackedModel:
    model = tiny_llama().train()
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    return PackedModel(model)


@pytest.mark.parametrize(
    ("target_modules", "rank", "lora_alpha"),
    [
        ("q_v", 3, 16),
        ("all_linear", 8, 12.5),
        ("k_proj+gate_proj", 1, 0.75),
        ("o_proj", 5, 7),
        ("down_proj+up_proj", 2, 9),
    ],
)
def test_peft_reads_an_adapter_as_it_is(
    target_modules: str, rank: int, lora_alpha: float, model: PackedModel, tmp_path: Path
) -> None:
    """Equal logits to 1e-5, dropout off."""
    changes = {"target_modules": target_modules, "rank": rank, "lora_alpha": lora_alpha, "lora_dropout": 0.3}
    adapter = trained_adapter(model, lora_config(**changes), ROWS, steps=2)
    with torch.no_grad():
        theirs = peft_model(tiny_llama(), adapter, tmp_path)(input_ids=IDS).logits
        with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
            ours = causal(input_ids=IDS).logits
        base = tiny_llama()(input_ids=IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (ours - base).abs().max() > 100 * (ours - theirs).abs().max()


def test_the_files_hold_what_pefts_own_hold(model: PackedModel) -> None:
    config = lora_config(target_modules="q_v")
    files = files_of(trained_adapter(model, config, ROWS, steps=1), "some/model", "abc")
    assert set(files) == {ADAPTER_FILE, ADAPTER_CONFIG_FILE} == {"adapter_model.safetensors", "adapter_config.json"}
    own = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    theirs = get_peft_model_state_dict(get_peft_model(tiny_llama(), own))
    ours = load(files[ADAPTER_FILE])
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in ours.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in theirs.items()
    }
    values = json.loads(files[ADAPTER_CONFIG_FILE])
    assert (values["base_model_name_or_path"], values["revision"], values["r"]) == ("some/model", "abc", 4)
    assert set(values) <= set(own.to_dict())


def take_steps(model: PackedModel, member: TrainingMember, count: int) -> list[StepResult]:
    return [train_step(model, [member], ROWS)[0] for _ in range(count)]


def contents(member: TrainingMember) -> dict[str, Any]:
    """Everything of a member that training changes."""
    moments = {
        f"{index}.{name}": value
        for index, parameter in enumerate(member.adapter.parameters())
        for name, value in member.optimizer.state[parameter].items()
    }
    return {**member.adapter.named_tensors(), **moments}


@pytest.mark.parametrize("before", [0, 1, 3, 5])
def test_a_restored_training_continues_as_if_never_interrupted(before: int, model: PackedModel) -> None:
    """Six steps, against `before` of them, a restore into a fresh member, and the rest: equal to the bit."""
    config = lora_config(lora_dropout=0.3)
    training = {"weight_decay": 0.1, "warmup_ratio": 0.3, "epochs": 2}
    straight = new_member(model, config, ROWS, **training)
    first, second = new_member(model, config, ROWS, **training), new_member(model, config, ROWS, **training)
    expected = take_steps(model, straight, 6)
    results = take_steps(model, first, before)
    state = training_state(first, {"note": [1, "two", None]})
    take_steps(model, first, 1)  # what happens after does not reach into the state
    assert restore_training(second, state) == {"note": [1, "two", None]}
    assert second.step == before
    results += take_steps(model, second, 6 - before)
    assert results == expected
    assert (second.step, second.train_tokens, second.scaler) == (6, straight.train_tokens, straight.scaler)
    ours, theirs = contents(second), contents(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_state_of_a_restored_member_is_the_same_state(model: PackedModel) -> None:
    first, second = (new_member(model, lora_config(), ROWS) for _ in range(2))
    take_steps(model, first, 2)
    first.scaler = LossScaler(2.0**7, good_steps=33)
    state = training_state(first, {})
    restore_training(second, state)
    assert second.scaler == LossScaler(2.0**7, good_steps=33)
    assert training_state(second, {}) == state


BASIS = state_basis("weights", "data", TrialSettings(BaseModelSettings("a/b"), DatasetSettings("mine")))


def untouched(model: PackedModel, state: bytes, message: str, **changes: Any) -> None:
    """A refusal leaves the member as it was."""
    member, twin = (new_member(model, lora_config(**changes), ROWS) for _ in range(2))
    with pytest.raises(ValueError, match=message):
        restore_training(member, state)
    assert member.step == 0
    ours, fresh = contents(member), contents(twin)
    assert all(torch.equal(ours[name], fresh[name]) for name in fresh)


@pytest.mark.parametrize("name", sorted(BASIS))
def test_a_state_of_another_basis_is_refused(model: PackedModel, name: str) -> None:
    member, fresh = (new_member(model, lora_config(), ROWS) for _ in range(2))
    take_steps(model, member, 1)
    state = training_state(member, {}, BASIS)
    with pytest.raises(ValueError, match=f"own data, base model and training; {name} was .*, it is other"):
        restore_training(fresh, state, {**BASIS, name: "other"})
    assert fresh.step == 0
    restore_training(fresh, state, BASIS)
    assert fresh.step == 1


def test_a_state_of_a_longer_training_is_refused(model: PackedModel) -> None:
    """The schedule follows from the length: the same step has another learning rate."""
    state = training_state(new_member(model, lora_config(), ROWS, epochs=2), {})
    with pytest.raises(ValueError, match=r"optimizer steps was \d+, it is \d+"):
        restore_training(new_member(model, lora_config(), ROWS, epochs=1), state)


def test_a_state_that_names_no_basis_is_an_earlier_version_s(model: PackedModel) -> None:
    state = training_state(new_member(model, lora_config(), ROWS), {})
    restore_training(new_member(model, lora_config(), ROWS), state, BASIS)


@pytest.fixture(scope="module")
def state(model: PackedModel) -> bytes:
    member = new_member(model, lora_config(), ROWS)
    take_steps(model, member, 1)
    return training_state(member, {})


@pytest.mark.parametrize("changes", [{"rank": 5}, {"seed": 4}, {"learning_rate": 0.01}, {"target_modules": "q_v"}])
def test_another_configurations_state_is_refused(changes: dict[str, Any], model: PackedModel, state: bytes) -> None:
    untouched(model, state, "must be of its trial's own configuration; it is of", **changes)


def test_another_base_models_state_is_refused(model: PackedModel) -> None:
    other = PackedModel(tiny_llama(layers=1).train())
    member = new_member(other, lora_config(), ROWS)
    untouched(
        model, training_state(member, {}), r"base model; weight\.model\.layers\.1\..* must be 4x32, it is missing"
    )
    tensors = load(training_state(new_member(model, lora_config(), ROWS), {}))
    tensors["weight.model.layers.0.self_attn.q_proj.lora_A"] = torch.zeros(1, 32)  # would broadcast
    header = training_state(new_member(model, lora_config(), ROWS), {})
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    untouched(model, save(tensors, metadata=metadata), "must be 4x32, it is 1x32")


@pytest.mark.parametrize("kept", [0.0, 1e-5, 1e-3, 0.5, 0.99999])
def test_a_cut_off_state_is_refused(kept: float, model: PackedModel, state: bytes) -> None:
    untouched(model, state[: int(kept * len(state))], "must be whole, as it was written; .* Continue from an")


def rewritten(state: bytes, text: str) -> bytes:
    """The state with other words beside its tensors."""
    return save(load(state), metadata={"training": text})


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    "values",
    [
        {"config": None}, {"config": []}, {"config": {"rank": 4}}, {"step": None}, {"step": "one"}, {"step": [1]},
        {"step": 1e400}, {"step": -1}, {"step": 10**9}, {"train_tokens": {}}, {"scaler": None}, {"scaler": [1.0]},
        {"scaler": {"size": 2}}, {"extra": None}, {"extra": 7}, {"basis": None}, {"basis": "data"}, {"basis": [1]},
        {"total_steps": "many"},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_whose_words_were_changed_is_refused(model: PackedModel, state: bytes, values: dict[str, Any]) -> None:
    """What is refused by a ValueError has the trial begin anew; any other error would end it."""
    metadata = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])["__metadata__"]
    text = json.dumps({**json.loads(metadata["training"]), **values})
    untouched(model, rewritten(state, text), "must be whole, as it was written|step must be from 0 to")


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '"text"', "{}", DEEP, '{"config": ' + DEEP + "}"])
def test_a_state_whose_words_are_none_is_refused(model: PackedModel, state: bytes, text: str) -> None:
    untouched(model, rewritten(state, text), "must be whole, as it was written")


def test_what_is_no_state_is_refused(model: PackedModel) -> None:
    exported = files_of(trained_adapter(model, lora_config(), ROWS, steps=1), "a", "b")[ADAPTER_FILE]
    for content in (b"not a state at all, but long enough to hold a length", exported):
        untouched(model, content, "must be whole, as it was written")


def test_every_module_that_can_be_a_target_is_exported(model: PackedModel) -> None:
    tensors = load(files_of(model.new_adapter(lora_config()), "a", "b")[ADAPTER_FILE])
    assert {name.split(".")[-3] for name in tensors} == set(MODULE_NAMES)
