"""Pixels: where images come from, how they are split, cached and augmented. Knows nothing of networks or sweeps."""
