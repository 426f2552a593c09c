"""Recorded runs of a whole space in one open file."""
