"""Scores, thresholds, intervals, tests and figures, from arrays of numbers."""
