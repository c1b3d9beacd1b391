"""The best trials of a search on every fold of patients."""
