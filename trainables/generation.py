"""Side-by-side samples, and how fast a model writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from trainables.packed_lora import LoraAdapter, PackedModel, PackedRows


def generate(
    model: PackedModel, adapter: LoraAdapter | None, tokens: Sequence[int], new_tokens: int, exact: bool = False
) -> list[int]:
    """Greedy continuation of a prompt's tokens, at most `new_tokens` long (`exact`: just so long, past any EOS)."""
    packed = [PackedRows(adapter, slice(0, 1))] if adapter else []
    prompt = torch.tensor([list(tokens)], device=model.device)
    was_training = model.model.training
    model.model.eval()  # checkpointing and the key-value cache exclude each other
    try:
        with model.rows_of(packed) as causal, torch.no_grad():
            answer = causal.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens if exact else None,
                use_cache=True,
                pad_token_id=0,
            )
    finally:
        model.model.train(was_training)
    return answer[0, len(tokens) :].tolist()


def answer_text(
    model: PackedModel, adapter: LoraAdapter | None, tokenizer: Any, prompt: str, new_tokens: int
) -> str:
    """The continuation of a prompt as text, without special tokens."""
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    tokens = bos + tokenizer.encode(prompt, add_special_tokens=False)
    return tokenizer.decode(generate(model, adapter, tokens, new_tokens), skip_special_tokens=True).strip()


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
