"""`python -m sweep`."""

# Worker processes import this module too, under another name, and need no command line.
if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the process without a traceback
    from sweep.cli.app import main

    main()
