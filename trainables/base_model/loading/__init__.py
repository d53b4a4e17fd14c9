"""Brings weights from safetensors onto their device, by several threads."""
