"""Shared code of the studies' reports: loading cells, differences between methods, tables."""
