"""The comparison report and its checklist in a browser: on a phone, and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from sweep.comparisons.architectures import report
from sweep.comparisons.architectures.checklist import page as checklist
from sweep.comparisons.architectures.report_info import ReportInfo
from tests.comparisons.test_checklist import FULL
from tests.helpers.browser import open_report
from tests.helpers.compared import comparison

pytestmark = pytest.mark.slow
# Those that are wider than their place, and those that say so.
WIDE = "[...document.querySelectorAll('.scroll, .drawing')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
SAID = "document.querySelectorAll('.wide-inside').length"
CAPTIONS = (
    "[...document.querySelectorAll('caption, figcaption')].map(e => { const box = e.getBoundingClientRect();"
    " return [box.left, box.right, e.scrollWidth - e.clientWidth] })"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two pages, as `compare` writes them."""
    folder, compared = tmp_path_factory.mktemp("reports"), comparison(4)
    written = report.to_html(compared, {}, (), ReportInfo(checklist="checklist.html", student_report=True))
    (folder / "report.html").write_text(written)
    stored = {model.arch: FULL for model in compared.models}
    (folder / "checklist.html").write_text(checklist.to_html(compared, stored, written, "report.html", None))
    return folder


def test_on_a_phone_no_caption_is_cut_and_what_scrolls_says_so(browser: Browser, folder: Path):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    opened = open_report(page, folder / "report.html")
    assert (opened.errors, opened.requests) == ([], [])
    assert page.evaluate(WIDE) == page.evaluate(SAID) >= 4
    captions = page.evaluate(CAPTIONS)
    assert len(captions) > 10
    assert all(left >= 0 and right <= 390 and hidden <= 0 for left, right, hidden in captions)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function(f"{WIDE} === {SAID}")
    page.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_checklist_fits_and_leads_to_the_report(browser: Browser, folder: Path, width: int):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
    page.goto((folder / "checklist.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#claim-44").is_visible()
    assert page.locator("#tripod-27c .status").inner_text() == "not reported"
    page.locator("#claim-39").get_by_role("link", name="Errors by group").click()
    page.wait_for_url("**/report.html#errors")
    page.close()


def test_printed_charts_have_the_height_of_their_place(page: Page, folder: Path):
    open_report(page, folder / "report.html")
    heights = "[...document.querySelectorAll('[data-chart]')].map(e => [e.clientHeight, e.layout.height])"
    before = page.evaluate(heights)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.evaluate(heights)
    assert all(abs(place - drawn) <= 1 for place, drawn in printed)
    assert all(after[1] < 0.9 * height for after, (_, height) in zip(printed, before, strict=True))
    assert max(drawn for _, drawn in printed) < 512  # half of what a page of A4 has
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(heights) == before
