"""Greedy text against transformers' and PEFT's own `generate`, and against one full forward pass a token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.lora_cases import lora_config, peft_model, random_rows, trained_adapter
from tests.support.small_models import shared, tiny_llama
from trainables.base_model.load import load_base_model
from trainables.dataset.tokens.encoding import Encoding, prompt_tokens
from trainables.measure.generation import (
    generate,
    generate_together,
    generated_tokens_per_second,
    text_ends,
)
from trainables.packed.adapter import LoraAdapter
from trainables.packed.packed_model import PackedModel
from trainables.settings import BaseModelSettings

PROMPTS = [[5], [0, 0, 7], [96, 1, 2, 3, 0], list(range(30, 60))]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> PackedModel:
    model = tiny_llama().train()
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    return PackedModel(model)


@pytest.fixture(scope="module")
def adapter(model: PackedModel) -> LoraAdapter:
    return trained_adapter(model, lora_config(lora_dropout=0.4), random_rows(9))


def transformers_own(plain: torch.nn.Module, prompt: list[int], new_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    plain.eval()
    answer = plain.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens
    )
    return answer[0, len(prompt) :].tolist()


def token_by_token(plain: torch.nn.Module, prompt: list[int], new_tokens: int) -> list[int]:
    """The likeliest next token, again and again, past any EOS, without a cache of keys and values."""
    tokens = list(prompt)
    for _ in range(new_tokens):
        with torch.no_grad():
            tokens.append(int(plain(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_is_transformers_own_and_pefts(
    prompt: list[int], model: PackedModel, adapter: LoraAdapter, tmp_path: Path
) -> None:
    base = generate(model, None, prompt, 12)
    assert base == transformers_own(tiny_llama(), prompt, 12)
    tuned = generate(model, adapter, prompt, 12)
    assert tuned == transformers_own(peft_model(tiny_llama(), adapter, tmp_path), prompt, 12)
    assert tuned != base
    assert generate(model, None, prompt, 12) == base  # the adapter has left nothing behind


def test_training_mode_and_checkpointing_are_as_before(model: PackedModel, adapter: LoraAdapter) -> None:
    for training in (True, False, True):
        model.model.train(training)
        generate(model, adapter, [5, 6], 2)
        assert model.model.training is training
        assert all(module.training is training for module in model.model.modules())
    with pytest.raises(IndexError):
        generate(model, adapter, [97], 2)  # no such token
    assert model.model.training


def test_the_end_token_ends_it_unless_the_length_is_exact(model: PackedModel, adapter: LoraAdapter) -> None:
    whole = token_by_token(tiny_llama(), [5], 8)
    end = next(token for token in whole[2:] if whole.index(token) >= 2)
    model.model.generation_config.eos_token_id = end
    try:
        assert generate(model, None, [5], 8) == whole[: whole.index(end) + 1]
        model.model.generation_config.eos_token_id = [96, end]
        assert generate(model, None, [5], 8) == whole[: whole.index(end) + 1]
        model.model.generation_config.eos_token_id = None
        assert generate(model, None, [5], 8, ends=[end]) == whole[: whole.index(end) + 1]
        model.model.generation_config.eos_token_id = end
        assert generate(model, None, [5], 8, exact=True, ends=[end]) == whole
        for new_tokens in (0, 1, 3, 8, 20):
            for one in (None, adapter):
                assert len(generate(model, one, [5], new_tokens, exact=True)) == new_tokens
    finally:
        model.model.generation_config.eos_token_id = tiny_llama().generation_config.eos_token_id


def test_token_zero_is_a_token_like_any_other() -> None:
    """A model whose token names are exchanged writes the same text with its names exchanged."""
    plain = tiny_llama()
    whole = token_by_token(plain, [5, 9], 10)
    often = max(set(whole), key=whole.count)
    swap = {often: 0, 0: often}
    renamed = tiny_llama()
    for weight in (renamed.model.embed_tokens.weight, renamed.lm_head.weight):
        weight.data[[0, often]] = weight.data[[often, 0]]
    expected = [swap.get(token, token) for token in whole]
    assert 0 in expected
    renamed.generation_config.eos_token_id = None
    assert generate(PackedModel(renamed), None, [5, 9], 10) == expected


def test_what_a_models_own_settings_ask_for_does_not_change_greedy() -> None:
    plain = tiny_llama()
    whole = token_by_token(plain, [5, 9], 10)
    for name, value in (("do_sample", True), ("temperature", 5.0), ("top_p", 0.5), ("repetition_penalty", 9.0)):
        setattr(plain.generation_config, name, value)
    plain.generation_config.eos_token_id = None
    model = PackedModel(plain)
    assert generate(model, None, [5, 9], 10) == whole
    assert generate(model, None, [5, 9], 10) == whole


def test_a_model_that_has_learned_tells_a_story() -> None:
    base = load_base_model(BaseModelSettings(str(shared("models/stories260K"))), "fp32", "cpu")
    model, tokenizer = PackedModel(base.model), base.tokenizer
    fresh = model.new_adapter(lora_config())
    prompt = prompt_tokens(Encoding(tokenizer), "Once upon a time, there was a little")
    plain, tuned = generate_together(model, [None, fresh], prompt, 24, ends=text_ends(tokenizer))
    assert tokenizer.decode(plain, skip_special_tokens=True).strip().startswith("girl named")
    assert plain == tuned  # a fresh adapter changes nothing


def test_together_each_writes_what_it_writes_alone(model: PackedModel) -> None:
    """Of several lengths, since each row ends for itself."""
    adapters = [None, *(trained_adapter(model, lora_config(), random_rows(seed)) for seed in (1, 2, 3))]
    alone = [generate(model, one, [5, 9], 12, exact=True) for one in adapters]
    assert len({tuple(one) for one in alone}) > 1
    assert generate_together(model, adapters, [5, 9], 12, exact=True) == alone
    end = alone[1][3]
    ended = [generate(model, one, [5, 9], 12, ends=[end]) for one in adapters]
    assert len({len(one) for one in ended}) > 1
    assert generate_together(model, adapters, [5, 9], 12, ends=[end]) == ended


@pytest.mark.parametrize(
    ("seconds", "compiled", "speed", "asked"),
    [
        ([7.0, 7.0, 2.0, *[0.1] * 15], False, 16 / 3.5, 8),  # sure after five tokens beyond the prompt's
        ([2.0, *[0.1] * 15], True, 16 / 3.5, 6),
        ([2.0, 0.1, 0.2, *[0.1] * 13], True, 16 / 3.5, 9),  # one was disturbed
        ([2.0, *[0.1, 0.3] * 7, 0.1], True, 16 / 3.5, 16),  # never sure: all are written
    ],
)
def test_the_speed_is_that_of_so_many_tokens(
    model: PackedModel,
    adapter: LoraAdapter,
    monkeypatch: pytest.MonkeyPatch,
    seconds: list[float],
    compiled: bool,
    speed: float,
    asked: int,
) -> None:
    """With a clock that only passes move on: a warm-up that is not counted, the prompt's pass, 15 times the median."""
    now, passes = [0.0], []
    forward = model.model.forward

    def slow(*arguments: object, **more: object) -> object:
        now[0] += seconds[len(passes)]
        passes.append(more)
        return forward(*arguments, **more)

    monkeypatch.setattr(model.model, "forward", slow)
    monkeypatch.setattr("trainables.measure.generation._cache_argument", lambda causal: "past_key_values")
    monkeypatch.setattr("trainables.measure.generation.time.perf_counter", lambda: now[0])
    found = generated_tokens_per_second(model, adapter, [5], 16, compiled)
    assert found == pytest.approx(speed)
    assert len(passes) == asked


def test_one_token_is_the_prompts_own_pass(model: PackedModel) -> None:
    assert generated_tokens_per_second(model, None, [5, 9], 1) > 0
