"""Grids, their cells, and the processes that measure them."""
