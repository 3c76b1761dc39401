"""Common services: errors, files, progress, signals and the machine."""
