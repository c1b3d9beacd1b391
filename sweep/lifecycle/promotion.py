"""Who holds an alias: a version takes it that is better beyond chance on the same validation images, or by a person.

Every decision is written down before the alias moves: as tags of the version, and in `promotions.jsonl` of its run.
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
from sweep.metrics.bootstrap import CONFIDENCE, Interval, difference
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION, Predictions, read_predictions
from sweep.stores import tags as tag
from sweep.stores.registry import Version, alias_holder, set_alias, tag_version
from sweep.stores.tracking import Tracking

LOG = "promotions.jsonl"
PERSON = "by decision of a person"
TAG = tag.PROMOTION
# What a study chooses by, as the bootstrap computes it; a loss is better the lower it is.
SCORES = {"val/loss": ("balanced_log_loss", -1)}


@dataclass(frozen=True)
class Decision:
    """Whether an alias moves to a version, and why.

    Attributes:
        alias: The alias.
        version: The version that wants it.
        holder: The version that holds it; None if nobody does.
        moves: Whether it moves.
        reason: Why, a sentence without its end.
        metric: What both were compared by; empty where they were not.
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
        force: A person decides; the comparison is made and written down all the same.
        reason: What the person says to it.

    Returns:
        The decision; a version that holds the alias already keeps it, and nothing is written.
    """
    client, settled = tracking.client, f"{TAG}.{alias}.settled"
    holder = alias_holder(client, version.name, alias)
    if holder is not None and holder.version == version.version:
        if version.tags.get(settled) == "no":  # this process's forerunner died just before it could say so
            tag_version(client, version, {settled: "yes"})
        return Decision(alias, version.version, holder.version, False, f"version {version.version} holds it")
    decision = judge(tracking, version, holder, alias)
    if force:
        told = f": {reason}" if reason else ""
        sentence = f"version {version.version} takes it {PERSON}{told}"
        decision = replace(decision, moves=True, by=_login(), reason=f"{sentence} ({decision.reason})")
    _write_down(tracking, version, decision)
    if decision.moves:
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
        What became of the alias, a sentence without its end.
    """
    if version.tags.get(f"{TAG}.{alias}.settled") != "yes":
        return promote(tracking, version, alias).reason
    holder = alias_holder(tracking.client, version.name, alias)
    return "nobody holds it" if holder is None else f"version {holder.version} holds it"


def judge(tracking: Tracking, version: Version, holder: Version | None, alias: str) -> Decision:
    """Compares a version with the holder of an alias; changes nothing."""
    number = version.version
    if holder is None:
        return Decision(alias, number, None, True, f"version {number} takes it: nobody held it")
    metric = version.tags.get(tag.METRIC, "")
    keeps = f"version {holder.version} keeps it"
    stays = Decision(alias, number, holder.version, False, "", metric)
    otherwise = f"; a person may decide otherwise: sweep promote {version.name}/{number} --as {alias} --force"
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
    found = _difference(ours.select(shared), theirs.select(shared), metric) if enough else None
    if found is None:
        few = f"{len(shared):,} validation images in common are too few to compare on"
        return replace(stays, reason=f"{keeps}: {few}{otherwise}", images=len(shared))
    moves = found.low > 0
    verb, how = f"version {number} takes it" if moves else keeps, "better" if found.value >= 0 else "worse"
    sentence = (
        f"{verb}: {metric} {how} by {abs(found.value):.4f} ({100 * CONFIDENCE:g} % "
        f"interval {found.low:+.4f} to {found.high:+.4f}) on the same {len(shared):,} validation images"
    )
    return Decision(
        alias, number, holder.version, moves, sentence, metric, found.value, found.low, found.high, len(shared)
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"


def _difference(ours: Predictions, theirs: Predictions, metric: str) -> Interval | None:
    """By how much we are better; None where a class is missing or too rare to draw."""
    if len(np.unique(ours.labels)) < len(ours.classes) or ours.classes != theirs.classes:
        return None
    plain = metric.replace("stressed_", "")
    score, sign = SCORES.get(plain, (plain.removeprefix("val/"), 1))
    found = difference(ours.labels, ours.probabilities(), theirs.probabilities(), ours.patients, score).interval
    if np.isnan(found.low):
        return None
    low, high = sorted((sign * found.low, sign * found.high))
    return Interval(sign * found.value, low, high)


def _both(
    tracking: Tracking, version: Version, holder: Version, metric: str
) -> tuple[Predictions | None, Predictions | None, str]:
    """What both versions say of validation images, and the metric to compare them by.

    A study that chose by stressed images is compared on these, where the holder's did so too, on the same split: each
    image is stressed alike then. Otherwise both are compared on the images as they are.
    """
    plain, split = metric.replace("stressed_", ""), version.tags.get(tag.SPLIT_DIGEST)
    if metric != plain and split is not None and split == holder.tags.get(tag.SPLIT_DIGEST):
        ours, theirs = (_validation(tracking, one, STRESSED_VALIDATION) for one in (version, holder))
        if ours is not None and theirs is not None:
            return ours, theirs, metric
    ours, theirs = (_validation(tracking, one, VALIDATION) for one in (version, holder))
    return ours, theirs, plain


def _validation(tracking: Tracking, version: Version, artifact: str) -> Predictions | None:
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.fetch(version.run_id, artifact, Path(folder))
        return None if path is None else read_predictions(path)


def _write_down(tracking: Tracking, version: Version, decision: Decision) -> None:
    """Adds a decision to tags and log, unless an earlier process did and died before it could move the alias."""
    name, known = f"{TAG}.{decision.alias}", _read_log(tracking, version)
    last = next((entry for entry in reversed(known) if entry["alias"] == decision.alias), None)
    if version.tags.get(f"{name}.settled") == "no" and last is not None and _same(decision, last):
        return
    entry = {**asdict(decision), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    figures = {key: entry[key] for key in ("difference", "low", "high", "images")}
    tags = {name: decision.reason, f"{name}.settled": "no"}
    tags |= {f"{name}.{key}": "" if value is None else f"{value:.6g}" for key, value in figures.items()}
    tag_version(tracking.client, version, tags)
    tracking.log_files(version.run_id, {LOG: "".join(json.dumps(line) + "\n" for line in [*known, entry])})


def _read_log(tracking: Tracking, version: Version) -> list[Mapping[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.fetch(version.run_id, LOG, Path(folder))
        return [] if path is None else [json.loads(line) for line in path.read_text().splitlines()]


def _same(decision: Decision, entry: Mapping[str, object]) -> bool:
    keys = ("alias", "version", "holder", "moves", "reason", "by")
    return all(getattr(decision, key) == entry.get(key) for key in keys)
