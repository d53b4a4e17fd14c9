"""Computes a Llama decoder for packs of adapters, forward and backward by hand."""
