"""Algorithm 1 and all that it needs: trainer, batches, objectives, saved states, several processes."""
