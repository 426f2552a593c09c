"""Runs at smaller budgets, from the checkpoints of one that was made."""
