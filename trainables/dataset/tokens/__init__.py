"""Turns texts into tokens: which special tokens are read, which are added, and where a row is split."""
