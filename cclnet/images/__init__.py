"""From the bytes of an image file to batches for a network."""
