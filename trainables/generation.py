"""Side-by-side samples, and how fast a model writes."""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from trainables.packed_lora import LoraAdapter, PackedModel, PackedRows


def generate(
    model: PackedModel,
    adapter: LoraAdapter | None,
    tokens: Sequence[int],
    new_tokens: int,
    exact: bool = False,
    ends: Collection[int] = (),
) -> list[int]:
    """Greedy continuation of a prompt's tokens, up to and with the first token that ends a text, at most `new_tokens`.

    The model's own end tokens end it, and `ends`; with `exact` none does. What else the model's generation settings ask
    for (sampling, penalties) is left out: the likeliest token follows, whatever came before.
    """
    packed = [PackedRows(adapter, slice(0, 1))] if adapter else []
    stops = set() if exact else {*_end_tokens(model.model), *ends}
    was_training = model.model.training
    model.model.eval()  # checkpointing and the key-value cache exclude each other
    try:
        with model.rows_of(packed) as causal, torch.no_grad():
            return _greedy(causal, torch.tensor([list(tokens)], device=model.device), new_tokens, stops)
    finally:
        model.model.train(was_training)


def _greedy(causal: Any, ids: torch.Tensor, new_tokens: int, stops: Collection[int]) -> list[int]:
    written: list[int] = []
    cache = {_cache_argument(causal): DynamicCache(config=causal.config)}  # filled in place
    while len(written) < new_tokens and not (written and written[-1] in stops):
        logits = causal(input_ids=ids, use_cache=True, logits_to_keep=1, **cache).logits
        ids = logits[:, -1].argmax(dim=-1, keepdim=True)
        written.append(int(ids))
    return written


def _cache_argument(causal: Any) -> str:
    """What the model calls its keys and values: transformers renamed it within the versions that we take."""
    return "cache" if "cache" in inspect.signature(causal.forward).parameters else "past_key_values"


def _end_tokens(causal: Any) -> list[int]:
    end = causal.generation_config.eos_token_id
    return end if isinstance(end, list) else [] if end is None else [end]


def answer_text(model: PackedModel, adapter: LoraAdapter | None, tokenizer: Any, prompt: str, new_tokens: int) -> str:
    """The continuation of a prompt as text, without special tokens."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]  # what training taught it to end with
    tokens = bos + tokenizer.encode(prompt, add_special_tokens=False)
    return tokenizer.decode(generate(model, adapter, tokens, new_tokens, ends=ends), skip_special_tokens=True).strip()


def generated_tokens_per_second(
    model: PackedModel, adapter: LoraAdapter | None, prompt: Sequence[int], new_tokens: int
) -> float:
    """Decoding speed alone, synchronized, after a warm-up; the prompt's own pass is in the time."""
    generate(model, adapter, prompt, 2, exact=True)
    synchronize(model.device)
    start = time.perf_counter()
    written = generate(model, adapter, prompt, new_tokens, exact=True)
    synchronize(model.device)
    return len(written) / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Waits for all queued work of a card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
