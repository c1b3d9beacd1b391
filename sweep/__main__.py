"""`python -m sweep`."""

# Worker processes import this module too, under another name; they need no command line.
if __name__ == "__main__":
    from sweep.cli import main

    main()
