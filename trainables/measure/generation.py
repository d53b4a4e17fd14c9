"""Generates text with several adapters at once, and measures decoding speed."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache

from trainables.measure.agreement import median_is_sure
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.packed_model import PackedModel


def generate(
    model: PackedModel,
    adapter: LoraAdapter | None,
    tokens: Sequence[int],
    new_tokens: int,
    exact: bool = False,
    ends: Collection[int] = (),
    goes_on: Callable[[], bool] = lambda: True,
) -> list[int]:
    """One adapter's continuation of a prompt, or the base model's (None): `generate_together` for it alone."""
    (written,) = generate_together(model, [adapter], tokens, new_tokens, exact, ends, goes_on)
    return written


def generate_together(
    model: PackedModel,
    adapters: Sequence[LoraAdapter | None],
    tokens: Sequence[int],
    new_tokens: int,
    exact: bool = False,
    ends: Collection[int] = (),
    goes_on: Callable[[], bool] = lambda: True,
) -> list[list[int]]:
    """Each adapter's greedy continuation of a prompt (None: the base model's), up to and with the first token that
    ends a text, at most `new_tokens`; the base runs once for all of them.

    The model's own end tokens end it, and `ends`; with `exact` none does. What else the model's generation settings ask
    for (sampling, penalties) is left out: the likeliest token follows, whatever came before. `goes_on` is asked
    after each token, once it is known.
    """
    packed = [PackedRows(adapter, slice(row, row + 1)) for row, adapter in enumerate(adapters) if adapter]
    stops = set() if exact else {*_end_tokens(model.model), *ends}
    was_training = model.model.training
    model.model.eval()  # checkpointing and the key-value cache exclude each other
    try:
        with model.rows_of(packed) as causal, torch.no_grad():
            ids = torch.tensor([list(tokens)] * len(adapters), device=model.device)
            return _greedy(causal, ids, new_tokens, stops, goes_on)
    finally:
        model.model.train(was_training)


def _greedy(
    causal: Any, ids: torch.Tensor, new_tokens: int, stops: Collection[int], goes_on: Callable[[], bool]
) -> list[list[int]]:
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
        if not (writing and goes_on()):
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
    model: PackedModel, adapter: LoraAdapter | None, prompt: Sequence[int], new_tokens: int, compiled: bool = False
) -> float:
    """Returns the speed of decoding `new_tokens` alone, after a warm-up; the prompt's own pass is in the time.

    Each token is waited for. Once the median of their seconds is known to within 5 %, it stands for the others.
    Without a warm-up where all kernels are `compiled`.
    """
    if not compiled:
        generate(model, adapter, prompt, 2, exact=True)
    synchronize(model.devices)
    stamps = [time.perf_counter()]

    def goes_on() -> bool:
        stamps.append(time.perf_counter())
        return not median_is_sure(_each(stamps)[1:])

    generate(model, adapter, prompt, new_tokens, exact=True, goes_on=goes_on)
    of_prompt, *decoding = _each(stamps)
    return new_tokens / (of_prompt + (new_tokens - 1) * (statistics.median(decoding) if decoding else 0.0))


def _each(stamps: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(stamps)]


def synchronize(devices: Iterable[torch.device]) -> None:
    """Waits for all queued work of cards."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
