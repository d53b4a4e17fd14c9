"""Cuts attention's rows and queries into parts whose scores exist at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainables.limits import capped_score_part


def row_slices(shape: torch.Size, room_bytes: int | None = None) -> Iterator[slice]:
    """Cuts the rows of rows x heads x tokens x head_dim into those whose scores exist at once, in parts or whole.

    `room_bytes` are for the scores, in fp32; None: those of capped scores.
    """
    rows, heads, tokens = shape[:3]
    together, _ = capped_score_part(heads, tokens, room_bytes)
    return (slice(first, min(rows, first + together)) for first in range(0, rows, together))


def query_slices(shape: torch.Size, window: int | None, room_bytes: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Cuts a row's queries into those whose scores exist at once; with each the keys that it sees."""
    _, heads, tokens = shape[:3]
    _, together = capped_score_part(heads, tokens, room_bytes)
    for first in range(0, tokens, together):
        stop = min(tokens, first + together)
        yield slice(first, stop), slice(0 if window is None else max(0, first + 1 - window), stop)


def steps_back(queries: slice, keys: slice, device: torch.device) -> torch.Tensor:
    """Counts how many tokens a key (column) stands before a query (row); negative: after it."""
    of_queries, of_keys = (torch.arange(part.start, part.stop, device=device) for part in (queries, keys))
    return of_queries[:, None] - of_keys


def hidden_pairs(like: torch.Tensor, queries: slice, keys: slice, window: int | None) -> torch.Tensor:
    """Returns what is added to scores, in fp32: minus infinity where a query does not see a key, else 0.

    It sees no later ones, and none that a sliding window has left behind.
    """
    back = steps_back(queries, keys, like.device)
    away = (back < 0) if window is None else (back < 0) | (back >= window)
    return torch.zeros(away.shape, device=like.device).masked_fill_(away, float("-inf"))


def by_token(like: torch.Tensor) -> torch.Tensor:
    """Returns an empty tensor of that shape, rows x heads x tokens x head_dim, whose tokens' heads lie side by side."""
    rows, heads, tokens, head_dim = like.shape
    return like.new_empty(rows, tokens, heads, head_dim).transpose(1, 2)
