"""Several trained networks as one registered model."""
