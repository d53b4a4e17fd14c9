"""Generates text with several adapters at once, and measures decoding speed."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache

from trainables.measure.agreement import median_is_sure
from trainables.packed.adapter import LoraAdapter, PackedRows, by_likeness
from trainables.packed.packed_model import PackedModel

Asked = tuple[LoraAdapter | None, Sequence[int]]  # an adapter, or the base model, and its prompt


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
    stops = set() if exact else {*_end_tokens(model.model), *ends}
    return _decoded(model, [(adapter, tokens) for adapter in adapters], new_tokens, stops, goes_on)


def generate_all(
    model: PackedModel,
    asked: Sequence[Asked],
    new_tokens: int,
    most_tokens: int,
    ends: Collection[int] = (),
    between: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """Returns the greedy continuations of adapters' prompts, in their order, from as few decoding loops as possible.

    Text ends as in `generate_together`. A loop has at most `most_tokens` tokens, or a row for each adapter. Adapters of
    one footprint are neighbours in it, whose rows share products, and what a processor would make of a weight for every
    token it makes once. `between` is called after each loop.
    """
    stops = {*_end_tokens(model.model), *ends}
    order = _neighbours(asked)
    longest = max((len(tokens) for _, tokens in asked), default=0) + new_tokens
    size = max(1, len({adapter for adapter, _ in asked}), most_tokens // max(1, longest))
    written: dict[int, list[int]] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        texts = _decoded(model, [asked[place] for place in places], new_tokens, stops, keeps=True)
        written.update(zip(places, texts, strict=True))
        between()
    return [written[place] for place in range(len(asked))]


def _neighbours(asked: Sequence[Asked]) -> list[int]:
    """Places of what is asked: an adapter's prompts next to each other, and adapters by likeness."""
    adapters = list(dict.fromkeys(adapter for adapter, _ in asked))
    rank = {adapters[place]: number for number, place in enumerate(by_likeness(adapters))}
    return sorted(range(len(asked)), key=lambda place: rank[asked[place][0]])


def _decoded(
    model: PackedModel,
    asked: Sequence[Asked],
    new_tokens: int,
    stops: Collection[int],
    goes_on: Callable[[], bool] = lambda: True,
    keeps: bool = False,
) -> list[list[int]]:
    packed = [PackedRows(adapter, slice(row, row + 1)) for row, (adapter, _) in enumerate(asked) if adapter]
    was_training = model.model.training
    model.model.eval()  # checkpointing and the key-value cache exclude each other
    try:
        with model.rows_of(packed, keeps) as causal, torch.no_grad():
            return _greedy(
                causal, Prompts.of([tokens for _, tokens in asked], model.device), new_tokens, stops, goes_on
            )
    finally:
        model.model.train(was_training)


@dataclass(frozen=True)
class Prompts:
    """Prompts as rows x tokens, filled up on the left; `mask` (1: a prompt's own token) is None where none needs it."""

    ids: torch.Tensor
    mask: torch.Tensor | None

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], device: torch.device) -> Prompts:
        """Lays prompts side by side, so that their last tokens are in one column."""
        longest = max(len(tokens) for tokens in prompts)
        gaps = [longest - len(tokens) for tokens in prompts]
        ids = [[0] * gap + list(tokens) for gap, tokens in zip(gaps, prompts, strict=True)]
        mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
        return cls(torch.tensor(ids, device=device), torch.tensor(mask, device=device) if any(gaps) else None)


def _greedy(
    causal: Any, prompts: Prompts, new_tokens: int, stops: Collection[int], goes_on: Callable[[], bool]
) -> list[list[int]]:
    """Row by row; one that has ended is carried along until all have."""
    ids, mask = prompts.ids, prompts.mask
    written: list[list[int]] = [[] for _ in range(len(ids))]
    writing = set(range(len(ids)))
    cache = {_cache_argument(causal): DynamicCache(config=causal.config)}  # filled in place
    for _ in range(new_tokens):
        last = _taken(causal, {"logits_to_keep": 1})  # a model that cannot leave out the others' logits computes them
        logits = causal(input_ids=ids, use_cache=True, **last, **cache, **_places(causal, ids, mask)).logits
        ids = logits[:, -1].argmax(dim=-1, keepdim=True)
        mask = None if mask is None else torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
        for row, token in enumerate(ids[:, 0].tolist()):
            if row in writing:
                written[row].append(token)
        writing = {row for row in writing if written[row][-1] not in stops}
        if not (writing and goes_on()):
            break
    return written


def _places(causal: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Says where the tokens of `ids` stand in their rows; `mask` has their rows' tokens so far."""
    if mask is None:
        return {}
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return {"attention_mask": mask, **_taken(causal, {"position_ids": positions})}


def _taken(causal: Any, named: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments that a model's forward takes."""
    parameters = inspect.signature(causal.forward).parameters
    return {name: value for name, value in named.items() if name in parameters}


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
