"""Bounds that the memory model, the plan and the engine share, so that what is planned is what is done."""

from __future__ import annotations

DEFAULT_PACK = {"cpu": 4, "cuda": 8}  # adapters that train together on one device, unless the study says otherwise
MOST_PASS_TOKENS = {"cpu": 512, "cuda": 65536}  # of one pass through the base model
MEASURED_PASSES = 6  # of a footprint alone: warm-up, timed, the longest
TRAINING_BYTES = 16  # of a trainable number: weight, gradient, and AdamW's two moments, all fp32
LOGITS_CHUNK_BYTES = 64 * 2**20  # of logits that exist at once, in the head's type
_FEWEST_CHUNK_ROWS, _CHUNK_ROWS = 16, 64


def logits_chunk_rows(vocabulary: int, number_bytes: int) -> int:
    """How many positions' logits exist at once: at least 16, and a multiple of 64 where there are as many."""
    rows = max(_FEWEST_CHUNK_ROWS, LOGITS_CHUNK_BYTES // (number_bytes * vocabulary))
    return rows if rows < _CHUNK_ROWS else rows // _CHUNK_ROWS * _CHUNK_ROWS
