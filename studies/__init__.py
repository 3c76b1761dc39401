"""Studies: grids of experiments for the paper's tables and for further questions; see ``python -m studies --help``."""
