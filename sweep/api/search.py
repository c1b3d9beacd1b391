"""`sweep.search`: one search from its settings to its registered model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from models import absolute
from sweep.api.view import view_or_terminal
from sweep.settings import Settings, seconds_of
from sweep.space import Choice, Range, Value, written

if TYPE_CHECKING:
    from sweep.api.search_result import SearchResult
    from sweep.orchestrator.progress import View


class SearchOptions(TypedDict, total=False):
    """Further options of a search; see `sweep.settings.Settings`, which has their meaning and their defaults."""

    study: str | None
    epochs: int
    patience: int
    image_size: int | None
    limit: int | None
    validation: str
    patient_pattern: str
    depth: int | None
    allow_leakage: bool
    seed: int
    split_seed: int
    metric: str | Sequence[str]
    sampler: str
    pruner: str
    warmup: int
    weights: str
    finetune: str
    retries: int
    keep: str
    workers: int | None
    device: str
    precision: str
    tracking_uri: str | None
    storage: str | None
    experiment: str | None
    engine: str
    address: str | None
    cpus_per_trial: int
    gpus_per_trial: float | None
    work_dir: Path | None
    notify: str | None


def search(  # noqa: PLR0913 - each is asked for by its name
    arch: str,
    *,
    data: str | Path | None = None,
    trials: int = Settings.trials,
    fix: Mapping[str, Value] | None = None,
    space: Mapping[str, Range | Choice | Sequence[Value]] | None = None,
    ready_space: str = Settings.space,
    enqueue: Sequence[Mapping[str, Value] | str | Path] = (),
    budget: str | float | None = None,
    view: View | None = None,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """Searches the hyperparameters of an architecture and registers the best model; goes on with a study that is there.

    Args:
        arch: `cnn1`, `timm:NAME`, `my_model.py:build`, ...
        data: A folder with `train/` and `test/`, or an `.npz`; None takes what the commands take.
        trials: Trials that the study is to have in the end.
        fix: Hyperparameters that are not searched, by name.
        space: Hyperparameters to search over other values: a Range, or the values to choose from.
        ready_space: What is searched besides: `basic`, `scratch` or `finetune`.
        enqueue: Configurations to begin with, after the default one: hyperparameters by name, files of them (`.json`,
            `.csv`), or names of other studies, whose best is taken.
        budget: Seconds that training may take, or a text such as `2h`; None for as long as it takes.
        view: Shows what happens; None prints it, in a notebook with a live table.
        options: As those of `sweep search`; `metric` is one or a list.

    Raises:
        InputError: Something cannot be done; nothing was written.
        StudyFailedError: Trials fail and none ends well.
        StudyInterruptedError: It was interrupted; the same call goes on from there.
    """
    from sweep.api.search_result import result_of
    from sweep.orchestrator.search import run_search

    named: dict[str, Any] = dict(options)
    if "metric" in named:
        metric = named.pop("metric")
        named["metrics"] = (metric,) if isinstance(metric, str) else tuple(metric)
    settings = Settings(
        archs=(absolute(arch),),
        data=None if data is None else Path(data),
        trials=trials,
        fix=tuple(f"{name}={value}" for name, value in (fix or {}).items()),
        search=tuple(f"{name}={written(_domain(domain))}" for name, domain in (space or {}).items()),
        space=ready_space,
        enqueue=tuple(dumps(dict(one)) if isinstance(one, Mapping) else str(one) for one in enqueue),
        budget=seconds_of(budget) if isinstance(budget, str) else budget,
        **named,
    )
    done = run_search(settings, Path.cwd(), view_or_terminal(view), lambda outcome, plan: None)
    return result_of(done, Path.cwd())


def _domain(domain: Range | Choice | Sequence[Value]) -> Range | Choice:
    if isinstance(domain, Range | Choice):
        return domain
    return Choice((domain,) if isinstance(domain, str) else tuple(domain))
