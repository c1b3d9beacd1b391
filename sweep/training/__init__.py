"""Trains one network. Knows torch; knows no store, no engine and no metric."""
