"""The pages say what is there: paths exist, links lead somewhere, commands and options are known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

import sweep
from sweep.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FURTHER = [ROOT / page for page in ("RESULTS.md", "CHANGELOG.md", "benchmarks/README.md", "deploy/README.md")]
CODE = re.compile(r"^```.*?^```$|^ {4}.*?$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings, and mkdocs.yml too."""
    heads = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *FURTHER], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_leads_somewhere(page):
    text = page.read_text()
    paths = re.findall(r"`((?:sweep|data|models|tests|benchmarks|deploy|docs|examples)/[\w./]*)`", text)
    missing = [path for path in paths if page in PAGES and not (ROOT / path).exists()]
    for link in re.findall(r"\]\(<?([^)\s>]+)", CODE.sub("`code`", text)):
        place, _, anchor = link.partition("#")
        there = page.parent / place if place else page
        if not re.match(r"https?:|mailto:", link):
            missing += [] if there.exists() and (not anchor or anchor in anchors_of(there)) else [link]
    assert missing == []
    assert not re.findall(r"\b[A-Z]+_(?:TABLE|SUMMARY|FAST)\b", text), "a page with a place that nobody filled"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_is_known(page):
    whole = get_command(app)
    commands = dict(whole.commands)  # type: ignore[attr-defined]
    for command in ("data",):
        commands |= {f"{command} {name}": sub for name, sub in commands[command].commands.items()}
    for line in re.findall(
        r"(?:python -m sweep|`sweep|^\s*sweep) (.+)", page.read_text().replace("\\\n", " "), re.MULTILINE
    ):
        line = line.partition("  #")[0].partition("`")[0]
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0] if words else ""
        if name and not name.startswith("-"):
            assert name in commands, f"{page.name}: there is no command {name}: {line}"
        options = {
            option
            for parameter in commands.get(name, whole).params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", line):
            assert option in options | {"--help"}, f"{page.name}: {name or 'sweep'} has no {option}: {line}"


def test_nobody_is_told_to_install_a_strangers_package():
    """`sweep` on PyPI is not this project: extras are installed in a clone."""
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert described["project"]["name"] == "sweep-orchestrator"
    assert described["project"]["scripts"] == {"sweep": "sweep.__main__:main"}
    code = [path for folder in ("sweep", "data", "models", "deploy", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = {path: path.read_text() for path in (*PAGES, *code) if path.suffix in (".py", ".md", ".yaml", ".ray")}
    wrong = re.compile(r"install[^\n&]*[\s'\"]sweep(\[|['\"\s]|$)|sweep\[(ray|postgres)", re.MULTILINE)
    assert [str(path) for path, text in texts.items() if wrong.search(text)] == []
    named = {extra for text in texts.values() for extra in re.findall(r"--extra ([a-z]+)", text)}
    assert named == described["project"]["optional-dependencies"].keys()


def test_the_site_has_every_page_and_the_api_every_public_name():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2].partition("\nmarkdown_extensions:")[0]
    assert sorted(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == sorted(
        str(page.relative_to(ROOT)) for page in (*PAGES, *FURTHER)
    )
    documented = re.findall(r"^::: sweep\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(sweep.__all__)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
