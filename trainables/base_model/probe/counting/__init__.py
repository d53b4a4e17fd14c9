"""Counts the bytes of one decoder layer on the meta device: of families that nobody described. Needs torch."""

from trainables.base_model.probe.counting.count import count

__all__ = ["count"]
