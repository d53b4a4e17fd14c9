"""Computes decoders by their families' declared forms for packs of adapters, forward and backward by hand."""
