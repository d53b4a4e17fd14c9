"""Decides who does what next on one base model."""
