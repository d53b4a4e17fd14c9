"""Reads a study file and checks it: the result is a `StudyConfig`."""
