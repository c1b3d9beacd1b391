"""The command line: options, what each command does, what the terminal shows."""
