"""Charts of paired tests: by how much one model is better than another on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from sweep.comparisons.architectures.analysis import PairedTest
from sweep.comparisons.architectures.chart_style import NAMED_AXIS, NEUTRAL, arch_marker, error_bars, new_figure
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import POINTS_IN_PRINT, format_interval, format_p_value
from sweep.metrics.names import LABELS


def forest(
    paired_tests: Sequence[PairedTest], score: Literal["accuracy", "auroc"], by: Literal["arch", "against"] = "arch"
) -> go.Figure | None:
    """Draws by how much one model is better than another, with intervals; None where there is no test.

    Args:
        paired_tests: One line each.
        score: The score.
        by: Which of the two models names the line.
    """
    if not paired_tests:
        return None
    figure = new_figure(
        height=110 + 48 * len(paired_tests),
        showlegend=False,
        xaxis={"title": {"text": f"difference in {LABELS[score]}, points"}},
        yaxis={**NAMED_AXIS, "autorange": "reversed", "type": "category"},
    )
    ends = [0.0]
    for paired_test in paired_tests:
        interval = (paired_test.accuracy if score == "accuracy" else paired_test.auroc).interval
        points = Interval(100 * interval.value, 100 * interval.low, 100 * interval.high)
        arch = paired_test.arch if by == "arch" else paired_test.against
        ends += [end for end in (points.value, points.low, points.high) if not np.isnan(end)]
        figure.add_trace(
            go.Scatter(
                x=[points.value],
                y=[arch],
                mode="markers",
                marker=arch_marker(arch, 11),
                error_x=error_bars(points),
                name=arch,
                hovertemplate=f"{paired_test.arch} against {paired_test.against}: "
                f"{format_interval(interval, POINTS_IN_PRINT)}"
                f"<br>corrected p {format_p_value(paired_test.corrected[score])}<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1.5, "dash": "dot"})
    pad = 0.1 * (max(ends) - min(ends)) or 1
    figure.update_xaxes(range=[min(ends) - pad, max(ends) + pad])
    return figure
