"""The page of published results, `analysis/guide/results.md`, written from what is committed."""
