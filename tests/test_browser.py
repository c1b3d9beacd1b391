"""The example store in MLflow's UI, looked at with a real browser."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from tests.browser import mlflow_ui, open_report
from tests.test_example import EXAMPLE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's UI in the example's folder itself: browsing must leave git clean."""
    with mlflow_ui(EXAMPLE, tmp_path_factory.mktemp("ui") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{EXAMPLE / 'mlflow.db'}")


@pytest.fixture(scope="module")
def runs(client):
    experiment = client.get_experiment_by_name("chest-xray")
    return client.search_runs([experiment.experiment_id], max_results=500)


def named(runs, name):
    return next(run for run in runs if run.info.run_name == name)


def page_of(address, run, tab=""):
    return f"{address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{tab}"


def test_the_run_list_shows_studies_with_their_trials(page: Page, address, runs):
    experiment = runs[0].info.experiment_id
    page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    for study in ("cnn1", "cnn2", "cnn3", "resnet50", "comparison-chest-xray"):
        expect(page.get_by_role("link", name=study, exact=True).first).to_be_visible()
    # Children are inside their study until somebody opens it.
    child = page.get_by_role("link", name=re.compile(r"^cnn2-000"))
    expect(child).to_have_count(0)
    row = page.locator("[role=row]", has=page.get_by_role("link", name="cnn2", exact=True))
    row.get_by_role("button").first.click()
    expect(child.first).to_be_visible()


def test_a_trials_charts_draw(page: Page, address, runs):
    page.goto(page_of(address, named(runs, "cnn1-000"), "/model-metrics"))
    expect(page.get_by_text("val/auroc", exact=True).first).to_be_visible()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .scatterlayer path').length > 3")


def test_its_artifacts_open(page: Page, address, runs):
    page.goto(page_of(address, named(runs, "cnn1-000"), "/artifacts/figures/learning_curves.png"))
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 600)")


def test_a_leaderboard_is_a_table(page: Page, address, runs):
    page.goto(page_of(address, named(runs, "cnn1"), "/artifacts/leaderboard.json"))
    expect(page.get_by_text("val/auroc").first).to_be_visible()
    expect(page.get_by_text("cnn1-000").first).to_be_visible()


def test_the_registry_shows_the_aliases(page: Page, address):
    page.goto(f"{address}/#/models/chest-xray")
    for alias in ("champion", "cnn1", "cnn2", "cnn3", "resnet50"):
        expect(page.get_by_text(f"@ {alias}", exact=True).first).to_be_visible()


def test_the_report_opens_in_its_run(page: Page, address, runs):
    page.goto(page_of(address, named(runs, "comparison-chest-xray"), "/artifacts/report.html"))
    inside = page.frame_locator("iframe").first
    expect(inside.locator("h1")).to_be_visible()
    expect(inside.locator("[data-chart] .main-svg").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_draws_every_chart_from_disk_and_asks_nobody(browser, scheme, width):
    (report,) = EXAMPLE.rglob("report.html")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    drawn, faults = open_report(page, Path(report))
    assert drawn >= 10
    assert not faults
    # Nobody scrolls sideways: what is wide scrolls in its own box.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_browsing_leaves_git_clean(address, page: Page, runs):
    page.goto(page_of(address, named(runs, "cnn1-000")))
    expect(page.get_by_text("cnn1-000").first).to_be_visible()
    if not (EXAMPLE.parent / ".git").exists():
        pytest.skip("this is no git checkout")
    status = subprocess.run(
        ["git", "status", "--porcelain", "mlruns.example"],
        cwd=EXAMPLE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == ""
