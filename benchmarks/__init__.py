"""How fast the project is, beside the fastest that there could be and beside what a user would take instead."""
