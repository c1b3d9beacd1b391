"""Standard output and error that never end a command: closed, full, or in an encoding without some letters.

A study of hours goes on when the terminal it began in is gone. What could not be written is said at the end.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


class Outlet(io.FileIO):
    """A file descriptor that takes what cannot be written too, and remembers why it could not.

    Attributes:
        failure: The first error; None while all was written.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Writes some bytes; after an error the rest is dropped."""
        if self.failure is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def open_output() -> Callable[[], str]:
    r"""Replaces standard output and error by ones that take everything.

    A letter that the encoding lacks is written as its escape, such as `\u80ba`. Descriptors that were closed are
    opened on nothing, since the next file to be opened, perhaps a database, would get their number and their lines.

    Returns:
        A function that writes what is left, and returns why not all of it was written; empty where it was, and where
        a reader such as `head` had enough.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    outlets = []
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):  # somebody captures it, as pytest does
            continue
        encoding = getattr(stream, "encoding", None) or "utf-8"
        outlet = Outlet(number, "w", closefd=False)
        buffered = io.BufferedWriter(outlet)
        setattr(
            sys,
            name,
            io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=number == 2 or outlet.isatty()),
        )
        outlets.append((name, outlet))

    def close() -> str:
        for name, _ in outlets:
            getattr(sys, name).flush()
        failures = [
            f"{name} cannot be written ({outlet.failure.strerror})"
            for name, outlet in outlets
            if outlet.failure is not None and outlet.failure.errno != errno.EPIPE
        ]
        return "; ".join(failures)

    return close
