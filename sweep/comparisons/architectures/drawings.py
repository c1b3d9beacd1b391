"""A diagram of each compared network, drawn from its description alone."""

from __future__ import annotations

from collections.abc import Sequence

from data.faults import InputError
from models.outline import outline, sketch
from sweep.comparisons.architectures.analysis import ComparedModel
from sweep.metrics import figures
from sweep.metrics import network_diagram as diagrams
from sweep.space import layout


def drawings_of(models: Sequence[ComparedModel]) -> tuple[dict[str, figures.Figure], list[str]]:
    """Draws the networks.

    Returns:
        A drawing by architecture, and a note for each that cannot be drawn: the file of a network of the user's may
        be gone, or another one by now.
    """
    drawn, notes = {}, []
    for model in models:
        params, size = model.params, int(model.params["image_size"])
        layers = (size, len(model.predictions.classes), params["activation"], float(params["dropout"]))
        try:
            network = sketch(params["arch"], *layers, **layout(params), source_digest=params.get("source_digest"))
        except InputError as error:
            notes.append(f"{model.arch} has no diagram: {error}")
            continue
        title = f"{model.arch}, {size} x {size} pixels, {model.cost.parameters:,} parameters"
        drawn[model.arch] = diagrams.architecture(outline(network, size), title)
    return drawn, notes
