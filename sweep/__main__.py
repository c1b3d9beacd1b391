"""The command line, as `python -m sweep` and as the command `sweep`."""

# Worker processes import this module too, under another name, and need no command line.
import os
import sys
from pathlib import Path

from sweep import _check_neighbours


def main() -> None:
    """Runs a command with the installed packages, whatever modules lie in the working directory."""
    _leave_out_working_directory()
    try:
        _check_neighbours()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the process without a traceback
    from sweep.cli.app import main as run

    run()


def _leave_out_working_directory() -> None:
    """Keeps Python from taking `data`, `models` or a library from the working directory, where people have their own.

    `python -m` puts it first. Nothing has been imported yet but the package `sweep` itself, which is empty.
    """
    here, root = Path.cwd(), Path(__file__).resolve().parents[1]
    if here != root:  # of a clone, whose modules are these
        sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    os.environ["PYTHONSAFEPATH"] = "1"  # the same for every process that is started


if __name__ == "__main__":
    main()
