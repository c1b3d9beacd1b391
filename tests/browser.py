"""A headless Chromium for tests, and MLflow's UI to look at with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Where there has to be a browser, in .ci/run, a missing one is a failure and no reason to skip.
REQUIRED = "SWEEP_REQUIRE_BROWSER"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        reason = "there is no chromium on this machine (apt install chromium)"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, wide enough for MLflow's tables."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def open_report(page: Page, path: Path) -> tuple[int, list[str]]:
    """Opens an HTML file from disk.

    Returns:
        How many Plotly charts are drawn, and what is wrong: console errors, and requests to anywhere else.
    """
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.resolve().as_uri())
    page.wait_for_load_state("load")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every(one => one.querySelector('.main-svg'))"
    )
    heights = page.evaluate(
        "[...document.querySelectorAll('[data-chart] .main-svg:first-child')].map(one => one.clientHeight)"
    )
    return sum(height > 50 for height in heights), faults


@contextlib.contextmanager
def mlflow_ui(folder: Path, log: Path) -> Iterator[str]:
    """Runs `mlflow ui` in a directory, as the README has it; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a third of the processes
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"{address}/health", timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.3)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
