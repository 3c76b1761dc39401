"""Results of finished experiments, and how two of them differ."""
