"""Tells somebody when a search is over: a shell command that reads JSON, or a webhook that is sent it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from sweep.system.errors import StudyFailedError, StudyInterruptedError, TrackingAwayError

SECONDS = 20.0


@contextmanager
def notifying(target: str | None, names: list[str], say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Tells a target how what is done in the context ended; what is refused before it began is told to nobody.

    Args:
        target: A command of the shell, or a URL that begins with http:// or https://; None tells nobody.
        names: The studies.
        say: Shows why it could not be told. The search's own end is the same.

    Yields:
        What is told besides, where all went well; to be filled.
    """
    message: dict[str, Any] = {}
    try:
        yield message
    except (StudyFailedError, TrackingAwayError, StudyInterruptedError, KeyboardInterrupt) as error:
        event = "failed" if isinstance(error, (StudyFailedError, TrackingAwayError)) else "interrupted"
        _tell(target, {"event": event, "studies": names, "error": str(error)}, say)
        raise
    _tell(target, {"event": "complete", "studies": names, **message}, say)


def is_url(target: str) -> bool:
    """Whether a target is a webhook, and no command."""
    return urlsplit(target).scheme in ("http", "https")


def _tell(target: str | None, message: Mapping[str, Any], say: Callable[[str], None]) -> None:
    if target is None:
        return
    try:
        if is_url(target):
            # A token may be a part of the URL, and errors of requests have it whole.
            answer = requests.post(target, json=message, timeout=SECONDS)
            why = "" if answer.ok else f"it answers {answer.status_code}"
        else:
            done = subprocess.run(  # noqa: S602 - the user's own command, as it was typed
                target, shell=True, input=json.dumps(message), text=True, capture_output=True, timeout=SECONDS
            )
            why = "" if done.returncode == 0 else f"it ended with exit code {done.returncode}"
    except requests.RequestException as error:
        why = type(error).__name__
    except subprocess.TimeoutExpired:
        why = f"it took longer than {SECONDS:.0f} s"
    if why:
        where = f"{urlsplit(target).hostname}" if is_url(target) else target
        say(f"note: --notify {where}: {why}; nobody was told")
