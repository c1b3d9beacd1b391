"""Write the reporting checklist: CLAIM 2024 and TRIPOD+AI, filled from the stores as far as they know.

It is an aid to authors, no certificate. Items are in our own short words; `items.py` names the publications.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import unescape
from itertools import groupby

from sweep.comparisons.architectures.analysis import Comparison
from sweep.comparisons.architectures.checklist.answers import answers
from sweep.comparisons.architectures.checklist.facts import NOT_APPLICABLE, NOT_REPORTED, REPORTED, Answer, Facts
from sweep.comparisons.architectures.checklist.items import CLAIM, TRIPOD, Checklist, Item
from sweep.comparisons.architectures.report import environment
from sweep.comparisons.architectures.report_info import minute
from sweep.comparisons.architectures.stored import StoredModel

TEMPLATE = "checklist/page.html.jinja"
LOGGED = "checklist.html"  # its name among the artifacts of a comparison's run
PARTLY = "partly reported"
TOP = "First table"  # what the head of the report, which has no id, is called


@dataclass(frozen=True)
class Row:
    """An item with its answer.

    Attributes:
        item: The item.
        status: `reported`, `partly reported`, `not reported` or `not applicable`.
        text: The answer; empty where there is none.
        sections: Where the report shows it: (fragment of its address, heading).
        places: Where the stores hold it.
    """

    item: Item
    status: str
    text: str
    sections: tuple[tuple[str, str], ...]
    places: tuple[str, ...]


def rows_of(checklist: Checklist, given: Mapping[str, Answer], sections: Mapping[str, str]) -> list[Row]:
    """Fills a checklist.

    Args:
        checklist: The checklist.
        given: Answers by topic.
        sections: Headings of the report by the ids of its sections; a section that is not there is not named.
    """
    rows = []
    for item in checklist.items:
        answer = given.get(item.topic)
        if answer is None:
            rows.append(Row(item, NOT_REPORTED, "", (), ()))
            continue
        status = PARTLY if item.lacks and answer.status == REPORTED else answer.status
        heads = {"top": TOP, **sections}
        links = tuple(
            ("" if key == "top" else key, heads[key]) for key in dict.fromkeys(answer.sections) if key in heads
        )
        rows.append(Row(item, status, answer.text, links, tuple(place for place in answer.places if place)))
    return rows


def sections_of_report(page: str) -> dict[str, str]:
    """The headings of a report's sections by their ids, as its page has them.

    >>> sections_of_report('<section id="data"><h2>The data</h2></section>')
    {'data': 'The data'}
    """
    pattern = r'<section id="([^"]+)">(?:(?!</section>).)*?<h2>(.*?)</h2>'
    return {key: unescape(re.sub(r"<[^>]+>", "", head)) for key, head in re.findall(pattern, page, re.DOTALL)}


def to_html(
    comparison: Comparison, stored: Mapping[str, StoredModel], page: str, report: str, made: datetime | None
) -> str:
    """Writes the page.

    Args:
        comparison: The comparison.
        stored: What the stores hold of each model, by architecture.
        page: The report as HTML, whose sections are linked.
        report: Its file name, beside this page.
        made: When, UTC; None leaves it out.

    Returns:
        A whole document that needs no script and no network.
    """
    sections = sections_of_report(page)
    given = answers(Facts(comparison, stored, sections))
    lists = [(checklist, rows_of(checklist, given, sections)) for checklist in (CLAIM, TRIPOD)]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            comparison=comparison,
            lists=[(checklist, _parts(rows), Counter(row.status for row in rows)) for checklist, rows in lists],
            statuses=(REPORTED, PARTLY, NOT_REPORTED, NOT_APPLICABLE),
            report=report,
            made=None if made is None else minute(made),
        )
    )


def _parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows below the headings of their parts."""
    return [(part, list(group)) for part, group in groupby(rows, lambda row: row.item.part)]
