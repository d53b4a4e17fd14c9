"""Where a study's time went: its time line as a file, and what follows from it."""
