"""Our low-rank updates against PEFT's: outputs and gradients; packed rows against rows alone."""

import pytest
import torch

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.support.small_models import tiny_llama
from tests.support.trainables.packed_cases import peft_twin
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.packed_model import PackedModel


def config(**changes) -> TrialConfig:
    values = {
        "precision": "fp32", "rank": 4, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "q_v",
        "learning_rate": 1e-3, "seed": 3,
    }  # fmt: skip
    return TrialConfig.from_dict({**values, **changes})


def with_random_b(adapter: LoraAdapter, seed: int) -> LoraAdapter:
    """B is zero at the start, and A's gradient with it: a test needs both to be something."""
    generator = torch.Generator().manual_seed(seed)
    for pair in adapter.weights.values():
        pair.b.data.copy_(torch.randn(pair.b.shape, generator=generator) * 0.1)
    return adapter


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("target_set", list(TARGET_SETS))
def test_outputs_and_gradients_are_pefts(target_set, checkpointing):
    model = PackedModel(tiny_llama())
    model.model.train()
    if checkpointing:
        model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapter = with_random_b(model.new_adapter(config(target_modules=target_set)), 1)
    twin = peft_twin(adapter, tiny_llama())
    ids = torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(0))
    with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
        ours = causal(input_ids=ids).logits
        ours.square().mean().backward()
    theirs = twin(input_ids=ids).logits
    theirs.square().mean().backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    modules = dict(twin.named_modules())
    for name, pair in adapter.weights.items():
        layer = modules[f"base_model.model.{name}"]
        for gradient, weight in ((pair.a.grad, layer.lora_A), (pair.b.grad, layer.lora_B)):
            expected = weight["default"].weight.grad
            assert torch.linalg.norm(gradient - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_no_adapter_is_the_base_and_a_fresh_one_changes_nothing():
    plain, model = tiny_llama(), PackedModel(tiny_llama())
    ids = torch.arange(12).reshape(1, 12)
    expected = plain(input_ids=ids).logits
    with model.rows_of([]) as causal:
        assert torch.equal(causal(input_ids=ids).logits, expected)
    with model.rows_of([PackedRows(model.new_adapter(config()), slice(0, 1))]) as causal:
        assert torch.equal(causal(input_ids=ids).logits, expected)


def test_rows_in_company_are_as_alone():
    """Three adapters of different rank, alpha, targets and length, dropout on: gradients within 1e-5 relative."""
    model = PackedModel(tiny_llama())
    model.model.train()
    configs = [
        config(rank=2, lora_dropout=0.2),
        config(rank=8, lora_alpha=4, target_modules="all_linear", seed=5),
        config(rank=3, target_modules=["down_proj", "o_proj"], lora_dropout=0.5, seed=9),
    ]
    adapters = [with_random_b(model.new_adapter(one), index) for index, one in enumerate(configs)]
    generator = torch.Generator().manual_seed(7)
    lengths, counts = (9, 14, 5), (2, 1, 3)
    batches = [
        torch.randint(97, (count, length), generator=generator) for count, length in zip(counts, lengths, strict=True)
    ]
    alone = []
    for adapter, ids, length in zip(adapters, batches, lengths, strict=True):
        with model.rows_of([PackedRows(adapter, slice(0, len(ids)), length, 17)]) as causal:
            causal(input_ids=ids).logits.square().mean().backward()
        alone.append([parameter.grad.clone() for parameter in adapter.parameters()])
        for parameter in adapter.parameters():
            parameter.grad = None
    padded = torch.cat([torch.nn.functional.pad(ids, (0, max(lengths) - ids.shape[1])) for ids in batches])
    edges = [0, 2, 3, 6]
    packed = [PackedRows(a, slice(edges[i], edges[i + 1]), lengths[i], 17) for i, a in enumerate(adapters)]
    with model.rows_of(packed) as causal:
        logits = causal(input_ids=padded).logits
        sum(logits[rows.rows, : rows.tokens].square().mean() for rows in packed).backward()
    for adapter, expected in zip(adapters, alone, strict=True):
        for parameter, gradient in zip(adapter.parameters(), expected, strict=True):
            assert torch.linalg.norm(parameter.grad - gradient) <= 1e-5 * torch.linalg.norm(gradient)
