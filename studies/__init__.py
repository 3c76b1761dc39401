"""The paper's tables and this project's own questions, each a grid of experiments; see ``python -m studies --help``."""
