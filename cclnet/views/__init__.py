"""Figures, charts and pages."""
