"""Runs a study with Ray Tune, from its beginning to its end."""
