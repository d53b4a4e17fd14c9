"""Counts the bytes of attention, by the kernel that attends: what it keeps, and what it needs meanwhile.

In the formulas n is the pass' tokens, a and k are the widths of all heads' queries and of all heads' keys, e is the
bytes of an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES, capped_score_part
from trainables.memory.setting import MemorySetting, Pass

# The memory-efficient kernel's backward sums keys' and values' gradients in fp32 beside the registers where heads of 16
# bits are wider than 64: tiles of 64 keys, for each row and head, or for 200 of them (torch 2.13, kernel_backward.h).
STAGED_HEAD_DIM, STAGED_KEYS, FEWEST_STAGED = 64, 64, 200


Kernel = Literal["flash", "memory_efficient", "cpu", "math", "capped"]


def kernel_of(shape: ModelShape, setting: MemorySetting, one: Pass) -> Kernel:
    """Says what attends in the fused layers that need most: capped scores are their own mathematics.

    FlashAttention takes no mask, which a window needs that is shorter than the rows.
    """
    if shape.caps_attention:
        return "capped"
    return "memory_efficient" if setting.attention == "flash" and is_masked(shape, one) else setting.attention


def is_masked(shape: ModelShape, one: Pass) -> bool:
    """Whether layers read a mask of tokens by tokens, in the fused layers."""
    return shape.sliding_window is not None and shape.sliding_window < one.width and not shape.caps_attention


@dataclass(frozen=True)
class Heads:
    """The heads of a layer's attention."""

    count: int
    key_count: int
    head_dim: int

    @classmethod
    def of(cls, shape: ModelShape) -> Heads:
        """A model's heads."""
        return cls(shape.attention_heads, shape.key_value_heads, shape.head_dim)

    @property
    def query_size(self) -> int:
        """Numbers in all heads' queries of one token (a)."""
        return self.count * self.head_dim

    @property
    def key_size(self) -> int:
        """Numbers in all heads' keys of one token (k)."""
        return self.key_count * self.head_dim


def attention_workspace(heads: Heads, kernel: Kernel, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes inside the attention's backward, beside gradients.

    Both kernels without scores sum the queries' gradient in fp32 (4 a); the memory-efficient one stages keys' and
    values' too where they do not fit the registers.
    """
    if kernel == "cpu":
        return 0
    if kernel == "capped":
        return _capped_workspace(heads, setting, one)
    if kernel == "math":
        return 2 * FP32_BYTES * pairs(heads, one)
    summed = FP32_BYTES * one.tokens * heads.query_size
    staged = kernel == "memory_efficient" and setting.compute_bytes < FP32_BYTES
    if not staged or heads.head_dim <= STAGED_HEAD_DIM:
        return summed
    tiles = max(FEWEST_STAGED, one.rows * heads.count)
    return summed + 2 * tiles * STAGED_KEYS * heads.head_dim * FP32_BYTES


def _capped_workspace(heads: Heads, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes inside the backward of capped scores, a part of the rows or of a row's queries at a time.

    Of the part's rows the gradients of queries (a e), of keys and values in fp32 (8 a), those of the rows before too;
    of several rows also the attention's gradient, queries, keys and values (4 a e); and scores.
    """
    if not one.rows:
        return 0
    e = setting.compute_bytes
    together, queries = capped_score_part(heads.count, one.width)
    rows = min(one.rows, together)
    copies = 4 * e if rows > 1 else 0
    gradients = (e + 2 * FP32_BYTES) * (1 if rows == one.rows else 2)
    numbers = rows * one.width * heads.query_size
    scores = _capped_scores(rows * heads.count, one.width, queries, e, FP32_BYTES * numbers)
    return numbers * (copies + gradients) + scores


def _capped_scores(rows: int, width: int, queries: int, e: int, summed_bytes: int) -> int:
    """Returns the bytes of scores, a part of the queries after the other, each with the keys up to its last.

    Four tensors of fp32; or three, their gradient in e, and what is summed to the gradient of keys. Then the next
    part's three, while the former's three and their gradient are there, with 9 bytes a pair for what is hidden.
    """
    half = e if e < FP32_BYTES else 0  # else it is no copy
    before = most = 0
    for first in range(0, width, queries):
        stop = min(width, first + queries)
        own = rows * (stop - first) * stop
        ends = max(4 * FP32_BYTES * own, (3 * FP32_BYTES + half) * own + summed_bytes) + (half or FP32_BYTES) * before
        begins = 3 * FP32_BYTES * own + (3 * FP32_BYTES + half) * before + 9 * (stop - first) * stop
        most = max(most, begins, ends)
        before = own
    return most


def plain_attention_kept(heads: Heads, one: Pass) -> int:
    """Returns the bytes that plain mathematics keeps for its backward.

    Queries, keys and values of all query heads in fp32 (12 a), and all scores' softmax in fp32, a number for each pair
    of tokens of a row in each head.
    """
    return 3 * FP32_BYTES * one.tokens * heads.query_size + FP32_BYTES * pairs(heads, one)


def plain_attention_forward(heads: Heads, one: Pass) -> int:
    """Returns the bytes of plain mathematics' forward beside what it keeps.

    The scores, their softmax, and which of them are minus infinity (9 bytes a pair, of all heads), the causal mask, and
    queries, keys and values in fp32 before and after they are scaled and repeated (4 (2 a + 2 k) a token).
    """
    mask = (FP32_BYTES + 1) * one.width**2
    rows = 2 * FP32_BYTES * one.tokens * (heads.query_size + heads.key_size)
    return (2 * FP32_BYTES + 1) * pairs(heads, one) + mask + rows


def pairs(heads: Heads, one: Pass) -> int:
    """Counts pairs of tokens over all rows and heads."""
    return one.rows * heads.count * one.width**2
