"""Refuses base models whose files are not what they must be, from headers and configurations alone."""
