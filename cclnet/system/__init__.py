"""What the rest stands on: errors, files, progress, signals and the machine."""
