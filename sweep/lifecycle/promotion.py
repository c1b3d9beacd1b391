"""Decide whether an alias moves to a version: where it is better beyond chance on validation, or a person says so.

Every decision is recorded before the alias moves: as tags of the version, and in `promotions.jsonl` of its run.
"""

from __future__ import annotations

import getpass
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data.splits import SMALLEST_VALIDATION
from sweep.metrics.bootstrap import CONFIDENCE, Interval, difference, drawn_score
from sweep.metrics.names import METRICS
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION, Predictions, read_predictions
from sweep.stores import tags as tag
from sweep.stores.registry import Version, alias_holder, set_alias, tag_version
from sweep.stores.tracking import Tracking

LOG = "promotions.jsonl"
PERSON = "by decision of a person"
TAG = tag.PROMOTION


@dataclass(frozen=True)
class Decision:
    """Whether an alias moves to a version, and why.

    Attributes:
        alias: The alias.
        version: The version that wants it.
        holder: The version that holds it; None if there is none.
        moves: Whether it moves.
        reason: Why, a sentence without its end.
        metric: The metric of the comparison; empty where there was none.
        difference: By how much the candidate is better; None where they were not compared.
        low: Lower end of its CONFIDENCE interval.
        high: Upper end of it.
        images: Validation images that both were compared on.
        by: Who decided: `gate`, or a person's login.
        at: When, in UTC.
    """

    alias: str
    version: str
    holder: str | None
    moves: bool
    reason: str
    metric: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    images: int = 0
    by: str = "gate"
    at: str = ""


def promote(tracking: Tracking, version: Version, alias: str, *, force: bool = False, reason: str = "") -> Decision:
    """Gives an alias to a version if it is better than the one that holds it, or if a person insists.

    Args:
        tracking: Of the store with the versions' runs.
        version: The candidate.
        alias: An architecture, `champion`, or any other.
        force: A person decides; the comparison is made and recorded all the same.
        reason: The person's reason.

    Returns:
        The decision; a version that holds the alias already keeps it, and nothing is written.
    """
    client, settled = tracking.client, f"{TAG}.{alias}.settled"
    holder = alias_holder(client, version.name, alias)
    if holder is not None and holder.version == version.version:
        if version.tags.get(settled) == "no":  # an earlier process ended just before it could record that
            tag_version(client, version, {settled: "yes"})
        return Decision(alias, version.version, holder.version, False, f"version {version.version} holds it")
    decision = judge(tracking, version, holder, alias)
    if force:
        because = f": {reason}" if reason else ""
        sentence = f"version {version.version} takes it {PERSON}{because}"
        decision = replace(decision, moves=True, by=_login(), reason=f"{sentence} ({decision.reason})")
    _record(tracking, version, decision)
    if decision.moves:
        now = alias_holder(client, version.name, alias)
        if not force and (now and now.version) != (holder and holder.version):  # a study elsewhere ended meanwhile
            return promote(tracking, version, alias)
        set_alias(client, version.name, alias, version.version)
    tag_version(client, version, {settled: "yes"})
    return decision


def settle(tracking: Tracking, version: Version, alias: str) -> str:
    """Has the gate decide about a version that a study has registered, once: later only a person moves the alias to it.

    Args:
        tracking: Of the store with the versions' runs.
        version: The version.
        alias: An alias.

    Returns:
        What happened to the alias, a sentence without its end.
    """
    if version.tags.get(f"{TAG}.{alias}.settled") != "yes":
        return promote(tracking, version, alias).reason
    holder = alias_holder(tracking.client, version.name, alias)
    return "nobody holds it" if holder is None else f"version {holder.version} holds it"


def judge(tracking: Tracking, version: Version, holder: Version | None, alias: str) -> Decision:
    """Compares a version with the holder of an alias; changes nothing."""
    number = version.version
    otherwise = f"; a person may decide otherwise: sweep promote {version.name}/{number} --as {alias} --force"
    by_classes = _by_missed_classes(version, holder, alias)
    if by_classes is not None:
        return by_classes if by_classes.moves else replace(by_classes, reason=f"{by_classes.reason}{otherwise}")
    if holder is None:
        return Decision(alias, number, None, True, f"version {number} takes it: nobody held it")
    metric = version.tags.get(tag.METRIC, "")
    keeps = f"version {holder.version} keeps it"
    stays = Decision(alias, number, holder.version, False, "", metric)
    if not metric:
        return replace(stays, reason=f"{keeps}: it was not registered by a study{otherwise}")
    if version.tags.get(tag.DATA_DIGEST) != holder.tags.get(tag.DATA_DIGEST):
        return replace(stays, reason=f"{keeps}: it learned from other data{otherwise}")
    ours, theirs, metric = _both(tracking, version, holder, metric)
    stays = replace(stays, metric=metric)
    if ours is None or theirs is None:
        return replace(stays, reason=f"{keeps}: the validation predictions of one are gone{otherwise}")
    # Where the splits differ, images that both kept for validation are images that neither learned from.
    shared = sorted(set(ours.images) & set(theirs.images))
    enough = len(shared) >= min(SMALLEST_VALIDATION, len(ours.images))
    gain = _gain(ours.select(shared), theirs.select(shared), metric) if enough else None
    if gain is None:
        few = f"{len(shared):,} validation images in common are too few to compare on"
        return replace(stays, reason=f"{keeps}: {few}{otherwise}", images=len(shared))
    moves = gain.low > 0
    verb, how = f"version {number} takes it" if moves else keeps, "better" if gain.value >= 0 else "worse"
    sentence = (
        f"{verb}: {metric} {how} by {abs(gain.value):.4f} ({100 * CONFIDENCE:g} % "
        f"interval {gain.low:+.4f} to {gain.high:+.4f}) on the same {len(shared):,} validation images"
    )
    return Decision(
        alias, number, holder.version, moves, sentence, metric, gain.value, gain.low, gain.high, len(shared)
    )


def _by_missed_classes(version: Version, holder: Version | None, alias: str) -> Decision | None:
    """Decides where one of both hardly ever answers some class: such a version takes an alias from nobody.

    Its own architecture's alias it takes where nobody holds that: without one it could be neither served by its name
    nor compared. None where this decides nothing.
    """
    number, own = version.version, alias == version.tags.get(tag.ARCH)
    missed = version.tags.get(tag.MISSED_CLASSES)
    if missed and holder is None:
        takes = f"version {number} takes it: nobody held it, but {missed}"
        return Decision(
            alias, number, None, own, takes if own else f"nobody holds it: version {number} is not fit, {missed}"
        )
    if holder is None:
        return None
    theirs = holder.tags.get(tag.MISSED_CLASSES)
    stays = Decision(
        alias, number, holder.version, False, f"version {holder.version} keeps it: of version {number}, {missed}"
    )
    if missed and not (own and theirs):
        return stays
    comparable = tag.METRIC in version.tags and version.tags.get(tag.DATA_DIGEST) == holder.tags.get(tag.DATA_DIGEST)
    by_person = PERSON in holder.tags.get(f"{TAG}.{alias}", "")
    if theirs and not missed and comparable and not by_person:
        takes = f"version {number} takes it: of version {holder.version}, {theirs}"
        return replace(stays, moves=True, reason=takes)
    return None


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"


def _gain(ours: Predictions, theirs: Predictions, metric: str) -> Interval | None:
    """By how much ours are better; None where a class is missing or too rare to draw."""
    if len(np.unique(ours.labels)) < len(ours.classes) or ours.classes != theirs.classes:
        return None
    plain = metric.replace("stressed_", "")
    score = drawn_score(plain)
    sign = (
        -1 if METRICS.get(plain) == "minimize" else 1
    )  # a version may come from a study by a metric of a later release
    interval = difference(ours.labels, ours.probabilities(), theirs.probabilities(), ours.patients, score).interval
    if np.isnan(interval.low):
        return None
    low, high = sorted((sign * interval.low, sign * interval.high))
    return Interval(sign * interval.value, low, high)


def _both(
    tracking: Tracking, version: Version, holder: Version, metric: str
) -> tuple[Predictions | None, Predictions | None, str]:
    """Predictions of validation images by both versions, and the metric to compare them by.

    A study that chose by stressed images is compared on these, where the holder's did so too, on the same split: each
    image is stressed alike then. Otherwise both are compared on the images as they are.
    """
    plain, split = metric.replace("stressed_", ""), version.tags.get(tag.SPLIT_DIGEST)
    if metric != plain and split is not None and split == holder.tags.get(tag.SPLIT_DIGEST):
        ours, theirs = (_validation(tracking, side, STRESSED_VALIDATION) for side in (version, holder))
        if ours is not None and theirs is not None:
            return ours, theirs, metric
    ours, theirs = (_validation(tracking, side, VALIDATION) for side in (version, holder))
    return ours, theirs, plain


def _validation(tracking: Tracking, version: Version, artifact: str) -> Predictions | None:
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.fetch(version.run_id, artifact, Path(folder))
        return None if path is None else read_predictions(path)


def _record(tracking: Tracking, version: Version, decision: Decision) -> None:
    """Adds a decision to tags and log, unless an earlier process did and ended before it could move the alias."""
    name, entries = f"{TAG}.{decision.alias}", _read_log(tracking, version)
    last = next((entry for entry in reversed(entries) if entry["alias"] == decision.alias), None)
    if version.tags.get(f"{name}.settled") == "no" and last is not None and _same(decision, last):
        return
    entry = {**asdict(decision), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    figures = {key: entry[key] for key in ("difference", "low", "high", "images")}
    tags = {name: decision.reason, f"{name}.settled": "no"}
    tags |= {f"{name}.{key}": "" if value is None else f"{value:.6g}" for key, value in figures.items()}
    tag_version(tracking.client, version, tags)
    tracking.log_files(version.run_id, {LOG: "".join(json.dumps(line) + "\n" for line in [*entries, entry])})


def _read_log(tracking: Tracking, version: Version) -> list[Mapping[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.fetch(version.run_id, LOG, Path(folder))
        return [] if path is None else [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _same(decision: Decision, entry: Mapping[str, object]) -> bool:
    keys = ("alias", "version", "holder", "moves", "reason", "by")
    return all(getattr(decision, key) == entry.get(key) for key in keys)
