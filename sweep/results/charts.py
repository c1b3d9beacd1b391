"""Charts of a comparison for a page that people can point at: figures of plotly, a function a chart.

An architecture has one colour and one symbol everywhere. Titles are left to the page, and so are the colours of text
and grid, which change with its theme; what is coloured here shows on white and on near-black alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from sklearn import metrics

from models import ARCHITECTURES
from sweep.results.calibration import reliability
from sweep.results.comparison import Contender, Duel, Tried, called, errors_by_group
from sweep.results.figures import BLUE, GREEN, ORANGE, PALETTE, RED
from sweep.results.statistics import Interval

# Those of Okabe and Ito's palette that stand out from white and from near-black at least 3 to 1; gray for a fifth.
COLORS = (BLUE, RED, GREEN, "#CC79A7", "#6b7280")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star")
NEUTRAL = "#7f7f7f"
# Classes are no architectures and share no colour with them; a line around each bar does what contrast does not.
CLASS_COLORS = (PALETTE[5], ORANGE, "#F0E442", "#bdbdbd")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NOTHING = "rgba(0,0,0,0)"
SPACE = "\u00a0"
# Margins grow for names alone. Where they grow for numbers they may never settle: fewer pixels have fewer numbers,
# which leave more pixels.
_NAMED: dict[str, Any] = {"showgrid": False, "automargin": True}

LABELS = {"accuracy": "accuracy", "auroc": "AUROC", "loss": "loss"}
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


def color(arch: str) -> str:
    """The colour of an architecture."""
    return COLORS[_place(arch) % len(COLORS)]


def symbol(arch: str) -> str:
    """The marker of an architecture, for those who cannot tell its colour."""
    return SYMBOLS[_place(arch) % len(SYMBOLS)]


def roc(contenders: Sequence[Contender]) -> go.Figure:
    """Draws the ROC curve of each contender; with more than two classes the mean of one class against the rest.

    Args:
        contenders: Scored on the same images. With two classes their operating points at 0.5 are marked.
    """
    classes = [escape(name) for name in contenders[0].predictions.classes]
    two = len(classes) == 2
    figure = _figure(
        height=440,
        xaxis=_share("false positive rate"),
        yaxis=_share("true positive rate"),
    )
    _make_square(figure)
    figure.add_trace(_diagonal(0, 1))
    told = (
        f"finds %{{y:.1%}} of {classes[1]}<br>and calls %{{x:.1%}} of {classes[0]} so too"
        if two
        else "true positive rate %{y:.1%}<br>false positive rate %{x:.1%}"
    )
    for one in contenders:
        false, true = _roc_of(one)
        area = one.assessment.scores["auroc"].value
        figure.add_trace(
            go.Scatter(
                x=_plain(false),
                y=_plain(true),
                mode="lines",
                line={"color": color(one.arch), "width": 2},
                name=f"{one.arch}, AUROC {area:.3f}",
                legendgroup=one.arch,
                hovertemplate=f"{told}<extra>{one.arch}</extra>",
            )
        )
    for one in contenders if two else ():
        found, labels = called(one.predictions), one.predictions.labels
        figure.add_trace(
            go.Scatter(
                x=[_rounded(found[labels == 0].mean())],
                y=[_rounded(found[labels == 1].mean())],
                mode="markers",
                marker=_marker(one.arch, 11, ring=True),
                legendgroup=one.arch,
                showlegend=False,
                hovertemplate=f"at a threshold of 0.5 {told}<extra>{one.arch}</extra>",
            )
        )
    return figure


def calibration(contenders: Sequence[Contender]) -> go.Figure:
    """Draws how often probabilities came true, as each model is served; larger markers stand for more images."""
    predictions = contenders[0].predictions
    two = len(predictions.classes) == 2
    figure = _figure(
        height=440,
        xaxis=_share(f"probability of {escape(predictions.classes[1])}" if two else "largest probability"),
        yaxis=_share("came true"),
    )
    _make_square(figure)
    figure.add_trace(_diagonal(0, 1))
    for one in contenders:
        found = reliability(one.predictions.labels, one.predictions.likely(one.assessment.temperature))
        figure.add_trace(
            go.Scatter(
                x=_plain(found.predicted),
                y=_plain(found.observed),
                mode="lines+markers",
                line={"color": color(one.arch), "width": 1},
                marker={
                    "symbol": symbol(one.arch),
                    "size": _plain(5 + 18 * np.sqrt(found.images / found.images.sum())),
                    "line": {"width": 0},
                },
                cliponaxis=False,
                customdata=found.images.tolist(),
                name=f"{one.arch}, error {one.assessment.scores['ece'].value:.3f}",
                hovertemplate="%{customdata:,} images: said %{x:.1%}, came true %{y:.1%}"
                f"<extra>{one.arch}</extra>",
            )
        )
    return figure


def confusion(contender: Contender) -> go.Figure:
    """Draws counts, and percentages of each true class, at a threshold of 0.5."""
    found = contender.predictions
    classes = [escape(name) for name in found.classes]
    counts = metrics.confusion_matrix(found.labels, called(found), labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(
        height=max(280, 56 * len(classes) + 100),
        margin={"l": 12, "r": 8, "t": 8, "b": 12},
        xaxis={"title": {"text": "called"}, "showgrid": False, "ticks": "", "automargin": True},
        yaxis={
            "title": {"text": "is"},
            **_NAMED,
            "ticks": "",
            "autorange": "reversed",
            "tickangle": -90 if len(classes) == 2 else 0,
        },
    )
    red, green, blue = (int(color(contender.arch)[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_trace(
        go.Heatmap(
            x=classes,
            y=classes,
            z=[_plain(row) for row in shares],
            zmin=0,
            zmax=1,
            # Never full, so that the page's own ink can be read on every cell in both themes.
            colorscale=[[0, f"rgba({red},{green},{blue},0.04)"], [1, f"rgba({red},{green},{blue},0.5)"]],
            showscale=False,
            xgap=3,
            ygap=3,
            customdata=counts.tolist(),
            hovertemplate="%{customdata:,} images that are %{y} were called %{x}"
            f"<br>%{{z:.1%}} of %{{y}}<extra>{contender.arch}</extra>",
        )
    )
    few = len(classes) <= 4
    for (row, column), count in np.ndenumerate(counts):
        share = f"{100 * shares[row, column]:.1f}{SPACE}%"
        figure.add_annotation(
            x=classes[column],
            y=classes[row],
            text=f"<b>{count:,}</b><br>{share}" if few else f"{count:,}",
            showarrow=False,
            font={"size": 14 if few else 10},
        )
    return figure


def learning_curves(contender: Contender, part: Literal["loss", "scores"]) -> go.Figure:
    """Draws the loss, or accuracy and AUROC, across epochs (report figures 5, 7, 9, 10 and 12).

    Args:
        contender: Its best epoch is marked.
        part: Which of the two.
    """
    shade = color(contender.arch)
    lines = {
        "loss": (
            ("train/loss", "training", NEUTRAL, "dot"),
            ("val/loss", "validation", shade, "solid"),
        ),
        "scores": (
            ("train/accuracy", "training accuracy", NEUTRAL, "dot"),
            ("val/accuracy", "validation accuracy", shade, "solid"),
            ("val/auroc", "validation AUROC", shade, "dash"),
        ),
    }[part]
    epochs = [int(row["epoch"]) for row in contender.history]
    figure = _figure(
        height=300,
        hovermode="x unified",
        xaxis={"title": {"text": "epoch"}, "dtick": max(1, len(epochs) // 8)},
        yaxis={"title": {"text": "weighted cross entropy" if part == "loss" else "score"}},
    )
    values = [[_number(row.get(key)) for row in contender.history] for key, *_ in lines]
    for (_, name, line, dash), ys in zip(lines, values, strict=True):
        figure.add_trace(
            go.Scatter(
                x=epochs,
                y=ys,
                mode="lines+markers",
                line={"color": line, "width": 2, "dash": dash},
                marker={"size": 5},
                name=name,
                hovertemplate="%{y:.3f}",
            )
        )
    known = _known([value for ys in values for value in ys])
    # A first epoch that blew up would press the others flat.
    if part == "loss" and known and max(known) > 30 * min(known) > 0:
        ticks = _ticks(_STEPS, min(known), max(known))
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    if contender.epoch:
        figure.add_vline(x=contender.epoch, line={"color": NEUTRAL, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=contender.epoch,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"kept: epoch {contender.epoch}",
            showarrow=False,
            font={"size": 11},
        )
        # The legend stands above that.
        figure.update_layout(legend={"y": 1.1})
    return figure


def search_history(contender: Contender) -> go.Figure | None:
    """Draws what each trial of the search was worth, and the best so far; None where the search is not known."""
    search = contender.search
    if search is None or not search.trials:
        return None
    metric = said_of_metric(search.metric)
    # Whole numbers, however few trials there are.
    step = max(1, len(search.trials) // 6)
    figure = _figure(height=320, xaxis={"title": {"text": "trial"}, "dtick": step}, yaxis={"title": {"text": metric}})
    finished = [trial for trial in search.trials if trial.state == "COMPLETE" and _number(trial.value) is not None]
    if finished:
        best = np.maximum if search.maximize else np.minimum
        steps = best.accumulate([float(trial.value or 0) for trial in finished]).tolist()
        # The best stays so to the end, however many trials come to nothing.
        last = max(trial.number for trial in search.trials)
        figure.add_trace(
            go.Scatter(
                x=[*(trial.number for trial in finished), last],
                y=[*steps, steps[-1]],
                mode="lines",
                line={"color": color(contender.arch), "width": 2, "shape": "hv"},
                name="best so far",
                hovertemplate="best so far %{y:.3f}<extra></extra>",
            )
        )
    known = _known([trial.value for trial in search.trials])
    floor = (min if search.maximize else max)(known, default=0.0)
    looks = {
        "COMPLETE": {"symbol": "circle", "color": color(contender.arch), "size": 8},
        "PRUNED": {"symbol": "x-thin", "color": NEUTRAL, "size": 8, "line": {"color": NEUTRAL, "width": 2}},
        "FAIL": {"symbol": "triangle-down-open", "color": NEUTRAL, "size": 10},
    }
    for state, look in looks.items():
        some = [trial for trial in search.trials if trial.state == state]
        if some:
            # Whoever has no value stands at the bottom, so that no trial is missing.
            values = [_number(trial.value) for trial in some]
            figure.add_trace(
                go.Scatter(
                    x=[trial.number for trial in some],
                    y=[floor if value is None else value for value in values],
                    mode="markers",
                    marker=look,
                    name=STATES[state],
                    customdata=[_told(trial, metric) for trial in some],
                    hovertemplate="%{customdata}<extra></extra>",
                )
            )
    figure.add_trace(
        _rings(
            [
                (trial.number, trial.value, _told(trial, metric))
                for trial in search.trials
                if trial.name == contender.run and trial.value is not None
            ]
        )
    )
    return figure


def importance(contender: Contender) -> go.Figure | None:
    """Draws how much of the search's variance each hyperparameter explains; None where nobody can tell."""
    if contender.search is None or not contender.search.importances:
        return None
    found = sorted(contender.search.importances.items(), key=lambda pair: pair[1])
    shares = [float(share) for _, share in found]
    figure = _figure(
        height=60 + 34 * len(found) + 40,
        xaxis={
            "title": {"text": "share of the variance"},
            "tickformat": ".0%",
            "range": [0, 1.25 * max(shares) or 1],
        },
        yaxis=_NAMED,
    )
    figure.add_trace(
        go.Bar(
            x=shares,
            y=[escape(name.replace("_", " ")) for name, _ in found],
            orientation="h",
            marker={"color": color(contender.arch)},
            width=0.6,
            text=[f"{100 * share:.0f}{SPACE}%" for share in shares],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}} explains %{{x:.0%}}<extra>{contender.arch}</extra>",
        )
    )
    return figure


def selection(contenders: Sequence[Contender], score: str) -> go.Figure:
    """Draws each trial's score on test against that on validation, which chose.

    Args:
        contenders: Their chosen trials are ringed; of others only those whose test scores are known.
        score: `accuracy` or `auroc`.
    """
    figure, points, rings = _figure(height=400), [], []
    for one in contenders:
        trials = [trial for trial in _tested(one, score) if trial.name != one.run]
        found = [(trial.validation[score], (trial.test or {})[score], trial.name) for trial in trials]
        # The chosen one comes from the contender, which is there without a search, too.
        if score in one.validation:
            rings.append((one.validation[score], one.assessment.scores[score].value, f"{one.run}, chosen"))
            found.append(rings[-1])
        points += _known([value for x, y, _ in found for value in (x, y)])
        figure.add_trace(
            go.Scatter(
                x=[_number(x) for x, *_ in found],
                y=[_number(y) for _, y, _ in found],
                mode="markers",
                marker=_marker(one.arch, 9),
                customdata=[name for *_, name in found],
                name=one.arch,
                hovertemplate="%{customdata}<br>validation %{x:.3f}, test %{y:.3f}<extra></extra>",
            )
        )
    low, high = (min(points), max(points)) if points else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.05
    ends = [low - pad, min(high + pad, 1.02)]
    label = LABELS[score]
    figure.add_trace(_diagonal(*ends))
    figure.add_trace(_rings(rings))
    figure.update_xaxes(title={"text": f"{label} on validation"}, range=ends, nticks=6)
    figure.update_yaxes(title={"text": f"{label} on test"}, range=ends, nticks=6)
    _make_square(figure)
    return figure


def cost(contenders: Sequence[Contender], over: Literal["train_seconds", "flops", "parameters"]) -> go.Figure:
    """Draws test accuracy, with its interval, against what a network takes.

    Args:
        contenders: A point each.
        over: What it takes, on a logarithmic axis.
    """
    label, said, steps = {
        "train_seconds": ("training time", human_seconds, _TIMES),
        "flops": ("floating point operations an image", human_count, _STEPS),
        "parameters": ("parameters", human_count, _STEPS),
    }[over]
    amounts = [max(float(getattr(one.cost, over)), 1e-3) for one in contenders]
    ends = [min(amounts) / 2, max(amounts) * 2]
    ticks = _ticks(steps, *ends)
    figure = _figure(
        height=360,
        xaxis={
            "title": {"text": label},
            "type": "log",
            "range": np.log10(ends).tolist(),
            "tickvals": ticks,
            "ticktext": [said(tick) for tick in ticks],
        },
        yaxis={"title": {"text": "test accuracy"}},
    )
    for one, amount in zip(contenders, amounts, strict=True):
        accuracy = one.assessment.scores["accuracy"]
        figure.add_trace(
            go.Scatter(
                x=[amount],
                y=[accuracy.value],
                mode="markers",
                marker=_marker(one.arch, 11),
                error_y=_bars(accuracy),
                name=one.arch,
                hovertemplate=f"accuracy {said_of(accuracy)}<br>{said(amount)} ({label})<extra>{one.arch}</extra>",
            )
        )
    return figure


def errors(contenders: Sequence[Contender]) -> go.Figure:
    """Draws how many images of each group each contender has wrong, at a threshold of 0.5."""
    table = errors_by_group(contenders)
    groups = [escape(str(name)) for name in table["group"]]
    totals = [int(count) for count in table["images"]]
    rates = {
        one.arch: [int(wrong) / total for wrong, total in zip(table[one.arch], totals, strict=True)]
        for one in contenders
    }
    figure = _figure(
        height=110 + len(groups) * (26 * len(contenders) + 18),
        barmode="group",
        bargap=0.25,
        xaxis={
            "title": {"text": "share that is called wrong"},
            "tickformat": ".0%",
            # Room for the counts behind the longest bar.
            "range": [0, 1.5 * max(map(max, rates.values())) or 1],
        },
        yaxis={**_NAMED, "autorange": "reversed"},
    )
    for one in contenders:
        wrong = [int(count) for count in table[one.arch]]
        figure.add_trace(
            go.Bar(
                x=rates[one.arch],
                # A long name in one line would leave a phone no room for bars.
                y=[name.replace(", ", ",<br>") for name in groups],
                orientation="h",
                marker={"color": color(one.arch)},
                name=one.arch,
                text=[f"{count:,} of {total:,}" for count, total in zip(wrong, totals, strict=True)],
                textposition="outside",
                cliponaxis=False,
                hovertemplate=f"%{{text}} wrong, %{{x:.1%}}<extra>{one.arch}</extra>",
            )
        )
    return figure


def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> go.Figure | None:
    """Draws which share of each split each class is (report figure 2); None where the counts are not known."""
    if not any(sum(images.values()) for images in counts.values()):
        return None
    splits = {split: max(1, sum(images.values())) for split, images in counts.items()}
    figure = _figure(
        height=110 + 46 * len(splits),
        barmode="stack",
        xaxis={"title": {"text": "share of the split's images"}, "tickformat": ".0%", "range": [0, 1]},
        yaxis={**_NAMED, "autorange": "reversed"},
        legend={"traceorder": "normal"},
    )
    for place, name in enumerate(dict.fromkeys(name for images in counts.values() for name in images)):
        images = [counts[split].get(name, 0) for split in splits]
        shares = [count / total for count, total in zip(images, splits.values(), strict=True)]
        figure.add_trace(
            go.Bar(
                x=shares,
                y=[escape(split) for split in splits],
                orientation="h",
                marker={
                    "color": CLASS_COLORS[place % len(CLASS_COLORS)],
                    "line": {"color": NEUTRAL, "width": 1},
                },
                width=0.62,
                name=escape(name),
                text=[f"{count:,} ({100 * share:.0f}{SPACE}%)" for count, share in zip(images, shares, strict=True)],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": "#111827"},
                hovertemplate=f"%{{y}}: %{{text}} of {escape(name)}<extra></extra>",
            )
        )
    return figure


def forest(duels: Sequence[Duel], score: Literal["accuracy", "auroc"]) -> go.Figure | None:
    """Draws by how much each contender is better than the reference, with intervals; None where there is one alone."""
    if not duels:
        return None
    figure = _figure(
        height=110 + 48 * len(duels),
        showlegend=False,
        xaxis={"title": {"text": f"difference in {LABELS[score]}, points"}},
        yaxis={**_NAMED, "autorange": "reversed", "type": "category"},
    )
    ends = [0.0]
    for duel in duels:
        interval = (duel.accuracy if score == "accuracy" else duel.auroc).interval
        points = Interval(100 * interval.value, 100 * interval.low, 100 * interval.high)
        ends += [end for end in (points.value, points.low, points.high) if not np.isnan(end)]
        figure.add_trace(
            go.Scatter(
                x=[points.value],
                y=[duel.arch],
                mode="markers",
                marker=_marker(duel.arch, 11),
                error_x=_bars(points),
                name=duel.arch,
                hovertemplate=f"{duel.arch} against {duel.against}: {said_of_gap(interval)}"
                f"<br>corrected p {said_of_chance(duel.corrected[score])}<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1.5, "dash": "dot"})
    pad = 0.1 * (max(ends) - min(ends)) or 1
    figure.update_xaxes(range=[min(ends) - pad, max(ends) + pad])
    return figure


def seeds(contenders: Sequence[Contender], score: str) -> go.Figure | None:
    """Draws a test score of every seed with the mean of each architecture; None where nobody has seeds."""
    some = [one for one in contenders if one.seeds.get(score)]
    if not some:
        return None
    figure = _figure(
        height=110 + 52 * len(some),
        xaxis={"title": {"text": f"test {LABELS[score]}"}},
        yaxis={**_NAMED, "autorange": "reversed", "type": "category"},
        showlegend=False,
    )
    for one in some:
        values = [float(value) for value in one.seeds[score]]
        mean = float(np.mean(values))
        figure.add_trace(
            go.Scatter(
                x=[mean],
                y=[one.arch],
                mode="markers",
                marker={"symbol": "line-ns", "size": 26, "line": {"color": NEUTRAL, "width": 3}},
                hovertemplate=f"mean of {len(values)} seeds %{{x:.3f}}<extra>{one.arch}</extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=values,
                y=[one.arch] * len(values),
                mode="markers",
                marker=_marker(one.arch, 10),
                customdata=list(range(1, len(values) + 1)),
                hovertemplate=f"seed %{{customdata}} of {len(values)}: %{{x:.3f}}<extra>{one.arch}</extra>",
            )
        )
    return figure


def said_of(interval: Interval) -> str:
    """A score as people write it: `0.912 (0.889-0.935)` with an en dash, or `0.912 (too few to tell)`."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return f"{interval.value:.3f} (too few to tell)"
    return f"{interval.value:.3f} ({interval.low:.3f}\u2013{interval.high:.3f})"


def said_of_gap(interval: Interval) -> str:
    """A difference of two scores as people write it, in points: `+1.2 (-0.3 to +2.7)` with a minus sign."""
    value, low, high = (
        f"{100 * end:+.1f}".replace("-", "\u2212") for end in (interval.value, interval.low, interval.high)
    )
    return f"{value} (too few to tell)" if np.isnan(interval.low) else f"{value} ({low} to {high})"


def said_of_chance(p: float) -> str:
    """A p-value as people write it."""
    if np.isnan(p):
        return "not known"
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def said_of_metric(name: str) -> str:
    """What a study chose by, in words."""
    score = name.removeprefix("val/")
    return f"validation {LABELS.get(score, score.replace('_', ' '))}"


def human_seconds(seconds: float) -> str:
    """A time in the unit that people would choose."""
    for unit, length, most in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 48)):
        # What rounds to a whole one of the next unit is told as such.
        if round(seconds / length) < most:
            return f"{_short(seconds / length)}{SPACE}{unit}"
    return f"{_short(seconds / 86400)}{SPACE}d"


def human_count(count: float) -> str:
    """A large number in thousands, millions or billions, to three digits."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{SPACE}{unit}"
    return f"{count:.0f}"


_TIMES = [
    *(number * unit for unit in (1, 60, 3600) for number in (1, 2, 5, 10, 20, 30)),
    *(86400 * number for number in (1, 2, 5, 10, 20, 50)),
]
_STEPS = [number * 10.0**power for power in range(-6, 13) for number in (1, 2, 5)]


def _ticks(steps: Sequence[float], low: float, high: float) -> list[float]:
    """Six of the steps between two ends, or fewer; the ends themselves where no step is."""
    within = [step for step in steps if low <= step <= high]
    return within[:: -(-len(within) // 6)] if within else sorted({low, high})


def _short(number: float) -> str:
    """With one decimal where it says something: `1.5`, `2`, `17`."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")


def _place(arch: str) -> int:
    """Where an architecture stands in the table of all, so that its colour depends on no other contender."""
    names = list(ARCHITECTURES)
    return names.index(arch) if arch in names else len(names)


def _figure(height: int, **layout: Any) -> go.Figure:
    """A figure in the one look that all charts share; its width is the page's."""
    axis = {"fixedrange": True, "zeroline": False, "title": {"standoff": 8, "font": {"size": 13}}}
    axes = {name: _merged(axis, layout.pop(name, {})) for name in ("xaxis", "yaxis")}
    legend = {
        "orientation": "h",
        "x": 0,
        "font": {"size": 12},
        "y": 1.02,
        "yanchor": "bottom",
        **layout.pop("legend", {}),
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 62, "r": 24, "t": 16, "b": 48},
            "paper_bgcolor": NOTHING,
            "plot_bgcolor": NOTHING,
            # A finger that scrolls the page over a chart does not zoom it.
            "dragmode": False,
            "hovermode": "closest",
            "font": {"family": FONT, "size": 13},
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "legend": legend,
            **axes,
            **layout,
        }
    )


def _make_square(figure: go.Figure) -> None:
    """Makes a chart as high as wide, right below its legend."""
    figure.update_xaxes(constrain="domain")
    figure.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="top")


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    title = {**one.get("title", {}), **other.get("title", {})}
    return {**one, **other, "title": title}


def _share(title: str, **more: Any) -> dict[str, Any]:
    """An axis from 0 to 1 that leaves room for markers at its ends."""
    return {"title": {"text": title}, "range": [-0.03, 1.03], "dtick": 0.2, "tickformat": ".0%", **more}


def _marker(arch: str, size: int, *, ring: bool = False) -> dict[str, Any]:
    line = {"color": NEUTRAL, "width": 2} if ring else {"width": 0}
    return {"symbol": symbol(arch), "color": color(arch), "size": size, "line": line}


def _rings(points: Sequence[tuple[float, float, str]]) -> go.Scatter:
    """Rings around what was chosen."""
    return go.Scatter(
        x=[x for x, *_ in points],
        y=[y for _, y, _ in points],
        mode="markers",
        marker={"symbol": "circle-open", "size": 18, "color": NEUTRAL, "line": {"width": 2}},
        name="chosen",
        customdata=[told for *_, told in points],
        # Rings lie above the points, and may not take their hover texts from them.
        hoverinfo="skip",
    )


def _diagonal(low: float, high: float) -> go.Scatter:
    return go.Scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": NEUTRAL, "width": 1, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )


def _bars(interval: Interval) -> dict[str, Any]:
    """Error bars to the ends of an interval; none where it is not known."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - interval.value],
        "arrayminus": [interval.value - interval.low],
        "thickness": 2,
        "width": 6,
    }


def _roc_of(one: Contender) -> tuple[np.ndarray, np.ndarray]:
    labels, likely = one.predictions.labels, one.predictions.likely()
    if likely.shape[1] == 2:
        false, true, _ = metrics.roc_curve(labels == 1, likely[:, 1])
        return false, true
    curves = [metrics.roc_curve(labels == label, likely[:, label])[:2] for label in range(likely.shape[1])]
    grid = np.linspace(0, 1, 201)
    mean = np.mean([np.interp(grid, false, true) for false, true in curves], axis=0)
    return np.concatenate([[0.0], grid]), np.concatenate([[0.0], mean])


def _tested(one: Contender, score: str) -> list[Tried]:
    """Trials whose score is known on validation and on test."""
    trials = one.search.trials if one.search else ()
    return [trial for trial in trials if trial.test and score in trial.test and score in trial.validation]


def _told(trial: Tried, metric: str) -> str:
    """What a point of a search says under the cursor."""
    value = _number(trial.value)
    worth = f"{metric} {value:.3f}" if value is not None else "no score"
    params = [
        f"{escape(name.replace('_', ' '))} {escape(f'{v:.3g}' if isinstance(v, float) else str(v))}"
        for name, v in trial.params.items()
    ]
    lines = [", ".join(params[place : place + 2]) for place in range(0, len(params), 2)]
    state = STATES.get(trial.state, trial.state.lower())
    return "<br>".join([f"<b>{escape(trial.name)}</b>, {state} after {human_seconds(trial.seconds)}", worth, *lines])


def _number(value: float | None) -> float | None:
    """A number that JSON can hold; None for what is none."""
    return float(value) if value is not None and np.isfinite(value) else None


def _known(values: Sequence[float | None]) -> list[float]:
    """Those that are numbers."""
    return [value for value in map(_number, values) if value is not None]


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _plain(values: np.ndarray) -> list[float]:
    """Numbers as a reader of the page's source would like them."""
    return [_rounded(value) for value in values]
