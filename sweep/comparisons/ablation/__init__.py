"""A configuration and its changes, all with the same seeds."""
