"""The program and its machine: errors, signals, processes, passwords, hardware, provenance."""
