"""Benchmarks of the project against lower bounds of the run time and against alternatives."""
