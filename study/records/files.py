"""Writes files that are either whole or not there, for who may not import `trainables`."""

from trainables.whole_files import write_whole

__all__ = ["write_whole"]
