"""Members that differ in everything, and the comparison of a pack's step with each member's step alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests.support.lora_cases import lora_config
from tests.support.small_models import tiny_llama
from trainables.dataset.batches import batch_plan
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter
from trainables.packed.member import TrainingMember, apply_gradients, discard_gradients
from trainables.packed.optimizers.staging import Staging
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import PassLimits
from trainables.packed.training import WHOLE_STEP, accumulate_gradients
from trainables.settings import Optimizer, TrainingSettings

SPLIT = PassLimits(max_tokens=60, fixed_tokens=1)  # several passes a step

# Configuration and training of eight members: nothing is common to all.
MEMBERS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"rank": 2, "lora_alpha": 4.0, "target_modules": "q_v", "learning_rate": 1e-2, "seed": 1},
     {"micro_batch_size": 1, "gradient_accumulation_steps": 3, "schedule": "cosine", "max_grad_norm": 1.0}),
    ({"rank": 8, "lora_alpha": 3.0, "lora_dropout": 0.3, "learning_rate": 3e-3, "seed": 2},
     {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "schedule": "linear", "weight_decay": 0.1}),
    ({"rank": 8, "lora_alpha": 16.0, "lora_dropout": 0.1, "learning_rate": 5e-3, "seed": 3},
     {"micro_batch_size": 3, "gradient_accumulation_steps": 1, "schedule": "constant", "max_grad_norm": 0.05}),
    ({"rank": 3, "lora_alpha": 8.0, "target_modules": "down_proj+o_proj", "learning_rate": 2e-2, "seed": 4},
     {"micro_batch_size": 1, "gradient_accumulation_steps": 4, "warmup_ratio": 0.2, "max_grad_norm": 0.5}),
    ({"rank": 2, "lora_alpha": 2.0, "target_modules": "q_v", "lora_dropout": 0.5, "learning_rate": 1e-3, "seed": 5},
     {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "weight_decay": 0.01}),
    ({"rank": 8, "lora_alpha": 32.0, "learning_rate": 2e-3, "seed": 6},
     {"micro_batch_size": 2, "gradient_accumulation_steps": 3, "max_grad_norm": 0.2}),
    ({"rank": 2, "lora_alpha": 9.0, "target_modules": "q_v", "learning_rate": 4e-3, "seed": 7},
     {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "schedule": "linear", "max_grad_norm": 0.0}),
    ({"rank": 16, "lora_alpha": 1.0, "target_modules": "gate_proj+k_proj", "learning_rate": 8e-3, "seed": 8},
     {"micro_batch_size": 2, "gradient_accumulation_steps": 1, "schedule": "constant", "warmup_ratio": 0.5}),
)  # fmt: skip


def make_member(
    model: PackedModel,
    rows: Sequence[Row],
    number: int,
    steps: int,
    staging: Staging | None = None,
    optimizer: Optimizer = "adamw",
    **changes: Any,
) -> TrainingMember:
    """Member `number` of MEMBERS, at the start of `steps` optimizer steps."""
    config, training = MEMBERS[number]
    settings = TrainingSettings(**training, epochs=1000, max_steps=steps, optimizer=optimizer)
    trial = lora_config(**{**config, **changes})
    plan = batch_plan(len(rows), settings, trial.seed)
    return TrainingMember(model.new_adapter(trial), settings, plan, half=False, staging=staging)


def gradient(member: TrainingMember) -> torch.Tensor:
    """All of a member's gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in member.adapter.parameters() if p.grad is not None])


def moments(member: TrainingMember) -> torch.Tensor:
    """AdamW's first moments as one vector: they are linear in the clipped gradients, where weights are not."""
    states = [member.optimizer.state[parameter]["exp_avg"] for parameter in member.adapter.parameters()]
    return torch.cat([state.flatten() for state in states])


def state_of(member: TrainingMember) -> list[torch.Tensor]:
    """Copies of weights, moments and step counters."""
    tensors = [p.detach() for p in member.adapter.parameters()]
    states = [copy.copy(member.optimizer.state[parameter]) for parameter in member.adapter.parameters()]
    return [tensor.clone() for tensor in (*tensors, *(value for state in states for value in state.values()))]


def put_back(member: TrainingMember, state: Sequence[torch.Tensor], step: int) -> None:
    """Undoes steps taken since `state_of`."""
    places = [p.detach() for p in member.adapter.parameters()]
    places += [value for p in member.adapter.parameters() for value in member.optimizer.state[p].values()]
    for place, value in zip(places, state, strict=True):
        place.copy_(value)
    member.step = step


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far `one` is from `other`, relative to `other`."""
    return float(torch.linalg.norm(one - other) / torch.linalg.norm(other))


def take_and_compare(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    tolerance: float = 1e-5,
    limits: PassLimits = WHOLE_STEP,
) -> list[Any]:
    """Takes one packed step; asserts that loss, gradient, its norm and the clipped moments are those of each alone."""
    alone = [_alone(model, member, rows) for member in members]
    losses = accumulate_gradients(model, members, rows, limits)
    gradients = [gradient(member) for member in members]
    results = [apply_gradients(member, rows, loss) for member, loss in zip(members, losses, strict=True)]
    for member, result, own, (loss, norm, expected, expected_moments) in zip(
        members, results, gradients, alone, strict=True
    ):
        assert abs(result.loss - loss) <= tolerance * abs(loss)
        assert relative(own, expected) <= tolerance
        assert abs(result.gradient_norm - norm) <= tolerance * norm
        assert relative(moments(member), expected_moments) <= tolerance
    return results


def _alone(
    model: PackedModel, member: TrainingMember, rows: Sequence[Row]
) -> tuple[float, float, torch.Tensor, torch.Tensor]:
    """Loss, gradient norm, gradient and moments of the member's next step alone, which is then undone."""
    before, step = state_of(member), member.step
    scaler, tokens = member.scaler, member.train_tokens
    (loss,) = accumulate_gradients(model, [member], rows)
    own = gradient(member)
    result = apply_gradients(member, rows, loss)
    after = moments(member)
    put_back(member, before, step)
    member.scaler, member.train_tokens = scaler, tokens
    discard_gradients([member])
    return loss, result.gradient_norm, own, after


def peft_twin(adapter: LoraAdapter, base: torch.nn.Module) -> torch.nn.Module:
    """The same adapter over another copy of the base, by PEFT, in training and without dropout."""
    ours = adapter.config
    lora = LoraConfig(
        r=ours.rank, lora_alpha=ours.lora_alpha, lora_dropout=0.0, target_modules=list(ours.target_modules),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, lora)
    modules = dict(model.named_modules())
    for name, pair in adapter.weights.items():
        layer = modules[f"base_model.model.{name}"]
        layer.lora_A["default"].weight.data.copy_(pair.a)
        layer.lora_B["default"].weight.data.copy_(pair.b)
    return model.train()


def make_model(base: torch.nn.Module | None = None, checkpointing: bool = False, padded: bool = False) -> PackedModel:
    """`padded`: members of unlike rank share products, whether it pays or not."""
    model = PackedModel((base or tiny_llama()).train())
    model._pads = lambda members: padded
    if checkpointing:
        options = {"use_reentrant": False, "preserve_rng_state": False}
        model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return model
