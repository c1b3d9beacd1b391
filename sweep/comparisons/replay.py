"""Train a run again from its MLflow record and compare every epoch: a test that the same seed gives the same result."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data import cache
from data.cache import images_of
from data.faults import InputError
from data.recorded import open_recorded
from data.sources import PATIENT_PATTERN, Source
from data.splits import Split, split_source
from models import architecture
from sweep.engines import Engine, EpochFinished, Job, JobFailed
from sweep.metrics.scores import metrics_of
from sweep.orchestrator.run_params import config_of, depth_of, digest_of
from sweep.stores import tags as tag
from sweep.stores.mlflow_stores import PastRun
from sweep.system import provenance
from sweep.system.errors import StudyFailedError


@dataclass(frozen=True)
class Difference:
    """A metric that differs."""

    epoch: int
    metric: str
    recorded: float
    replayed: float


@dataclass(frozen=True)
class Replay:
    """How a replayed run compares with the recorded one.

    Attributes:
        epochs: How many were compared.
        metrics: How many numbers.
        differences: Those that differ.
        surroundings: Versions and hardware that differ: tag -> recorded, now. They may explain differences.
        ending: How the two ended differently, as a sentence; empty if they did not.
    """

    epochs: int
    metrics: int
    differences: tuple[Difference, ...]
    surroundings: Mapping[str, tuple[str, str]]
    ending: str

    @property
    def equal(self) -> bool:
        """Whether every number is the same."""
        return not self.differences and not self.ending


def data_of(past: PastRun, location: Path | None) -> tuple[Source, Split]:
    """Opens the images that a run learned from, and cuts the same split.

    Args:
        past: The run.
        location: Where the images are now; None for where they were.

    Raises:
        InputError: They are not there, or not the same; or the file of a network of the user's is not.
    """
    pattern = past.params.get("patient_pattern", PATIENT_PATTERN)
    depth = depth_of(past.params)
    source = open_recorded(
        past.data_name, past.data_location, location, whose="the run", patient_pattern=pattern, depth=depth
    )
    limit = past.params.get("limit")
    split = split_source(
        source,
        validation=past.params["validation"],
        limit=None if limit is None else int(limit),
        seed=int(past.params["split_seed"]),
    )
    faults = [
        f"{source.location}: its {what} digest is {ours}, and the run was trained on {theirs}"
        for what, ours, theirs in (
            ("data", source.digest, past.tags[tag.DATA_DIGEST]),
            ("split", split.digest, past.tags[tag.SPLIT_DIGEST]),
        )
        if ours != theirs
    ]
    digest, recorded = architecture(past.params["arch"]).digest, past.params.get("source_digest")
    if digest != recorded:
        faults.append(f"{past.params['arch']} has changed: its SHA-256 begins with {digest}, then with {recorded}")
    file, recorded = past.params.get("weights_file"), past.params.get("weights_digest")
    if file is not None and not Path(file).is_file():
        faults.append(f"--weights {file}: no such file; the run began with it")
    elif file is not None and recorded not in (None, digest_of(file)):
        faults.append(f"--weights {file} has changed: its SHA-256 begins with {digest_of(file)}, then with {recorded}")
    if faults:
        raise InputError(*faults)
    return source, split


def replay(
    past: PastRun,
    source: Source,
    split: Split,
    engine: Engine,
    stopping: Callable[[], bool],
    say: Callable[[str], None],
) -> Replay:
    """Trains a run again in a folder of its own and compares each epoch as it ends; writes to no store.

    Args:
        past: The run.
        source: Its images, as `data_of` gives them; cached here.
        split: Likewise.
        engine: Where it is trained; with as many threads as the run had.
        stopping: Whether it is to stop.
        say: Called with one line per epoch.

    Raises:
        StudyFailedError: It could not be trained here.
        KeyboardInterrupt: It was stopped.
    """
    config = config_of(past.params, len(source.classes))
    cache.build(source, config.image_size)
    images = images_of(source, split, config.image_size)
    # What an earlier release did not record is not compared, and what a network costs is no number of its training.
    parts = ("train/", "val/")
    recorded = {int(row["epoch"]): {key: row[key] for key in row if key.startswith(parts)} for row in past.epochs}
    differences: list[Difference] = []
    compared, numbers, ending = 0, 0, ""
    with tempfile.TemporaryDirectory() as folder:
        engine.submit(Job(0, config, images["train"], images["validation"], Path(folder)))
        ended = False
        while not ended:
            if stopping():
                raise KeyboardInterrupt
            for event in engine.events(0.5):
                if isinstance(event, EpochFinished):
                    epoch = event.result.epoch
                    if epoch >= max(recorded, default=0):  # the run was pruned or stopped where this one would go on
                        engine.stop(0)
                    if epoch in recorded:
                        now = metrics_of(event.result, images["validation"].labels)
                        differing = _differences(epoch, recorded[epoch], now)
                        compared, numbers = compared + 1, numbers + len(recorded[epoch])
                        differences += differing
                        say(f"epoch {epoch:>3}: {_verdict(differing, len(recorded[epoch]))}")
                elif isinstance(event, JobFailed):
                    ended, ending = True, _ending(past, event)
                else:
                    ended = True
    if compared < len(recorded) and not ending:
        ending = f"it ended after {compared} epochs, the run after {len(recorded)}"
    here = {key: str(value) for key, value in provenance.tags().items()}
    around = {key: (past.tags.get(key, "unknown"), value) for key, value in here.items() if past.tags.get(key) != value}
    return Replay(compared, numbers, tuple(differences), around, ending)


def _differences(epoch: int, recorded: Mapping[str, float], now: Mapping[str, float]) -> list[Difference]:
    return [
        Difference(epoch, name, value, now.get(name, math.nan))
        for name, value in sorted(recorded.items())
        if now.get(name) != value
    ]


def _verdict(differing: list[Difference], count: int) -> str:
    if not differing:
        return f"{count} metrics equal"
    worst = max(differing, key=lambda difference: abs(difference.recorded - difference.replayed))
    return (
        f"{len(differing)} of {count} metrics differ, most {worst.metric}: "
        f"{worst.recorded:.6f} then, {worst.replayed:.6f} now"
    )


def _ending(past: PastRun, event: JobFailed) -> str:
    cause = past.tags.get(tag.CAUSE, "")
    if event.cause == cause:
        return ""  # it failed as it had failed
    if event.cause == "non-finite loss":
        return f"it ended by {event.cause}, and the run had not"
    raise StudyFailedError(f"the run could not be trained here, {event.cause}: {event.message}")
