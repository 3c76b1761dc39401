"""Grids, their cells, and the processes that run them."""
