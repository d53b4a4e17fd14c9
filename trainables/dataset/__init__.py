"""Reads a dataset, splits it, cuts and tokenizes its rows, and plans batches."""
