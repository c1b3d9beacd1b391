"""Measured, never asserted in a test run."""
