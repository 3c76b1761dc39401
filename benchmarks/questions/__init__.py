"""One module per question, with a function ``run`` that measures it."""
