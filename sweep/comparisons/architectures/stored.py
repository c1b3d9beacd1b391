"""What the stores hold of a compared model beyond its scores: dates, tags, its card. It fills the checklist."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.comparisons.architectures.candidates import BestVersion
from sweep.lifecycle.scored_data import DIGEST as TEST_DIGEST
from sweep.metrics.predictions import read_predictions
from sweep.orchestrator.run_params import description_of
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.model_files import read_model_file

CARD, ABOUT, VALIDATION = "model_card.md", "artifacts/model.json", "predictions/validation.csv"


@dataclass(frozen=True)
class StoredModel:
    """What the stores hold of a compared model. Older stores lack some of it: then it is empty or None.

    Attributes:
        tags: Of the run that made it.
        version_tags: Of the version.
        study: The name of its study's run.
        study_params: Params of its study's run.
        about: Its `model.json`.
        card: Its model card: heading -> text.
        validation_patients: Of the validation images; None where their predictions are gone.
        elsewhere: Evaluations on other images than its own: (run, data set).
        begun: When the first trial of its study began, UTC.
        ended: When the last one ended, UTC.
    """

    tags: Mapping[str, str]
    version_tags: Mapping[str, str]
    study: str
    study_params: Mapping[str, str]
    about: Mapping[str, Any]
    card: Mapping[str, str]
    validation_patients: frozenset[str] | None
    elsewhere: tuple[tuple[str, str], ...]
    begun: datetime | None
    ended: datetime | None

    @property
    def limits(self) -> list[str]:
        """The limits of the data that its card names, a sentence each."""
        return re.findall(r"^- (.+)$", self.card.get("Limits", ""), re.MULTILINE)

    @property
    def split_sentence(self) -> str:
        """How its card says that validation was cut; empty where it does not."""
        sentence = re.search(r"^Validation: (.+)$", self.card.get("Data", ""), re.MULTILINE)
        return sentence[1] if sentence else ""

    @property
    def patients(self) -> dict[str, int]:
        """How many patients each part has, from its card."""
        rows = re.findall(
            r"^\| (train|validation|test)\s*\|.*\| ([\d,]+)\s*\|$", self.card.get("Data", ""), re.MULTILINE
        )
        return {part: int(count.replace(",", "")) for part, count in rows}


def stored_model(client: registry.MlflowClient, best: BestVersion) -> StoredModel:
    """Reads what the stores hold of the best version of an architecture.

    Args:
        client: Of the registry.
        best: The best version.
    """
    version, tracking = best.version, best.tracking
    about = read_model_file(client, version, ABOUT)
    study_id = version.tags.get(tag.STUDY_ID) or best.past.tags.get(tag.STUDY_ID, "")
    study = tracking.find_study(study_id) if study_id else None
    params = dict(study.params) if study else {}
    if not params and best.study is not None:
        params = {name: str(value) for name, value in description_of(best.study).params.items()}
    begun, ended = _dates(client, best)
    described = json.loads(about) if about else {}
    return StoredModel(
        tags=best.past.tags,
        version_tags=version.tags,
        study=study.name if study else "",
        study_params=params,
        about=described,
        card=sections_of(read_model_file(client, version, CARD) or ""),
        validation_patients=_validation_patients(best),
        elsewhere=evaluated_elsewhere(best, described),
        begun=begun,
        ended=ended,
    )


def ensemble_note(client: registry.MlflowClient, name: str) -> list[str]:
    """Says so where an ensemble is champion: it is none of the architectures that are set side by side."""
    holder = registry.alias_holder(client, name, registry.CHAMPION)
    if holder is None or tag.MEMBERS not in holder.tags:
        return []
    what = f"version {holder.version}, {holder.tags.get(tag.ARCH)} of {holder.tags[tag.MEMBERS]}"
    return [f"the champion is an ensemble ({what}) and is not compared here; `sweep evaluate {name}` scores it"]


def sections_of(card: str) -> dict[str, str]:
    """Divides a model card at its headings of the second level: heading -> text below it."""
    parts = re.split(r"^## (.+)$", card, flags=re.MULTILINE)
    return {heading.strip(): text.strip() for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def _validation_patients(best: BestVersion) -> frozenset[str] | None:
    with tempfile.TemporaryDirectory() as folder:
        path = best.tracking.fetch(best.version.run_id, VALIDATION, Path(folder))
        return None if path is None else frozenset(read_predictions(path).patients)


def evaluated_elsewhere(best: BestVersion, about: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Evaluations of the version on other images than those that it was tested on, as their digests say.

    An earlier release recorded no digest of test images; then the digest of the whole data set decides.
    """
    version, own = best.version, best.past.tags.get(tag.DATA_DIGEST)
    tested = about.get("provenance", {}).get(TEST_DIGEST)
    condition = f"tags.`{tag.KIND}` = 'evaluation' and tags.`{tag.MODEL_VERSION}` = '{version.version}'"
    return tuple(
        (run.name, run.tags.get(tag.DATA, ""))
        for run in best.tracking.search(condition)
        if run.tags.get(tag.MODEL) == version.name
        and run.tags.get(tag.DATA_DIGEST) != own
        and (tested is None or run.params.get("test_digest") != tested)
    )


def _dates(client: registry.MlflowClient, best: BestVersion) -> tuple[datetime | None, datetime | None]:
    """From when to when a study trained; without the study the model's own run."""
    trials = best.study.trials() if best.study else []
    begun = [trial.started for trial in trials if trial.started is not None]
    ended = [trial.ended for trial in trials if trial.ended is not None]
    if not begun:
        info = client.get_run(best.version.run_id).info
        begun = [info.start_time / 1000] if info.start_time else []
        ended = [info.end_time / 1000] if info.end_time else []
    return _utc(min(begun, default=None)), _utc(max(ended, default=None))


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
