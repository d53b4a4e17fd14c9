"""Elementwise operations of a layer, and their Triton kernels."""
