"""Plans a study before it runs: what fits, what runs together, how long it takes."""
