"""What a search gives: the best trial, all trials, scores with intervals, and the registered model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from sweep.metrics.assessment import Assessment
from sweep.orchestrator.leaderboard import leaderboard
from sweep.orchestrator.run_params import description_of
from sweep.orchestrator.search import Searched
from sweep.orchestrator.workdir import optuna_in
from sweep.stores.study import stored_studies


@dataclass(frozen=True)
class SearchResult:
    """A search of one architecture.

    Attributes:
        study: The study's full name.
        metric: What it chose by; of several metrics the first.
        best_trial: The number of the chosen trial.
        best_params: Its hyperparameters.
        best_value: Its value in the metric.
        trials: A row per trial that ended well, the best first.
        validation: A row per score, as the model is served: `value`, and the ends of its 95 % interval, `low`, `high`.
        test: Likewise, on the test images, which were opened after the choice.
        run_id: The chosen trial's MLflow run.
        study_run_id: The study's.
        model: Name of the registered model.
        version: Its version there.
        aliases: What was decided about each alias: alias -> sentence.
        warnings: What speaks against trusting it, a sentence each.
        choice: How it was chosen by several metrics, a sentence without its end; empty with one.
    """

    study: str
    metric: str
    best_trial: int
    best_params: Mapping[str, Any]
    best_value: float
    trials: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    run_id: str
    study_run_id: str
    model: str
    version: str
    aliases: Mapping[str, str]
    warnings: tuple[str, ...]
    choice: str = ""

    @property
    def uri(self) -> str:
        """The registered version, as MLflow and `sweep.predict` take it."""
        return f"models:/{self.model}/{self.version}"

    def __repr__(self) -> str:
        accuracy = self.test["value"].get("accuracy")
        return (
            f"<SearchResult {self.study}: trial {self.best_trial} of {len(self.trials)}, {self.metric} "
            f"{self.best_value:.4f}, test accuracy {accuracy:.4f}, {self.uri}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        params = pd.Series(dict(self.best_params), name="the best").to_frame().T
        warnings = "".join(f"<p><b>Warning:</b> {escape(warning)}.</p>" for warning in self.warnings)
        head = f"<b>{escape(self.study)}</b>: trial {self.best_trial}, {escape(self.metric)} {self.best_value:.4f}"
        place = f"registered as <code>{escape(self.uri)}</code>, run <code>{escape(self.run_id)}</code>"
        scores = self.test.rename(columns={"value": "test"}).to_html(float_format="{:.3f}".format)
        choice = f"<p>{escape(self.choice)}</p>" if self.choice else ""
        return f"<p>{head}; {place}</p>{choice}{warnings}{params.to_html(escape=True)}{scores}"


def result_of(done: Searched, folder: Path) -> SearchResult:
    """The result of a search of one architecture.

    Args:
        done: What it ended with.
        folder: Its working directory.
    """
    (outcome,), storage = done.outcomes, done.plan.settings.storage or optuna_in(folder)
    (study,) = (study for study in stored_studies(storage) if study.name == outcome.study)
    about = description_of(study)
    return SearchResult(
        outcome.study,
        about.metric,
        outcome.best.number,
        outcome.best.params,
        float(outcome.best.value or 0.0),
        leaderboard(study.trials(), about.metrics, about.run_name, exact=True),
        _scores(outcome.validation),
        _scores(outcome.test),
        outcome.run_id,
        outcome.parent_run_id,
        outcome.model,
        outcome.version,
        outcome.aliases,
        outcome.warnings,
        outcome.choice.sentence if outcome.choice else "",
    )


def _scores(assessment: Assessment) -> pd.DataFrame:
    rows = {name: (interval.value, interval.low, interval.high) for name, interval in assessment.served.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"]).rename_axis("score")
