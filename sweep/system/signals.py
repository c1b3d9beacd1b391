"""Ctrl-C and SIGTERM, deferred until a loop asks for them, so that they never interrupt a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def blocked() -> Iterator[None]:
    """Blocks both signals in this thread, and in processes that it starts meanwhile until these call `ignore`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignores both signals, in a process that another one ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Remembers the first signal until it is asked for; the second raises KeyboardInterrupt at once.

    >>> with deferred() as stop_requested:
    ...     stop_requested()
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop_requested()
    False
    True

    Yields:
        A function that tells whether there was a signal. Outside of the main thread, where Python receives no
        signals, it always returns False.
    """
    requested = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
