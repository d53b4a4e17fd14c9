"""Trains many adapters together over one frozen base model."""
