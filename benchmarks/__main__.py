"""Everything that is measured, in one run on one machine.

python -m benchmarks --data ../shared/chest_xray --json figures.json --markdown figures.md
python -m benchmarks training overhead --data ../shared/chest_xray
"""

from __future__ import annotations

import json
import platform
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.tables import Options, Table
from sweep.system.hardware import choose_device, describe
from sweep.system.provenance import PACKAGES

BEGIN, END = "<!-- tables: written by python -m benchmarks --markdown -->", "<!-- tables end -->"
PARTS = ("training", "sharing", "studies", "overhead", "clusters", "scale", "pixels", "pruning", "starting")


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(PARTS)}; all unless given.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of images; the synthetic ones unless given.")] = None,
    seed: Annotated[int, typer.Option(help="Every random draw comes from it.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda, for training and sharing.")] = "cpu",
    quick: Annotated[bool, typer.Option(help="As small as it can be: shows that it runs, measures nothing.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables into this page.")] = None,
) -> None:
    """Measures what the sweep costs beside what people write today and beside the limit. Read the ratios."""
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there is no such benchmark; one of {', '.join(PARTS)}")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"--device {device}: give cpu or cuda")
    options = Options(data, seed, repeats, quick, choose_device(device))
    versions = {name: metadata.version(name) for name in PACKAGES}
    machine = {**describe(), "python": platform.python_version(), **versions}
    console, tables, began = Console(), [], time.monotonic()
    console.print(" · ".join(f"{name} {value}" for name, value in machine.items()), style="dim")
    for part in parts or PARTS:
        measured: list[Table] = import_module(f"benchmarks.{part}").measure(options)
        for table in measured:
            table.show(console)
            tables.append(table)
        # After each part: a benchmark takes long, and its figures should outlive an interruption.
        if json_file:
            json_file.write_text(json.dumps(_plain(machine, options, tables), indent=1))
        if markdown:
            page = markdown.read_text() if markdown.exists() else ""
            markdown.write_text(with_tables(page, machine, options, tables))
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes", style="dim")


def with_tables(page: str, machine: dict[str, str], options: Options, tables: list[Table]) -> str:
    """A page with its tables replaced by these, between the two marks; one without marks gets them at its end."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    described = " · ".join(f"{name} {value}" for name, value in machine.items())
    data = options.data.name if options.data else "the synthetic images"
    conditions = f"{described}\n\nOn {data}, seed {options.seed}, {options.repeats} repeats.\n"
    return "\n".join([before + BEGIN + "\n", conditions, *(table.markdown() for table in tables), END + after])


def _plain(machine: dict[str, str], options: Options, tables: list[Table]) -> dict[str, object]:
    data = options.data.name if options.data else "synthetic"
    given = {"data": data, "seed": options.seed, "repeats": options.repeats}
    return {"machine": machine, **given, "tables": {table.name: table.values for table in tables}}


if __name__ == "__main__":
    typer.run(main)
