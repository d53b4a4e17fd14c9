"""Finds out the facts of a decoder whose family has no form, from transformers' own class on the meta device."""
