"""Exports a trial's adapter: files to load elsewhere, and their model card."""
