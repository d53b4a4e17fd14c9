"""Which trials run, where, and what is kept."""
