"""The best of each architecture on the same test images; the comparison report."""
