"""The reporting checklists CLAIM 2024 and TRIPOD+AI, filled from the stores: items, answers, page."""
