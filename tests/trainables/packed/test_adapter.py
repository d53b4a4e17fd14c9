"""An adapter's initialization is PEFT's, its own for each seed and layer."""

import pytest
import torch

from tests.support.lora_cases import lora_config
from tests.support.small_models import tiny_llama
from trainables.packed.packed_model import PackedModel


def test_the_start_is_pefts_distribution_per_seed_and_layer_and_leaves_the_global_state_alone():
    model, changes = PackedModel(tiny_llama()), {"rank": 32, "target_modules": "q_v"}
    before = torch.random.get_rng_state()
    first, again = (model.new_adapter(lora_config(**changes)) for _ in range(2))
    other = model.new_adapter(lora_config(**changes, seed=4))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(first.weights.values())
    bound = 1 / 32**0.5
    values = torch.cat([pair.a.flatten() for pair in pairs])
    assert values.abs().max() <= bound
    assert float(values.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(not pair.b.any() for pair in pairs)
    assert torch.equal(pairs[0].a, next(iter(again.weights.values())).a)
    assert not torch.equal(pairs[0].a, next(iter(other.weights.values())).a)
    assert not torch.equal(pairs[0].a, pairs[2].a)
