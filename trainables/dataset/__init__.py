"""Reads rows, splits them, tokenizes them, and forms batches."""
