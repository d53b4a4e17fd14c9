"""Chooses which configurations are tried and which trials are stopped early."""
