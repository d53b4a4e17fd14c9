"""What a study leaves on disk: records, their store, the results table, and the names of all its files."""
