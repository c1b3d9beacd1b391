"""Where a function shows what happens, if its caller says nothing: in the terminal, or below a notebook's cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.orchestrator.progress import View


def view_or_terminal(view: View | None) -> View:
    """The view that was given, or one that prints."""
    if view is not None:
        return view
    from sweep.terminal import Terminal

    return Terminal(json=False)
