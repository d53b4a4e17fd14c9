"""Finds, checks and loads a base model's files."""
