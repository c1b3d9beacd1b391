"""A headless browser, MLflow's pages in it, and a packed store to look at."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweep.stores.mlflow_stores import open_tracking
from tests.helpers.served import running
from tests.helpers.studies import sweep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXAMPLE = Path(__file__).parents[2] / "mlruns.example"
# Draws itself, as charts do: a viewer that runs no scripts shows nothing of it.
REPORT = """<!doctype html><title>report</title><div class="js-plotly-plot"></div><script>
document.querySelector("div").innerHTML = '<svg class="main-svg" width="90" height="90"><rect width="90" height="90"/></svg>'
</script>"""
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].filter(chart => chart.querySelector('.main-svg *')).length"
# What MLflow's pages always say: nobody is signed in, and a table was wider than it thought.
HARMLESS = ("/users/current", "ResizeObserver loop")


@dataclass(frozen=True)
class Report:
    """What became of an HTML file in the browser.

    Attributes:
        charts: How many of Plotly's charts were drawn.
        errors: What the console says.
        requests: The addresses that it asked for beyond itself.
    """

    charts: int
    errors: list[str]
    requests: list[str]


@pytest.fixture(scope="session")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study's store, packed as the example is, and then moved."""
    small = ("--image-size", 24, "--epochs", 2, "--search", "batch_size=16,32", "--workers", 1)
    store, made = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("made") / "mlruns.example"
    done = sweep(store, "--arch", "cnn1", "--data", pictures, "--trials", 2, *small)
    assert done.returncode == 0, done.stderr
    tracking = open_tracking(f"sqlite:///{store}/mlflow.db", "blob-pictures")
    comparison = tracking.start("compare", {"sweep.kind": "comparison", "mlflow.user": "somebody"}).run_id
    tracking.log_params(comparison, {"data": pictures, "list": f'["{pictures}/train", "b"]'.replace("/", "\\/")})
    tracking.log_files(comparison, {"report.html": REPORT, "scores.json": f'{{"data": "{pictures}"}}'})
    tracking.finish(comparison, "FINISHED")
    deleted = tracking.start("deleted", {}).run_id
    tracking.log_files(deleted, {"deleted.txt": "deleted"})
    tracking.client.delete_run(deleted)

    made.mkdir()
    for name in ("remake.py", "README.md", ".gitignore"):
        shutil.copy(EXAMPLE / name, made)
    subprocess.run([sys.executable, made / "remake.py", store], check=True)
    return made.rename(tmp_path_factory.mktemp("moved") / "example")


@contextlib.contextmanager
def mlflow_ui(folder: Path, log: Path) -> Iterator[str]:
    """Runs `mlflow ui` in a packed store; gives its address."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--workers", "1"]
    with running(command, "health", log, folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as address:
        yield address


@pytest.fixture(scope="module")  # as long as it is there, nothing else in this process may use asyncio
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        missing = "chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("SWEEP_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What went wrong in the page so far; a test that expects some clears it."""
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    """An empty page, which must not complain of anything until the test is over."""
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(60_000)
    record_errors(page, faults)
    page.on("requestfailed", lambda request: faults.append(f"{request.url}: {request.failure}"))
    yield page
    page.close()
    # A request that is no longer wanted is no fault.
    assert [fault for fault in faults if not any(known in fault for known in (*HARMLESS, "net::ERR_ABORTED"))] == []


def record_errors(page: Page, errors: list[str]) -> None:
    """Adds to a list what the console calls an error and what scripts raise."""
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda said: errors.append(f"{said.text} ({said.location['url']})") if said.type == "error" else None,
    )


def open_report(page: Page, path: Path) -> Report:
    """Opens an HTML file as a person does, without any server, and waits for its charts."""
    from playwright.sync_api import TimeoutError

    errors: list[str] = []
    addresses: list[str] = []
    record_errors(page, errors)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(path.as_uri())
    with contextlib.suppress(TimeoutError):  # fewer are drawn, which is the answer
        page.wait_for_function(f"document.querySelectorAll('.plotly-graph-div, .js-plotly-plot').length === {DRAWN}")
    asked = [address for address in addresses if not address.startswith(("file:", "data:", "blob:"))]
    return Report(page.evaluate(DRAWN), errors, asked)
