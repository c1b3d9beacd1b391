"""Hides passwords, which come in URLs and environment variables, from all that is shown, logged or stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
# Environment variables: those that are secrets, as MLflow and PostgreSQL's drivers read them, and those with URLs.
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")
URL_VARIABLES = ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE")
# To the last @: a password that was not percent-encoded may have any character. Rather hide too much than too little.
_IN_URL = re.compile(r"(?P<before>://[^\s:/]*:)(?P<password>\S*)(?P<after>@)")
_IN_QUERY = re.compile(
    r"(?P<before>[?&;](?:ssl)?(?:password|passwd|pwd|token)=)(?P<password>[^\s&;]*)(?P<after>)", re.I
)


def shown(url: str) -> str:
    """Returns a URL as people may see it, with `***` for a password.

    >>> shown("postgresql://ann:hunter2@db/sweep")
    'postgresql://ann:***@db/sweep'
    """
    for pattern in (_IN_URL, _IN_QUERY):
        url = pattern.sub(rf"\g<before>{HIDDEN}\g<after>", url)
    return url


def address(url: str) -> str:
    """Returns a URL for a browser, without user and password.

    >>> address("https://ann:hunter2@mlflow.example:5000/")
    'https://mlflow.example:5000/'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def scrubbed(text: str, *urls: str) -> str:
    """Hides in a text the passwords of its own URLs, of the given URLs, and of the environment.

    >>> scrubbed("GET https://ann:hunter2@host: hunter2 was refused", "https://ann:hunter2@host")
    'GET https://ann:***@host: *** was refused'

    Args:
        text: Any text, such as a library's error.
        urls: URLs in use when the text was written.
    """
    text = shown(text)
    for secret in sorted(_secrets(*urls), key=len, reverse=True):  # the longer may contain the shorter
        text = text.replace(secret, HIDDEN)
    return text


def first_line(error: BaseException, *urls: str) -> str:
    """Returns the first line of a library's error, without passwords, to be quoted in a message of this program.

    Of a server that could not be reached, what the operating system said: libraries wrap it in half a page.

    Args:
        error: The error.
        urls: URLs in use when it was raised.
    """
    said = str(error)
    if "ConnectionPool(" in said:  # urllib3's
        while (inner := error.__cause__ or error.__context__) is not None:
            error = inner
        said = getattr(error, "strerror", None) or str(error)
    line = (said.strip().splitlines() or [type(error).__name__])[0]
    return scrubbed(re.sub(r"^\([\w.]+\) ", "", line), *urls)  # SQLAlchemy puts the driver's class before it


def _secrets(*urls: str) -> set[str]:
    in_urls = {
        match["password"]
        for url in (*urls, *_environment(*URL_VARIABLES))
        for pattern in (_IN_URL, _IN_QUERY)
        for match in pattern.finditer(url)
    }
    return {secret for secret in (*in_urls, *map(unquote, in_urls), *_environment(*SECRET_VARIABLES)) if secret}


def _environment(*names: str) -> Iterator[str]:
    return (os.environ[name] for name in names if name in os.environ)
