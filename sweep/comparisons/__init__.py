"""Trained configurations side by side."""
