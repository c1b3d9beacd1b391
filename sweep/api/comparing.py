"""`sweep.compare`, `ensemble` and `replay`: what is made of runs that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from data.faults import InputError
from sweep.api.models import check_prevalence
from sweep.api.reports import write_report
from sweep.api.view import view_or_terminal
from sweep.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from sweep.comparisons.architectures.analysis import Comparison
    from sweep.comparisons.enqueued import EnqueuedResult
    from sweep.comparisons.ensembles.build import Outcome as Ensemble
    from sweep.comparisons.replay import Replay
    from sweep.orchestrator.progress import View


class Machine(TypedDict, total=False):
    """Where a comparison trains, and which stores it uses; see `sweep.settings.Settings`."""

    workers: int | None
    device: str
    tracking_uri: str | None
    storage: str | None
    engine: str
    address: str | None
    cpus_per_trial: int
    gpus_per_trial: float | None
    work_dir: Path | None


@dataclass(frozen=True)
class Compared:
    """A comparison of architectures.

    Attributes:
        comparison: All of its figures.
        report: The HTML page.
        checklist: The reporting checklist beside it.
        run_id: The MLflow run that keeps both.
    """

    comparison: Comparison = field(repr=False)
    report: Path
    checklist: Path
    run_id: str

    @property
    def scores(self) -> pd.DataFrame:
        """A row per score and architecture: as it is served, at 0.5, each with the ends of its 95 % interval."""
        import pandas as pd

        from sweep.comparisons.architectures.analysis import score_rows

        return pd.DataFrame(score_rows(self.comparison)).set_index(["score", "arch"])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        ends = self.scores[["served", "served_low", "served_high"]].itertuples(index=False)
        texts = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in ends]
        table = self.scores.assign(text=texts)["text"].unstack("arch", sort=False)
        return f"<p>report: <code>{escape(str(self.report))}</code></p>{table.to_html()}"


def compare(  # noqa: PLR0913 - one parameter per option
    model: str | None = None,
    *,
    against: str | None = None,
    seeds: int = 0,
    data: str | Path | None = None,
    allow_leakage: bool = False,
    audit: bool = True,
    with_images: bool = False,
    prevalence: float | None = None,
    with_student_report: bool = False,
    view: View | None = None,
    ended: Callable[[EnqueuedResult], None] = lambda study: None,
    **machine: Unpack[Machine],
) -> Compared:
    """Compares every architecture's best on the same test images, and writes the report.

    Args:
        model: The registered model; None for the only one there is.
        against: The architecture that all others are compared with; None takes resnet50, else the champion.
        seeds: Trains each architecture's best again with so many other seeds.
        data: Where the images are now; None for where they were.
        allow_leakage: Uses test images that are also training images.
        audit: Scores all complete trials on test too, after the choice.
        with_images: Shows test images that the champion has wrong; the report is not for publication then.
        prevalence: Of a population, for predictive values; above 0 and below 1.
        with_student_report: Shows the student report's final table too.
        view: Shows what happens; None prints it.
        ended: Called with each study of other seeds, once it has ended.
        machine: Where it trains and which stores it uses.

    Raises:
        InputError: There is nothing to compare, or an option is wrong.
    """
    if seeds < 0:
        raise InputError(f"--seeds {seeds}: give 0 (none) or more")
    check_prevalence(prevalence)
    from sweep.orchestrator.workdir import mlflow_in, stoppable

    view, folder = view_or_terminal(view), Path.cwd()
    with stoppable("stopped; nothing was written") as stopping:
        from sweep.comparisons.architectures import report
        from sweep.comparisons.architectures.checklist import page as checklist
        from sweep.comparisons.architectures.report_info import ReportInfo
        from sweep.comparisons.architectures.run import Request, gather, log, pictures_of
        from sweep.metrics.network_diagram import svg
        from sweep.stores.mlflow_stores import open_client

        client = open_client(machine.get("tracking_uri") or mlflow_in(folder))
        trained: dict[str, Any] = {**machine, **({"allow_leakage": True} if allow_leakage else {})}
        place = None if data is None else Path(data)
        request = Request(model, against, seeds, place, trained, folder, audit, prevalence)
        gathered = gather(client, request, view, stopping, ended)
        comparison = gathered.comparison
        pictures = pictures_of(gathered) if with_images else []
        dates = {arch: (model.begun, model.ended) for arch, model in gathered.stored.items()}
        info = ReportInfo(datetime.now(UTC), dates, checklist.LOGGED, with_student_report)
        drawings = {arch: svg(drawing) for arch, drawing in gathered.drawings.items()}
        charts = report.charts_of(comparison)
        page = report.to_html(comparison, drawings, (), info, charts)
        text = report.to_markdown(comparison, info)
        listed = checklist.to_html(comparison, gathered.stored, page, report.LOGGED, info.made)
        run_id = log(gathered, page, text, listed)  # without patients' images, which stay on this disk
    name, beside = f"{comparison.name}-comparison.html", f"{comparison.name}-checklist.html"
    page = report.to_html(comparison, drawings, pictures, replace(info, checklist=beside), charts)
    path = write_report(folder, name, page)
    write_report(folder, f"{comparison.name}-comparison.md", text)
    listed = checklist.to_html(comparison, gathered.stored, page, name, info.made)
    return Compared(comparison, path, write_report(folder, beside, listed), run_id)


def ensemble(  # noqa: PLR0913 - one parameter per option
    study: str | None = None,
    *,
    members: str = "top:5",
    flip: bool = False,
    data: str | Path | None = None,
    allow_leakage: bool = False,
    folds: str = "fold",
    device: str = Settings.device,
    tracking_uri: str | None = None,
    storage: str | None = None,
    view: View | None = None,
) -> Ensemble:
    """Registers several trained networks as one model, which answers the mean of their probabilities.

    Args:
        study: A finished search, such as `cnn1`; None for the only one there is.
        members: `top:N`, `seeds` or `folds`, as the command takes it.
        flip: Whether each member answers the mean of an image and its mirror image.
        data: Where the images are now; None for where they were.
        allow_leakage: Uses test images that are also training images.
        folds: Name of the folds' studies, after the search's.
        device: `auto`, `cpu`, `cuda` or `mps`.
        tracking_uri: MLflow's store; None for the one here.
        storage: Optuna's store; None for the one here.
        view: Shows what happens; None prints it.

    Raises:
        InputError: The members cannot be had.
    """
    from sweep.comparisons.ensembles.asked import asked_of

    asked = asked_of(members)
    from sweep.orchestrator.workdir import locked, mlflow_in, optuna_in, prepare, stoppable, unless

    view, folder = view_or_terminal(view), Path.cwd()
    with stoppable() as stopping:
        from sweep.comparisons.crossvalidation.run import plan_of_search, searched
        from sweep.comparisons.ensembles import scored
        from sweep.comparisons.ensembles.build import make
        from sweep.comparisons.ensembles.members import load, select
        from sweep.stores.mlflow_stores import open_client, open_tracking
        from sweep.stores.study import stored_studies
        from sweep.system.redaction import shown

        studies, uri = stored_studies(storage or optuna_in(folder)), tracking_uri or mlflow_in(folder)
        finished = searched(studies, study, "ensemble")
        selection = select(finished, studies, asked, folds)
        if open_client(uri).get_experiment_by_name(finished.study.experiment) is None:  # it is not to be made here
            raise InputError(f"--tracking-uri {shown(uri)}: it has no runs of {finished.study.name}")
        machine: dict[str, Any] = {"device": device, "tracking_uri": tracking_uri, "storage": storage}
        machine |= {"allow_leakage": True} if allow_leakage else {}
        place = None if data is None else Path(data)
        plan = plan_of_search(finished, place, 1, {**machine, "weights": "none"})  # nothing trains
        with locked(folder):
            tracking = open_tracking(uri, plan.experiment, view.say)
            with tracking.reaching():
                networks = load(selection, plan, tracking)
                prepare(plan, folder, view, stopping)
                view.say(f"{len(networks)} members: {selection.chosen}")
                whole = scored.Ensemble(finished, plan, selection, networks, flip, tracking)
                with view.counting("predicting", whole.steps) as progress:
                    done, go_on = count(1), unless(stopping, progress)
                    return make(replace(whole, step=lambda: go_on(next(done))))


def replay(
    run_id: str, *, data: str | Path | None = None, tracking_uri: str | None = None, view: View | None = None
) -> Replay:
    """Trains a recorded run again, and compares every number of every epoch.

    Args:
        run_id: The MLflow run of a trial.
        data: Where the images are now; None for where they were.
        tracking_uri: MLflow's store; None for the one here.
        view: Shows what happens; None prints it.

    Returns:
        What differs; `equal` where nothing does.

    Raises:
        InputError: There is no such run, or its images are not those that it learned from.
    """
    return replayed(run_id, data=data, tracking_uri=tracking_uri, view=view)[1]


def replayed(
    run_id: str, *, data: str | Path | None, tracking_uri: str | None, view: View | None
) -> tuple[str, Replay]:
    """The same as `replay`, with the name of the run."""
    from data.leakage import lines_of, overlaps_of
    from sweep.comparisons import replay as replaying
    from sweep.engines.local import LocalEngine
    from sweep.orchestrator.workdir import mlflow_in, stoppable
    from sweep.stores.mlflow_stores import read_run
    from sweep.system.hardware import choose_device

    view, past = view_or_terminal(view), read_run(tracking_uri or mlflow_in(Path.cwd()), run_id)
    source, split = replaying.data_of(past, None if data is None else Path(data))
    device, threads = choose_device(past.params["device"]), int(past.params["threads"])
    where = f"{source.location}, data digest {source.digest}"
    view.say(f"{past.name}: {len(past.epochs)} epochs on {where}, seed {past.params['seed']}")
    for line in lines_of(overlaps_of(source, split)):
        view.say(line)
    with stoppable() as stopping:
        engine = LocalEngine(1, device, threads)
        try:
            engine.start(1)  # imports torch while the images are decoded
            return past.name, replaying.replay(past, source, split, engine, stopping, view.say)
        finally:
            engine.close()
