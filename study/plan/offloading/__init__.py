"""Chooses what of a training waits in host memory, so that it fits a card and costs the least time."""
