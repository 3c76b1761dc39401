"""The paper's tables and this project's own questions, as grids of experiments; see ``python -m studies --help``."""
