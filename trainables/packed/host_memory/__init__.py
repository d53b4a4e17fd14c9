"""Moves what a card does not need at the moment to host memory and back, beside its work."""
