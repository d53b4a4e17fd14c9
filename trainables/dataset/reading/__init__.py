"""Checks rows, recognises data of other forms, and says how to turn them into rows of prompt and completion."""
