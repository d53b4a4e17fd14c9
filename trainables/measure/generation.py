"""Generates text with several adapters at once, and measures decoding speed."""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.packed_model import PackedModel


def generate(
    model: PackedModel,
    adapter: LoraAdapter | None,
    tokens: Sequence[int],
    new_tokens: int,
    exact: bool = False,
    ends: Collection[int] = (),
) -> list[int]:
    """One adapter's continuation of a prompt, or the base model's (None): `generate_together` for it alone."""
    (written,) = generate_together(model, [adapter], tokens, new_tokens, exact, ends)
    return written


def generate_together(
    model: PackedModel,
    adapters: Sequence[LoraAdapter | None],
    tokens: Sequence[int],
    new_tokens: int,
    exact: bool = False,
    ends: Collection[int] = (),
) -> list[list[int]]:
    """Each adapter's greedy continuation of a prompt (None: the base model's), up to and with the first token that
    ends a text, at most `new_tokens`; the base runs once for all of them.

    The model's own end tokens end it, and `ends`; with `exact` none does. What else the model's generation settings ask
    for (sampling, penalties) is left out: the likeliest token follows, whatever came before.
    """
    packed = [PackedRows(adapter, slice(row, row + 1)) for row, adapter in enumerate(adapters) if adapter]
    stops = set() if exact else {*_end_tokens(model.model), *ends}
    was_training = model.model.training
    model.model.eval()  # checkpointing and the key-value cache exclude each other
    try:
        with model.rows_of(packed) as causal, torch.no_grad():
            ids = torch.tensor([list(tokens)] * len(adapters), device=model.device)
            return _greedy(causal, ids, new_tokens, stops)
    finally:
        model.model.train(was_training)


def _greedy(causal: Any, ids: torch.Tensor, new_tokens: int, stops: Collection[int]) -> list[list[int]]:
    """Row by row; one that has ended is carried along until all have."""
    written: list[list[int]] = [[] for _ in range(len(ids))]
    writing = set(range(len(ids)))
    cache = {_cache_argument(causal): DynamicCache(config=causal.config)}  # filled in place
    for _ in range(new_tokens):
        logits = causal(input_ids=ids, use_cache=True, logits_to_keep=1, **cache).logits
        ids = logits[:, -1].argmax(dim=-1, keepdim=True)
        for row, token in enumerate(ids[:, 0].tolist()):
            if row in writing:
                written[row].append(token)
        writing = {row for row in writing if written[row][-1] not in stops}
        if not writing:
            break
    return written


def _cache_argument(causal: Any) -> str:
    """What the model calls its keys and values: transformers renamed it within the versions that we take."""
    return "cache" if "cache" in inspect.signature(causal.forward).parameters else "past_key_values"


def _end_tokens(causal: Any) -> list[int]:
    end = causal.generation_config.eos_token_id
    return end if isinstance(end, list) else [] if end is None else [end]


def text_ends(tokenizer: Any) -> list[int]:
    """What training has taught an adapter to end a text with."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def generated_tokens_per_second(
    model: PackedModel, adapter: LoraAdapter | None, prompt: Sequence[int], new_tokens: int
) -> float:
    """Decoding speed alone, synchronized, after a warm-up; the prompt's own pass is in the time."""
    generate(model, adapter, prompt, 2, exact=True)
    synchronize(model.devices)
    start = time.perf_counter()
    written = generate(model, adapter, prompt, new_tokens, exact=True)
    synchronize(model.devices)
    return len(written) / (time.perf_counter() - start)


def synchronize(devices: Iterable[torch.device]) -> None:
    """Waits for all queued work of cards."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
