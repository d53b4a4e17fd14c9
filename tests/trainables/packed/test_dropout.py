"""Dropout masks: what decides them, and how often they drop."""

import copy

import pytest
import torch

from tests.support.lora_cases import lora_config
from trainables.packed.dropout import dropout_mask


def test_dropout_masks_depend_on_seed_layer_and_step_alone():
    like = torch.ones(4, 50, 8)
    one = lora_config(lora_dropout=0.25)
    mask = dropout_mask(one, "layer", 5, like)
    assert torch.equal(mask, dropout_mask(copy.deepcopy(one), "layer", 5, like))
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.06)  # 1600 draws: four standard errors
    for other in (dropout_mask(one, "layer", 6, like), dropout_mask(one, "other", 5, like),
                  dropout_mask(lora_config(lora_dropout=0.25, seed=4), "layer", 5, like)):  # fmt: skip
        assert not torch.equal(mask, other)
