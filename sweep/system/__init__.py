"""What the program needs of the machine it runs on: errors, signals, processes, hardware, provenance."""
