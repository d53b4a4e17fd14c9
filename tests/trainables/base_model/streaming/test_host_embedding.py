"""An embedding that is looked up in host memory gives the vectors of the one on the card, whatever its family's is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.lora_cases import lora_config
from tests.support.small_models import tiny_llama
from tests.support.streaming.streamed_models import life_of, same, streamed_model
from tests.support.trainables.tiny_families import tiny_family
from trainables.base_model.streaming.host_embedding import embed_from_host
from trainables.base_model.upcast import upcast_products

IDS = torch.tensor([[3, 60, 3], [0, 59, 1]])


def model_of(case: str) -> Any:
    if case == "llama padded":  # whose padding token is beyond the rows of a batch
        model = tiny_llama()
        model.get_input_embeddings().padding_idx = 96
        return model
    model = tiny_family("gemma2", torch.bfloat16, tie_word_embeddings=False)  # its embedding scales the vectors
    if case == "gemma2 upcast":
        upcast_products(model)
    return model


@pytest.mark.parametrize("case", ["llama padded", "gemma2", "gemma2 upcast"])
def test_vectors_are_those_of_the_card(case: str) -> None:
    """Tolerance: none."""
    model = model_of(case)
    embedding = model.get_input_embeddings()
    expected = embedding(IDS)
    embed_from_host(model)
    found = embedding(IDS)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    weight = embedding.weight
    assert (weight.shape, weight.device) == (model.get_output_embeddings().weight.shape, torch.device("cpu"))
    assert weight.isnan().all()
    assert weight.untyped_storage().nbytes() <= 4  # a stand-in's one number
    assert torch.equal(embedding(IDS[:, :1]), expected[:, :1])


def test_one_that_is_the_heads_too_is_left_as_it_is() -> None:
    model = tiny_family("gemma2")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    embed_from_host(model)
    assert not model.get_output_embeddings().weight.isnan().any()


@pytest.mark.parametrize("fused", [True, False])
def test_trainings_evaluations_and_texts_are_those_of_the_card(fused: bool) -> None:
    """Tolerance: none."""
    found = []
    for on_host in (False, True):
        model = tiny_llama(layers=1)
        if on_host:
            embed_from_host(model)
        found.append(life_of(streamed_model(model, 0, fused), [lora_config(lora_dropout=0.1)], 97))
    assert same(*found)
