"""Finds, reads, checks and loads a base model."""
