"""Fields of contenders by chance, and their ranks by brute force."""

from __future__ import annotations

from hypothesis import strategies as st

from study.search.front_ranking import Contender

VALUE = st.integers(0, 6).map(float)
FIELDS = st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=14).map(
    lambda pairs: [Contender(f"c{number:02}", loss, memory) for number, (loss, memory) in enumerate(pairs)]
)


def dominates(one: Contender, other: Contender) -> bool:
    """No worse in both, better in one."""
    no_worse = one.loss <= other.loss and one.memory <= other.memory
    return no_worse and (one.loss < other.loss or one.memory < other.memory)


def brute_rank(one: Contender, field: list[Contender]) -> int:
    """0 for a contender that no other dominates, else one more than the highest rank that dominates it."""
    return max((brute_rank(other, field) + 1 for other in field if dominates(other, one)), default=0)
