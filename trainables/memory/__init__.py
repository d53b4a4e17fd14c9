"""Predicts peak memory from shapes."""
