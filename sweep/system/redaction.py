"""Passwords come with URLs and by the environment; what is shown, logged or stored never has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
# What MLflow and PostgreSQL's drivers read themselves. A URL's name stands for the password in it.
NAMES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")
URL_NAMES = ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE")
# To the last @, since a password that nobody encoded may have any character; too much hidden is better than too little.
_IN_URL = re.compile(r"(?P<before>://[^\s:/]*:)(?P<password>\S*)(?P<after>@)")
_IN_QUERY = re.compile(
    r"(?P<before>[?&;](?:ssl)?(?:password|passwd|pwd|token)=)(?P<password>[^\s&;]*)(?P<after>)", re.I
)


def shown(url: str) -> str:
    """A URL as people may see it: with `***` for a password."""
    for pattern in (_IN_URL, _IN_QUERY):
        url = pattern.sub(rf"\g<before>{HIDDEN}\g<after>", url)
    return url


def address(url: str) -> str:
    """A URL as a browser wants it: without a user and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def scrubbed(text: str, *urls: str) -> str:
    """A text of a library without the passwords of its URLs, of these URLs, and of the environment.

    Args:
        text: Any text.
        urls: What was in use when it came about.
    """
    text = shown(text)
    for secret in sorted(_secrets(*urls), key=len, reverse=True):  # of two the longer one may hold the other
        text = text.replace(secret, HIDDEN)
    return text


def first_line(error: BaseException, *urls: str) -> str:
    """What an error of a library says first, for a sentence of ours, without passwords.

    Args:
        error: The error.
        urls: What was in use when it came about.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return scrubbed(re.sub(r"^\([\w.]+\) ", "", line), *urls)  # SQLAlchemy puts the driver's class before it


def _secrets(*urls: str) -> set[str]:
    in_urls = {
        match["password"]
        for url in (*urls, *_environment(*URL_NAMES))
        for pattern in (_IN_URL, _IN_QUERY)
        for match in pattern.finditer(url)
    }
    return {secret for secret in (*in_urls, *map(unquote, in_urls), *_environment(*NAMES)) if secret}


def _environment(*names: str) -> Iterator[str]:
    return (os.environ[name] for name in names if name in os.environ)
