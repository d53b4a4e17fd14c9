"""Measures cost and quality: memory, speed, perplexity, accuracy."""
