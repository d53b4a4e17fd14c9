"""Trains many adapters together over one frozen base model, and writes them to files."""
