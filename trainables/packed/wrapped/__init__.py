"""Trains adapters under transformers' own layers, which serve any decoder of linear layers."""
