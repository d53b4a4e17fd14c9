"""Keeps frozen layers in host memory, and brings each to the card when it is at work."""
