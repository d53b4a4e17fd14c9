"""Sizes that the memory model, the plan and the engine share: the default pack, passes, logits, scores."""

from __future__ import annotations

# Adapters that train together on one device, unless the study says otherwise. On a card of known rates it is the least
# bound: `study.plan.phases` takes larger packs where they pay. Shares of a device are parts of 240, so 9 is taken as 8.
DEFAULT_PACK = {"cpu": 4, "cuda": 8}

# Tokens of one pass through the base model. Past the usual ones a pass gains nothing: a CPU is busy from a few hundred
# on, a card from a few thousand with 8 billion parameters. With 0.1 billion it is not: a card takes more, up to the
# most, where such a pass was measured to be short.
USUAL_PASS_TOKENS = {"cpu": 512, "cuda": 8192}
MOST_PASS_TOKENS = {"cpu": USUAL_PASS_TOKENS["cpu"], "cuda": 65536}
MEASURED_PASSES = 6  # of a footprint alone: warm-up, timed, the longest

# Of a process' CUDA context on a card: 0.3 to 0.7 GiB are usual, a T4's is 450 MiB. What is beyond is another process'.
USUAL_CONTEXT_BYTES = 450 * 2**20
MOST_CONTEXT_BYTES = 3 * 2**29

ALIGNED_BYTES = 512  # the CUDA allocator places tensors at multiples of it, as does a layer's block in host memory

FP32_BYTES = 4
# bitsandbytes' 8-bit optimizers (Dettmers et al. 2022, arXiv 2110.02861; its `Optimizer2State.init_state`): moments of
# a parameter that has so many numbers or more are in 8 bits, and so many of them share an absmax.
FEWEST_8BIT_NUMBERS, MOMENT_BLOCK = 4096, 256

TRAINING_BYTES = 4 * FP32_BYTES  # of a trainable number: weight, gradient, and AdamW's two moments

# NF4 with double quantization (Dettmers et al. 2023, arXiv 2305.14314): 4 bits a value, a byte for each block's absmax,
# an fp32 scale for each block of those.
NF4_BLOCK = 64  # values that share an absmax
ABSMAX_BLOCK = 256  # absmax values that share a scale
NF4_VALUE_BYTES = 0.5 + 1 / NF4_BLOCK + FP32_BYTES / (NF4_BLOCK * ABSMAX_BLOCK)

# Of capped attention scores that exist at once, in fp32; a backward pass has up to six tensors of their size.
CAPPED_SCORES_BYTES = 64 * 2**20

LOGITS_CHUNK_BYTES = 64 * 2**20  # of logits that exist at once, in the head's type
_FEWEST_CHUNK_ROWS, _CHUNK_ROWS = 16, 64


def logits_chunk_rows(vocabulary: int, number_bytes: int) -> int:
    """Counts the positions whose logits exist at once, each of `vocabulary` numbers of `number_bytes` bytes.

    As many as `LOGITS_CHUNK_BYTES` hold, but at least 16; a multiple of 64 where there are 64 or more.
    """
    rows = max(_FEWEST_CHUNK_ROWS, LOGITS_CHUNK_BYTES // (number_bytes * vocabulary))
    return rows if rows < _CHUNK_ROWS else rows // _CHUNK_ROWS * _CHUNK_ROWS


def capped_score_part(heads: int, tokens: int, room_bytes: int | None = None) -> tuple[int, int]:
    """Returns of how many rows, and of how many queries of each, capped attention scores exist at once.

    As many as `room_bytes` (None: `CAPPED_SCORES_BYTES`) hold of whole rows; else of one row as many queries; at least
    one query.
    """
    room = CAPPED_SCORES_BYTES if room_bytes is None else room_bytes
    of_query = FP32_BYTES * heads * tokens
    queries = min(tokens, max(1, room // of_query))
    return max(1, room // (of_query * tokens)), queries
