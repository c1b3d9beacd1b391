"""MLflow's pages of a packed store, looked at in a browser: what is recorded is also what people see."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import DRAWN, EXAMPLE, REPORT, mlflow_ui, open_report

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)  # two busy cores draw slowly


@dataclass(frozen=True)
class Site:
    """A store in `mlflow ui`.

    Attributes:
        address: Where.
        folder: The store.
        client: Of the same store.
    """

    address: str
    folder: Path
    client: MlflowClient

    @property
    def champion(self):
        """The version that holds the alias."""
        (model,) = self.client.search_registered_models()
        return self.client.get_model_version_by_alias(model.name, "champion")

    @property
    def run(self):
        """The champion's, a child of its study's."""
        return self.client.get_run(self.champion.run_id)

    @property
    def study(self) -> str:
        return self.run.data.tags["mlflow.parentRunId"]

    @property
    def runs(self) -> str:
        """The address of the list of runs; a run's is below it."""
        return f"{self.address}/#/experiments/{self.run.info.experiment_id}/runs"

    def file(self, run_id: str, path: str) -> Path:
        return self.folder / self.client.get_run(run_id).info.artifact_uri / path


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The committed example, or a small study until there is one; a copy, so that git sees nothing."""
    folder = tmp_path_factory.mktemp("site")
    source = EXAMPLE if (EXAMPLE / "mlflow.db").is_file() else request.getfixturevalue("packed")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with mlflow_ui(folder, folder / "ui.log") as address:
        yield Site(address, folder, MlflowClient(f"sqlite:///{folder}/mlflow.db"))


def test_a_study_unfolds_into_its_trials(page: Page, site: Site):
    page.goto(f"{site.runs}?workflowType=machine_learning")
    study = page.locator(f".ag-row[row-id='{site.study}']").filter(has=page.get_by_role("link"))
    trial = page.get_by_role("link", name=site.run.info.run_name, exact=True)
    expect(study).to_have_count(1)
    expect(trial).to_have_count(0)

    study.get_by_role("button").first.click()

    expect(trial).to_be_visible()


def test_a_trial_has_its_learning_curves(page: Page, site: Site):
    page.goto(f"{site.runs}/{site.run.info.run_id}/model-metrics")

    page.get_by_placeholder("Search metric charts").fill("val/loss")

    expect(page.get_by_text(f"{site.run.info.run_name} (val/loss)", exact=True)).to_be_visible()
    curve = page.locator(".js-plotly-plot .main-svg path.js-line").first
    expect(curve).to_have_attribute("d", re.compile(r"^M[-\d.,]+L[-\d.]"))  # from epoch to epoch


def test_a_figure_is_shown(page: Page, site: Site):
    page.goto(f"{site.runs}/{site.run.info.run_id}/artifacts/figures/roc.png")

    page.wait_for_function(
        "[...document.images].some(image => image.src.startsWith('blob:') && image.naturalWidth > 100)"
    )


def test_predictions_are_a_table(page: Page, site: Site):
    path = "predictions/test.csv"
    with site.file(site.run.info.run_id, path).open() as file:
        first = next(csv.DictReader(file))

    page.goto(f"{site.runs}/{site.run.info.run_id}/artifacts/{path}")

    expect(page.get_by_role("cell", name=first["image"], exact=True)).to_be_visible()


def test_the_leaderboard_is_a_table(page: Page, site: Site):
    page.goto(f"{site.runs}/{site.study}/artifacts/leaderboard.json")

    expect(page.get_by_role("cell", name=site.run.info.run_name, exact=True)).to_be_visible()


def test_the_registered_model_shows_who_holds_which_alias(page: Page, site: Site):
    model = site.client.get_registered_model(site.champion.name)
    assert {"champion", site.champion.tags["sweep.arch"]} <= model.aliases.keys()

    page.goto(f"{site.address}/#/models/{model.name}")

    for alias, version in model.aliases.items():
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Version {version}", exact=True))
        expect(row.get_by_text(re.compile(rf"^@\s*{alias}$"))).to_be_visible()


def test_the_comparison_s_report_opens(page: Page, site: Site):
    experiment = site.run.info.experiment_id
    (run, *_) = site.client.search_runs([experiment], "tags.`sweep.kind` = 'comparison'")

    page.goto(f"{site.runs}/{run.info.run_id}/artifacts/report.html")

    frame = page.frame_locator("iframe")
    expect(frame.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert frame.locator("html").evaluate(f"() => {DRAWN}") >= 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_comparison_s_report_needs_nobody_and_no_scrolling_sideways(browser: Browser, scheme, width: int):
    (path,) = EXAMPLE.rglob("report.html")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)

    report = open_report(page, path)

    assert report.charts >= 25
    assert (report.errors, report.requests) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (brightness > 128) == (scheme == "light")
    page.close()


def test_browsing_the_example_leaves_git_clean(page: Page, tmp_path: Path):
    """Fails until the store is committed: `uv run python mlruns.example/remake.py STORE_DIR`."""
    assert (EXAMPLE / "mlflow.db").is_file(), "mlruns.example/mlflow.db is not there yet"
    status = ["git", "status", "--porcelain", "--", EXAMPLE]
    before = subprocess.run(status, cwd=EXAMPLE, capture_output=True, text=True, check=True).stdout
    client = MlflowClient(f"sqlite:///{EXAMPLE}/mlflow.db")
    (model,) = client.search_registered_models()

    with mlflow_ui(EXAMPLE, tmp_path / "ui.log") as address:
        page.goto(f"{address}/#/models/{model.name}")
        expect(page.get_by_text(re.compile(r"^@\s*champion$"))).to_be_visible()
        run = client.get_model_version_by_alias(model.name, "champion").run_id
        experiment = client.get_run(run).info.experiment_id
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run}/artifacts/figures/roc.png")
        page.wait_for_function(
            "[...document.images].some(image => image.src.startsWith('blob:') && image.naturalWidth)"
        )
        page.goto("about:blank")  # which asks a server that is gone for nothing

    assert subprocess.run(status, cwd=EXAMPLE, capture_output=True, text=True, check=True).stdout == before


# Reports on their own --------------------------------------------------------------------------------------------------


def test_a_report_that_needs_nobody(page: Page, tmp_path: Path):
    (tmp_path / "report.html").write_text(REPORT)

    report = open_report(page, tmp_path / "report.html")

    assert (report.charts, report.errors, report.requests) == (1, [], [])


def test_a_report_that_fails_is_found_out(page: Page, tmp_path: Path, faults: list[str]):
    page.set_default_timeout(2000)
    wrong = "<div class='js-plotly-plot'><svg class='main-svg'></svg></div><img src='http://nowhere.invalid/a.png'>"
    (tmp_path / "report.html").write_text(
        f"{REPORT}{wrong}<script>console.error('first'); throw Error('second')</script>"
    )

    report = open_report(page, tmp_path / "report.html")

    assert report.charts == 1
    assert report.requests == ["http://nowhere.invalid/a.png"]
    assert {"first", "second"} <= {error.split(" (")[0] for error in report.errors}
    assert len(faults) >= 3
    faults.clear()


def test_plotly_s_own_charts_are_counted(page: Page, tmp_path: Path):
    plotly = pytest.importorskip("plotly.graph_objects")
    plotly.Figure(plotly.Scatter(y=[1, 3, 2])).write_html(tmp_path / "report.html", include_plotlyjs=True)

    report = open_report(page, tmp_path / "report.html")

    assert (report.charts, report.errors, report.requests) == (1, [], [])
