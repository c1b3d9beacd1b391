"""Make one registered version of several trained networks: predict, fit, open the test set once, register.

All that takes time comes before anything is written. The ensemble's run keeps the predictions: a process that goes on
after a kill reads them from there, and scores no image a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from data.cache import images_of
from sweep.comparisons.ensembles.described import facts_of, spec_of, tags_of, validation_note
from sweep.comparisons.ensembles.scored import KIND, Ensemble, Scored, logits_of, score, stored, threshold_of
from sweep.lifecycle.model_card import CardData, card_summary
from sweep.lifecycle.promotion import settle
from sweep.metrics import figures
from sweep.metrics.assessment import Assessment, assess
from sweep.metrics.calibration import Temperature, choose_temperature
from sweep.metrics.ensembles import value_of
from sweep.metrics.names import main_test_scores
from sweep.metrics.predictions import STRESSED_VALIDATION
from sweep.metrics.threshold import Threshold, missed_classes
from sweep.orchestrator.conclude import example_of
from sweep.stores import packaging, registry
from sweep.stores import tags as tag
from sweep.stores.tracking import FINISHED, Run
from sweep.system import provenance
from sweep.system.errors import StudyFailedError


@dataclass(frozen=True)
class Outcome:
    """A registered ensemble.

    Attributes:
        name: Its run's name.
        run_id: Its run.
        members: The runs of its members, by name, with the value of the study's metric on their own.
        metric: That metric.
        value: The ensemble's; with folds that of single members, see `validation_note`.
        out_of_fold: Whether it is the latter.
        validation: Its scores on validation, as it is served.
        test: Its scores on test, likewise.
        temperature: Its temperature.
        threshold: Its decision threshold; None for more than two classes.
        model: Name of the registered model.
        version: Its version there.
        aliases: What was decided about each alias: alias -> sentence.
        validation_note: Which predictions its validation scores come from, whole sentences.
        warnings: What speaks against trusting it, a sentence each without its end.
    """

    name: str
    run_id: str
    members: Mapping[str, float]
    metric: str
    value: float
    out_of_fold: bool = field(repr=False)
    validation: Assessment = field(repr=False)
    test: Assessment = field(repr=False)
    temperature: Temperature = field(repr=False)
    threshold: Threshold | None = field(repr=False)
    model: str
    version: str
    aliases: Mapping[str, str] = field(repr=False)
    validation_note: str = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The registered version, as MLflow and `sweep.predict` take it."""
        return f"models:/{self.model}/{self.version}"


def make(ensemble: Ensemble) -> Outcome:
    """Makes an ensemble a version of the registered model; making the same again changes nothing.

    Raises:
        StudyFailedError: What would be registered gives other answers than the members.
        TrackingAwayError: MLflow's server does not answer.
    """
    tracking, metric = ensemble.tracking, ensemble.search.metric
    condition = f"tags.`{tag.KIND}` = '{KIND}' and tags.`{tag.STUDY_ID}` = '{ensemble.search.description.study_id}'"
    others = tracking.search(condition)
    run = next((run for run in others if run.tags.get(tag.ENSEMBLE_ID) == ensemble.identity), None)
    scored = (run and stored(ensemble, run.run_id)) or score(ensemble)
    labels, classes = scored.validation.labels, scored.validation.classes
    temperature = choose_temperature(labels, scored.validation.logits)
    threshold = threshold_of(ensemble, scored, temperature.value)
    served = threshold.value if threshold else None
    validation, test = (assess(part, temperature.value, served) for part in (scored.validation, scored.test))
    missed = missed_classes(labels, scored.validation.probabilities(temperature.value), served, classes)
    value = value_of(metric, scored.validation, scored.stressed)

    number = others.index(run) + 1 if run else len(others) + 1
    facts = facts_of(ensemble, validation, test, temperature, threshold, missed, number)
    tags = tags_of(ensemble, temperature.value, threshold, missed)
    run_id = _log(ensemble, run, scored, facts, tags)
    tags[metric] = f"{value:.4f}"  # of the version, whose list shows it
    scores = {**validation.values("val"), **test.values("test")}
    version = registry.registered(tracking.client, facts.name, run_id, {})
    if version is None:
        version = _register(ensemble, spec_of(ensemble, run_id, facts, scores, tags, scored))
    aliases = {alias: settle(tracking, version, alias) for alias in (ensemble.arch, registry.CHAMPION)}
    data = ensemble.search.description.data
    parts = {"val": (data.name, data.digests["validation"]), "test": (data.name, data.digests["train"])}
    tracking.log_scores(run_id, scores, version.model_id, parts)
    if run is None or run.tags.get(tag.STATE) != "COMPLETE":
        stopped = {tag.REASON: "went on after that"} if run is not None and tag.REASON in run.tags else {}
        tracking.log(run_id, main_test_scores(scores), tags={tag.STATE: "COMPLETE", **stopped})
        tracking.finish(run_id, FINISHED)
    return Outcome(
        ensemble.name,
        run_id,
        {member.name: member.value(metric) for member in ensemble.members},
        metric,
        value,
        ensemble.selection.of_folds,
        validation,
        test,
        temperature,
        threshold,
        version.name,
        version.version,
        aliases,
        validation_note(ensemble),
        facts.warnings,
    )


def _register(ensemble: Ensemble, spec: packaging.ModelSpec) -> registry.Version:
    plan, logits = ensemble.plan, partial(logits_of, ensemble)
    images = images_of(plan.source, plan.split, spec.image_size)["validation"]
    example = example_of(plan, images, spec.image_size, logits, spec.temperature)
    networks = torch.nn.ModuleList([member.trained.network.to("cpu") for member in ensemble.members])
    try:
        return registry.register(ensemble.tracking.client, spec, networks, example)
    except packaging.ModelDiffersError as error:
        raise StudyFailedError(f"{ensemble.name} cannot be registered: {error}") from error


def _log(ensemble: Ensemble, run: Run | None, scored: Scored, facts: CardData, tags: Mapping[str, str]) -> str:
    """Writes the ensemble's run, of which an earlier process may have begun; returns its id."""
    tracking, test = ensemble.tracking, facts.test
    files = []
    if run is None or stored(ensemble, run.run_id) is None:
        # Drawn before the run is begun: a process that dies here leaves nothing behind.
        files = [
            figures.predictions(part, name, ensemble.name, test.temperature, test.threshold)
            for name, part in (("validation", scored.validation), ("test", scored.test))
        ]
        files[0] |= {} if scored.stressed is None else {STRESSED_VALIDATION: scored.stressed.to_csv()}
    if run is None:
        own = {
            tag.KIND: KIND,
            tag.STATE: "RUNNING",
            tag.ENSEMBLE_ID: ensemble.identity,
            tag.TEST_OPENED: f"once for this ensemble, number {facts.opened} of its study",
            **({tag.THRESHOLD_REASON: facts.threshold} if facts.threshold else {}),
            "mlflow.note.content": card_summary(facts),
        }
        run = tracking.start(ensemble.name, {**provenance.tags(), **tags, **own})
        tracking.log_data(run.run_id, **vars(ensemble.search.description.data))
    params = {
        "members": ", ".join(member.name for member in ensemble.members),
        "chosen": ensemble.selection.asked,
        "flip": ensemble.flip,
        **facts.fixed,
    }
    tracking.log_params(run.run_id, params, run.params)
    for part in files:  # test comes last, see `stored`
        tracking.log_files(run.run_id, part)
    return run.run_id
