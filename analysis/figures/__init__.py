"""A study's figures, and how all of them look."""
