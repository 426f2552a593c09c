"""Evaluations of earlier studies that a new one may have."""
