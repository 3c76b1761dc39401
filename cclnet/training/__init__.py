"""Algorithm 1: trainer, loop over the epochs, batches, objectives, optimizer, history, saved states, processes."""
