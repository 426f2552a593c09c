"""The rules that choose one point of a front."""
