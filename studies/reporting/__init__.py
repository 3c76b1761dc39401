"""What the reports of the studies share: the measured cells, differences between methods, tables."""
