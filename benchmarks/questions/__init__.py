"""One module for each question, with a function ``run`` that measures it."""
