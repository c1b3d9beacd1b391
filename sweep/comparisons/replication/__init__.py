"""The rows of the student report, trained again."""
