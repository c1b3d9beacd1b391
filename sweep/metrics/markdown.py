"""Tables in Markdown, as MLflow's pages and editors show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

NOTE_LENGTH = 8000  # MLflow's limit


def note(text: str, file: str) -> str:
    """Shortens a text to what MLflow takes as a description, in whole paragraphs, and says which file has the rest."""
    if len(text) <= NOTE_LENGTH:
        return text
    rest = f"\n\nThe rest is in `{file}`."
    shortened = text[: NOTE_LENGTH - len(rest)]
    return shortened[: shortened.rindex("\n\n")] + rest


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Writes a table.

    Args:
        heads: A name for each column.
        rows: As many cells each.
    """
    # MLflow's page sets cells side by side without a gap: two spaces that do not break keep them apart.
    cells = [[str(cell).replace("|", "\\|") + "\u00a0\u00a0" for cell in line] for line in (heads, *rows)]
    lines = [cells[0], ["---"] * len(heads), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
