"""A base model over several cards: against every other split, and where its modules go."""

import dataclasses
import itertools

import pytest

from tests.support.trainables.memory_cases import ALL_LINEAR, CONFIGS, FP16, GIB, LLAMA_3, NF4, Q_V, weight_bytes
from trainables.base_model.probe.look import facts_of
from trainables.base_model.shape import ModelShape
from trainables.memory.card_split import cards_needed, cards_of_modules, module_cards, predict_split, split_layers
from trainables.memory.prediction import predict_pack
from trainables.memory.setting import AdapterLoad
from trainables.memory.weights import ModelPart, base_components
from trainables.settings import BaseModelSettings, DatasetSettings, TrainingSettings, TrialSettings

T4_BYTES = int(14.56 * GIB)


def test_sixteen_bits_need_two_t4s_and_nf4_one():
    load = AdapterLoad(8, Q_V, True, 1, 512, 512)
    assert cards_needed(LLAMA_3, FP16, load, T4_BYTES, 4) == 2
    assert cards_needed(LLAMA_3, FP16, load, T4_BYTES, 1) is None
    assert cards_needed(LLAMA_3, NF4, load, T4_BYTES, 4) == 1


def test_a_decoder_without_a_form_stays_on_one_card():
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    facts = facts_of({"model_type": "olmo", **sizes, "num_attention_heads": 4, "max_position_embeddings": 128})
    shape, load = ModelShape.of_facts(facts), AdapterLoad(8, Q_V, True, 1, 64, 64)
    assert cards_needed(shape, FP16, load, T4_BYTES, 4) == 1
    assert cards_needed(shape, FP16, load, weight_bytes(shape, FP16) // 2, 4) is None


@pytest.mark.parametrize("cards", [1, 2, 3, 4])
def test_a_split_is_the_best_of_all(cards):
    """Brute force over every way to cut a small model's layers into `cards` runs, for the usual adapter."""
    config = {**CONFIGS["llama-3-8b"], "num_hidden_layers": 9}
    shape, load = ModelShape.from_config(config), AdapterLoad(16, ALL_LINEAR, False, 1, 512, 512)
    parts = split_layers(shape, FP16, 1, 512, cards)
    assert sum(part.layers for part in parts) == 9
    assert [part.has_embedding for part in parts] == [True] + [False] * (cards - 1)
    assert [part.has_head for part in parts] == [False] * (cards - 1) + [True]
    fullest = max(one.needed_bytes for one in predict_split(shape, FP16, load, cards))
    for counts in itertools.product(range(1, 10), repeat=cards):
        if sum(counts) == 9:
            others = [ModelPart(n, place == 0, place == cards - 1) for place, n in enumerate(counts)]
            assert fullest <= max(predict_pack(shape, FP16, [load], part=part).needed_bytes for part in others)


def test_the_parts_of_a_split_hold_the_whole_base_once():
    tied = dataclasses.replace(LLAMA_3, tie_word_embeddings=True)
    for shape in (LLAMA_3, tied):
        parts = split_layers(shape, FP16, 1, 512, 3)
        held = sum(sum(base_components(shape, FP16, part).values()) for part in parts)
        assert held == pytest.approx(weight_bytes(shape, FP16), abs=64)


def test_modules_go_to_cards_in_the_models_order_and_a_tied_head_to_its_embedding():
    assert module_cards([ModelPart(2, True, False), ModelPart(1, False, True)]) == {
        "model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 0,
        "model.layers.2": 1, "model.norm": 1, "lm_head": 1,
    }  # fmt: skip
    tied = dataclasses.replace(LLAMA_3, tie_word_embeddings=True)
    cards = module_cards(split_layers(tied, FP16, 1, 512, 2))
    assert (cards["lm_head"], cards["model.norm"], cards["model.embed_tokens"]) == (0, 1, 0)
    assert sorted(cards) == sorted({*cards, *(f"model.layers.{number}" for number in range(tied.layers))})


def test_plan_and_host_split_alike():
    """Whatever kernel attends, and whatever the adapter: both ask for the rows alone."""
    dataset, training = DatasetSettings("rows"), TrainingSettings(micro_batch_size=2)
    trial = TrialSettings(BaseModelSettings("model"), dataset, training)
    for attention in ("flash", "memory_efficient"):
        setting = dataclasses.replace(FP16, attention=attention)
        parts = split_layers(LLAMA_3, setting, 2, 512, 4)
        assert module_cards(parts) == cards_of_modules(LLAMA_3, trial, "fp16", "fp16", 512, 4)
