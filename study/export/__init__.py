"""Takes an adapter along: files to load elsewhere, and their model card."""
