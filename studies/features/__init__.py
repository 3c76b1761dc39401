"""Experiments that need no training of a backbone: on class counts alone, and on fixed features of real images."""
