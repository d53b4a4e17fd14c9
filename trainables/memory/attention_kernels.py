"""Counts the bytes of attention, by the kernel that attends: what it keeps, and what it needs meanwhile.

In the formulas n is the pass' tokens, a and k are the widths of all heads' queries and of all heads' keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.setting import MemorySetting, Pass

# The memory-efficient kernel's backward sums keys' and values' gradients in fp32 beside the registers where heads of 16
# bits are wider than 64: tiles of 64 keys, for each row and head, or for 200 of them (torch 2.13, kernel_backward.h).
STAGED_HEAD_DIM, STAGED_KEYS, FEWEST_STAGED = 64, 64, 200


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


def attention_workspace(heads: Heads, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes inside the attention's backward, beside gradients.

    Both kernels without scores sum the queries' gradient in fp32 (4 a); the memory-efficient one stages keys' and
    values' too where they do not fit the registers.
    """
    if setting.attention == "cpu":
        return 0
    if setting.attention == "math":
        return 2 * FP32_BYTES * pairs(heads, one)
    summed = FP32_BYTES * one.tokens * heads.query_size
    staged = setting.attention == "memory_efficient" and setting.compute_bytes < FP32_BYTES
    if not staged or heads.head_dim <= STAGED_HEAD_DIM:
        return summed
    tiles = max(FEWEST_STAGED, one.rows * heads.count)
    return summed + 2 * tiles * STAGED_KEYS * heads.head_dim * FP32_BYTES


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
