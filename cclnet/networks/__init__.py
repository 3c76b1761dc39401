"""Backbones, the whole network of Fig. 1, and the file of a trained network."""
