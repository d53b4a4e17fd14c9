"""Counts the bytes of one decoder layer on the meta device: of families that nobody described. Needs torch."""

from trainables.memory.counting.count import count

__all__ = ["count"]
