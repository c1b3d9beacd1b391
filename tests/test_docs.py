"""The pages say what is there: paths exist, links lead somewhere, commands and options are known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from sweep.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_link_leads_somewhere(page):
    text = page.read_text()
    paths = re.findall(r"`((?:sweep|data|models|tests|benchmarks|deploy|docs)/[\w./]*)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    missing = [path for path in paths if not (ROOT / path).exists()]
    missing += [link for link in links if not (page.parent / link).exists()]
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


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
