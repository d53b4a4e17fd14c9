"""Keeps measured costs of footprints for later studies on the same hardware, which take them over."""
