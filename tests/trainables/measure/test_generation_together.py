"""Many adapters' answers to many prompts from few decoding loops: each is what its adapter writes alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.lora_cases import lora_config
from tests.support.small_models import tiny_llama
from tests.support.trainables.small_decoders import DECODERS, adapter_over, small_decoder
from trainables.base_model.upcast import upcast_products
from trainables.measure import generation
from trainables.measure.generation import generate, generate_all
from trainables.packed.adapter import LoraAdapter, PackedRows, by_likeness
from trainables.packed.packed_model import PackedModel

PROMPTS = [[5, 9], [30, 31, 32, 33, 34, 35, 36], [7]]
NEW_TOKENS = 10
UNTIED: dict[str, Any] = {"tie_word_embeddings": False}  # a random Gemma with a tied head repeats its last token
CHANGES = {
    "gemma": UNTIED,
    "gemma2": {**UNTIED, "head_dim": 16, "attn_implementation": "eager", "sliding_window": 4},
}
FREE = 2**40


def without_cache(model: PackedModel, adapter: LoraAdapter | None, prompt: list[int]) -> list[int]:
    """The likeliest next token, again and again, each from a pass over all before it."""
    tokens = list(prompt)
    packed = [PackedRows(adapter, slice(0, 1))] if adapter else []
    with model.rows_of(packed) as causal, torch.no_grad():
        for _ in range(NEW_TOKENS):
            tokens.append(int(causal.eval()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def asked_of(model: PackedModel) -> list[Any]:
    """Adapters of two footprints and the base, prompt by prompt, as a study asks."""
    adapters = [adapter_over(model, seed=seed, rank=rank) for seed, rank in ((1, 4), (2, 2), (3, 4))]
    return [(one, prompt) for prompt in PROMPTS for one in (None, *adapters)]


@pytest.mark.parametrize("model_type", [*DECODERS, "gemma2", "mixtral"])
def test_with_a_cache_and_in_company_each_writes_what_it_does_alone_without(model_type: str) -> None:
    model = PackedModel(small_decoder(model_type, **CHANGES.get(model_type, {})))
    model.model.generation_config.eos_token_id = None
    asked = asked_of(model)
    together = generate_all(model, asked, NEW_TOKENS, FREE)
    assert len({tuple(one) for one in together}) > len(PROMPTS)
    for (adapter, prompt), written in zip(asked, together, strict=True):
        assert written == without_cache(model, adapter, prompt)
        assert written == generate(model, adapter, prompt, NEW_TOKENS, exact=True)


@pytest.mark.parametrize("most_tokens", [1, 5 * 17, FREE])
def test_loops_are_as_few_as_the_tokens_allow(most_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each adapter at least; between two loops somebody else has a turn."""
    model = PackedModel(tiny_llama())
    model.model.generation_config.eos_token_id = None
    asked, loops, turns = asked_of(model), [], []
    expected = [generate(model, *one, NEW_TOKENS, exact=True) for one in asked]
    original = generation._greedy

    def noting(causal: Any, prompts: Any, *more: Any) -> Any:
        runs = {len(model.context.pack.runs((name,), torch.device("cpu"))) for name in model.linears}
        loops.append((len(prompts.ids), runs))
        return original(causal, prompts, *more)

    monkeypatch.setattr(generation, "_greedy", noting)
    assert generate_all(model, asked, NEW_TOKENS, most_tokens, between=lambda: turns.append(1)) == expected
    assert [rows for rows, _ in loops] == {1: [4, 4, 4], 5 * 17: [5, 5, 2], FREE: [12]}[most_tokens]
    assert len(turns) == len(loops)
    if most_tokens == FREE:  # the rows of two footprints lie together
        assert loops[0][1] == {2}


def test_a_text_ends_for_itself_and_nothing_is_left_behind() -> None:
    model = PackedModel(tiny_llama().train())
    asked = asked_of(model)
    whole = generate_all(model, asked, NEW_TOKENS, FREE)
    end = whole[1][3]
    ended = generate_all(model, asked, NEW_TOKENS, FREE, ends=[end])
    for one, other in zip(ended, whole, strict=True):
        assert one == (other[: other.index(end) + 1] if end in other else other)
    assert model.model.training
    assert model.context.dense is None
    assert not model.context.pack.members
    assert generate_all(model, [], NEW_TOKENS, FREE) == []


def test_cast_weights_are_kept_for_a_loop_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16-bit weights that are multiplied in fp32: cast once for a loop, or for each token; the text is the same."""
    plain = tiny_llama().bfloat16()
    upcast_products(plain)
    model = PackedModel(plain)
    asked, casts = asked_of(model), []
    layer = next(iter(model.linears.values()))
    layer.base.register_forward_hook(lambda *more: casts.append(1))
    kept = generate_all(model, asked, NEW_TOKENS, FREE)
    assert not casts
    monkeypatch.setattr("trainables.packed.packed_model.DENSE_BYTES", 0)
    assert generate_all(model, asked, NEW_TOKENS, FREE) == kept
    assert len(casts) == max(len(one) for one in kept)


def test_the_head_is_not_copied_for_each_row() -> None:
    """Of a slice of hidden states torch would make a batched product, of as many copies of the head as rows."""
    model = PackedModel(tiny_llama())
    seen = []
    model.model.lm_head.register_forward_pre_hook(lambda head, arguments: seen.append(arguments[0].is_contiguous()))
    generate_all(model, [(None, [1, 2, 3])] * 3, 2, FREE)
    assert seen == [True, True]


def test_adapters_of_one_footprint_are_neighbours_and_the_base_comes_first() -> None:
    of = [LoraAdapter(lora_config(rank=rank, seed=seed), {}) for seed, rank in enumerate((8, 2, 8, 4, 2))]
    assert by_likeness([*of, None]) == [5, 1, 4, 3, 0, 2]
