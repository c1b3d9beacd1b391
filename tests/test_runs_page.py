"""MLflow's page of a study's runs, in a browser: what the links that are printed open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.stores.experiment_page import runs_page
from sweep.stores.tracking import FAILED
from tests.helpers.browser import mlflow_ui
from tests.helpers.mirrored import BEST, conclude_mirrored, mirrored_study

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)  # two busy cores draw slowly


@dataclass(frozen=True)
class Site:
    """A study in `mlflow ui`.

    Attributes:
        address: Where.
        mirror: Its runs.
    """

    address: str
    mirror: Mirror


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A study of three complete trials and a pruned one, and a run that failed."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where artifacts go
        study, mirror = mirrored_study(folder)
        conclude_mirrored(study, mirror)
        mirror.tracking.finish(mirror.tracking.start("failed", {}, parent=mirror.parent).run_id, FAILED)
    with mlflow_ui(folder, folder / "ui.log") as address:
        yield Site(address, mirror)


def open_runs(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 2200, "height": 1000})  # the table draws no column that is out of sight
    page.goto(f"{site.address}{runs_page(site.mirror.tracking.experiment_id)}")
    expect(page.get_by_role("link", name="cnn3-002", exact=True)).to_be_visible()


def test_the_link_opens_the_best_trials_first_with_scores_and_hyperparameters(page: Page, site: Site):
    open_runs(page, site)

    header = "document.querySelector('.ag-header-cell[col-id=\"{}\"]').getBoundingClientRect().left"
    page.wait_for_function(f"{header.format('duration')} > {header.format('params.`dropout`')}")  # the order is applied
    cells = in_order(page.locator(".ag-header-cell").all(), "x")
    assert [text for cell in cells if (text := cell.inner_text().strip())] == [
        "Run Name", "Created", "sweep.state", "objective", "served_test_accuracy", "served_test_auroc",
        "activation", "optimizer", "learning_rate", "batch_size", "dropout", "Duration",
    ]  # fmt: skip
    rows = in_order(page.locator(".ag-row").filter(has=page.get_by_role("link")).all(), "y")
    names = [row.get_by_role("link").first.inner_text() for row in rows]
    assert names[:3] == ["cnn3-001", "cnn3-003", "cnn3-000"]
    assert set(names[3:]) == {"cnn3-002", "cnn3", "failed"}  # which have no objective
    best = page.locator(".ag-row").filter(has=page.get_by_role("link", name="cnn3-001", exact=True)).first
    shown = site.mirror.tracking.get(site.mirror.runs[BEST])
    assert shown is not None
    for column in ("objective", "served_test_accuracy", "served_test_auroc"):
        expect(cell(page, best, f"metrics.`{column}`")).to_have_text(str(shown.metrics[column]))
    for column in ("activation", "optimizer", "learning_rate", "batch_size", "dropout"):
        expect(cell(page, best, f"params.`{column}`")).to_have_text(shown.params[column])
    expect(page.get_by_text("Searches for networks that tell NORMAL and PNEUMONIA apart")).to_be_visible()


def test_a_pruned_trial_has_no_sign_of_a_failure(page: Page, site: Site):
    open_runs(page, site)

    signs = {name: sign(page, name) for name in ("cnn3-001", "cnn3-002", "failed")}

    assert signs["cnn3-002"] == signs["cnn3-001"] != signs["failed"]
    pruned = page.locator(".ag-row").filter(has=page.get_by_role("link", name="cnn3-002", exact=True)).first
    expect(cell(page, pruned, "tags.`sweep.state`")).to_have_text("PRUNED")


def test_the_chosen_trial_s_charts_are_curves_and_three_bars(page: Page, site: Site):
    experiment, run = site.mirror.tracking.experiment_id, site.mirror.runs[BEST]
    page.goto(f"{site.address}/#/experiments/{experiment}/runs/{run}/model-metrics")

    sections = page.get_by_test_id("experiment-view-compare-runs-section-header")
    expect(sections).to_have_count(3)
    assert ["".join(text.split()[:-2]) for text in sections.all_inner_texts()] == [
        "train(1)", "val(3)", "Modelmetrics(5)",
    ]  # fmt: skip
    page.get_by_placeholder("Search metric charts").fill("served_test")
    expect(page.locator(".js-plotly-plot .barlayer .point")).to_have_count(3)  # bars, not curves of one point
    expect(page.locator(".js-plotly-plot path.js-line")).to_have_count(0)


def in_order(elements: list[Locator], axis: str) -> list[Locator]:
    """Elements as people see them: the table keeps them in no order."""
    return sorted(elements, key=lambda element: (element.bounding_box() or {})[axis])


def cell(page: Page, row, column: str):
    """The cell of a row, which the table may keep in another container than the row's name."""
    return page.locator(f".ag-row[row-index='{row.get_attribute('row-index')}'] .ag-cell[col-id='{column}']")


def sign(page: Page, name: str) -> str:
    """The drawing that stands for a run's status."""
    row = page.locator(".ag-row").filter(has=page.get_by_role("link", name=name, exact=True)).first
    return cell(page, row, "runDateAndNestInfo").locator("svg").first.inner_html()
