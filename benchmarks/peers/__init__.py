"""What the sweep is measured beside: the same work as other people write it, each file a program of its own."""
