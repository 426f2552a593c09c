"""Figures that others published, with their sources; `tuner.published` reads them."""
