import base64
import gzip
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from sweep.comparisons.architectures import report
from sweep.comparisons.architectures.report import Picture
from sweep.comparisons.architectures.report_info import ReportInfo, dates, shows_student_report
from sweep.metrics.names import NOT_A_DEVICE
from tests.helpers.compared import ARCHS, comparison

THREE = ("COVID", "NORMAL", "PNEUMONIA")
NASTY = ("</script><b>", "PNEUMONIA `&amp;` <img src=http://x>")
SVG = '<svg viewBox="0 0 9 9" xmlns:xlink="http://www.w3.org/1999/xlink"><defs><style type="text/css">*{stroke-linejoin: round}</style></defs><path id="p"/><use xlink:href="#p" clip-path="url(#p)"/></svg>'
PLOTLY = re.compile(r'(?<=<script type="application/gzip" id="plotly">)[^<]+')
PICTURE = Picture("IM-0001.jpeg", "NORMAL", "PNEUMONIA", 0.987, b"\xff\xd8jpeg")
SECTIONS = ["known", "tests", "clinical", "curves", "confusion", "errors", "costs", "seeds", "search", "learning", "configurations", "diagrams", "data", "provenance"]  # fmt: skip


DAY, NEXT = datetime(2026, 11, 26, 14, 2, tzinfo=UTC), datetime(2026, 11, 27, 4, 5, 59, tzinfo=UTC)


@cache
def page(count=3, **options):
    return report.to_html(comparison(count, **options), dict.fromkeys(ARCHS[:count], SVG))


@cache
def own(count=3, **options):
    """The page without plotly's code."""
    return PLOTLY.sub("", page(count, **options))


class Elements(HTMLParser):
    """What a browser sees: elements in order, what was left open, and text outside scripts."""

    VOID = ("meta", "img", "br", "path", "use")

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, *tags):
        return [attrs for tag, attrs in self.found if tag in tags]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_page_is_one_well_formed_file_below_six_megabytes(count):
    written = page(count)
    assert len(written.encode()) < 6_000_000
    (packed,) = PLOTLY.findall(written)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    found = Elements(own(count))
    assert found.open == []
    names = [attrs["id"] for _, attrs in found.found if "id" in attrs]
    assert len(names) == len(set(names))
    assert [attrs["id"] for attrs in found.all("section")] == SECTIONS


def test_nothing_is_fetched_from_anywhere():
    found = Elements(own())
    links = [attrs[key] for _, attrs in found.found for key in ("src", "href", "srcset", "action") if key in attrs]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)|@import", own())
    (policy,) = [
        attrs["content"] for attrs in found.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert not re.search(r"https?://(?!www\.w3\.org/1999/xlink)", own())


def test_every_chart_has_its_data_and_every_figure_a_caption():
    found = Elements(own(4))
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', own(4), re.S)
    named = re.findall(r'^"([^"]+)": ', data[1], re.M)
    assert sorted(attrs["data-chart"] for attrs in found.all("div") if "data-chart" in attrs) == sorted(named)
    assert len(named) == 15 + 6 * 4
    assert all(attrs["aria-label"] for attrs in found.all("div") if "data-chart" in attrs)
    assert len(found.all("figure")) == len(found.all("figcaption"))


def test_headings_are_in_order_and_tables_say_what_heads_them():
    found = Elements(own())
    levels = [int(tag[1]) for tag, _ in found.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert found.all("th")
    assert all(attrs.get("scope") in ("col", "row", "rowgroup") for attrs in found.all("th"))
    assert found.all("html")[0]["lang"] == "en-GB"


def test_the_headline_and_its_table_stand_first():
    text = Elements(own()).text
    lead = "Of 3 architectures, cnn3 was selected on validation: accuracy "
    assert text.index(lead) < text.index("macro precision") < text.index("always PNEUMONIA")
    assert text.index("always PNEUMONIA") < text.index("Notes and limitations")
    assert "--arch resnet50" not in text  # nobody asked for it
    scores = comparison().of("cnn3").assessment.scores["accuracy"]
    assert f"{scores.value:.3f}{scores.low:.3f}\u2013{scores.high:.3f}" in text
    assert NOT_A_DEVICE.strip("*") in text
    assert "One seed is one draw (sweep compare --seeds 5)." in text
    assert "cnn1 began with random weights." in text


def test_a_name_of_a_class_ends_no_script_and_begins_no_element():
    written = own(2, classes=NASTY)
    found = Elements(written)
    assert found.open == []
    assert len(found.all("script")) == 3
    assert found.all("b", "img") == []
    assert NASTY[0] in found.text
    assert NASTY[1] in found.text


def test_patients_are_shown_where_they_were_asked_for_alone():
    assert "data:image/jpeg" not in own()
    assert "must not be published" not in own()
    written = report.to_html(comparison(1), {}, [PICTURE])
    assert f"data:image/jpeg;base64,{base64.b64encode(PICTURE.jpeg).decode()}" in written
    assert "must not be published" in written
    assert "NORMAL, predicted PNEUMONIA with probability 0.987" in written


def test_the_same_comparison_gives_the_same_bytes():
    again = comparison.__wrapped__(3)
    assert report.to_html(again, dict.fromkeys(ARCHS[:3], SVG)) == page(3)
    assert report.to_markdown(again) == report.to_markdown(comparison(3))


def test_drawings_keep_their_names_and_styles_to_themselves():
    written = own(2)
    for arch in ("cnn1", "cnn2"):
        assert f'<path id="{arch}-p"/><use xlink:href="#{arch}-p" clip-path="url(#{arch}-p)"/>' in written
    assert ".drawing *{stroke-linejoin" in written


def test_without_search_and_seeds_the_page_says_so():
    written = own(2, search=False, seeds=False)
    assert "the search is not shown" in written
    assert 'id="seeds"' not in written
    assert 'data-chart="history' not in written
    assert 'data-chart="selection-auroc"' in written
    assert not re.search(r"\bnan\b", Elements(written).text, re.I)


def test_three_classes_have_no_specificity():
    text = Elements(own(2, classes=THREE)).text
    assert "specificity" not in text
    assert "by the largest probability" in text
    assert "threshold of 0.5" not in text
    assert "By the largest probability, on 200 images" in report.to_markdown(comparison(2, classes=THREE))
    assert "the mean over the 3 classes" in text


def test_too_few_patients_are_said_and_not_drawn():
    text = Elements(own(2, patients=5)).text
    assert "too few" in text
    assert not re.search(r"\bnan\b", text, re.I)
    assert not re.search(r"\bnan\b", report.to_markdown(comparison(2, patients=5)), re.I)


@pytest.mark.parametrize("count", [1, 4])
def test_the_twin_tells_the_same(count):
    found = comparison(count)
    written = report.to_markdown(found)
    assert written.startswith("# chest-xray: ")
    assert "on 200 test images." in written
    for one in found.models:
        assert f"| {one.arch}" in written
        assert str(one.assessment.scores["auroc"]) in written
    for paired_test in found.paired_tests:
        assert f"- {paired_test.sentence}." in written
    for heading in ("Scores on test", "Notes and limitations", "Costs", "Other seeds", "Provenance"):
        assert f"## {heading}" in written
    assert NOT_A_DEVICE in written
    assert "student report" not in written
    assert "\u00a0k\u00a0" in written
    assert "<" not in written.replace("<\u00a00.001", "")


def test_the_twin_says_that_one_seed_is_one_draw():
    assert "single training seed" in report.to_markdown(comparison(2, search=False, seeds=False))
    assert "| cnn1\u00a0\u00a0 | accuracy\u00a0\u00a0 |" in report.to_markdown(comparison(2))


def test_a_report_has_its_date_and_those_of_its_studies():
    info = ReportInfo(NEXT, {"cnn1": (DAY, DAY), "cnn2": (DAY, NEXT), "cnn3": (DAY, None)}, "x-checklist.html")
    assert dates(info) == [
        "Made 2026-11-27 04:05 UTC.",
        "Studies: cnn1, cnn3 2026-11-26; cnn2 2026-11-26 to 2026-11-27.",
    ]
    written = report.to_html(comparison(3), {}, (), info)
    text = Elements(PLOTLY.sub("", written)).text
    assert " ".join(dates(info)) in text
    assert "2026-11-26 14:02 UTC to 2026-11-27 04:05 UTC" in text
    assert written.count('href="x-checklist.html"') == 2
    assert "Made 2026-11-27 04:05 UTC." in report.to_markdown(comparison(3), info)
    assert dates(ReportInfo()) == []


def test_the_student_report_is_there_where_it_was_asked_for_with_what_speaks_against_it():
    assert "student report" not in Elements(own()).text.lower()
    asked = ReportInfo(student_report=True)
    text = Elements(PLOTLY.sub("", report.to_html(comparison(3), {}, (), asked))).text
    for written in (text, report.to_markdown(comparison(3), asked)):
        assert "0.8542" in written  # cnn1's accuracy in the student report
        assert "selected by test accuracy" in written
        assert "cnn1 64 (theirs 160), cnn2 64 (theirs 160), cnn3 64 (theirs 150)" in written
        assert "200 other test images than its 624" in written


@pytest.mark.parametrize(
    ("size", "limit", "normal", "shown"),
    [("160", {}, 234, True), ("64", {}, 234, False), ("160", {"limit": "300"}, 234, False), ("160", {}, 235, False)],
)
def test_the_student_report_is_there_where_sizes_and_data_are_its_own(size, limit, normal, shown):
    model = comparison(1).models[0]
    predictions = replace(model.predictions, labels=(np.arange(624) >= normal).astype(int))
    model = replace(model, params={**model.params, "image_size": size, **limit}, predictions=predictions)
    assert shows_student_report(replace(comparison(1), models=(model,)), ReportInfo()) is shown


def test_charts_are_as_high_as_their_page_says_and_tables_can_say_that_they_scroll():
    found = Elements(own())
    heights = [attrs["style"] for attrs in found.all("div") if "data-chart" in attrs]
    assert heights
    assert all(re.fullmatch(r"--height: \d+px", height) for height in heights)
    assert all(attrs["role"] == "region" for attrs in found.all("div") if attrs.get("class") == "scroll")
    assert "Scroll sideways" in own()
