"""Builds tokenizers from a model's files by the `tokenizers` library alone, as transformers would."""
