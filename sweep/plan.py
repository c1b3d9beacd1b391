"""What a sweep will do: its data, split and studies, all checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from data import cache, synthetic
from data.faults import InputError
from data.leakage import OPTION, Overlap, overlaps_of, refuse, sentences_of
from data.sources import Source, open_source
from data.splits import Split, split_source
from models import ARCHITECTURES, architecture, short_name, weights_of
from models.architecture import PRETRAINED
from sweep.metrics.names import COSTS, STRESSED
from sweep.settings import FINITE, Settings, check, check_data
from sweep.space import Choice, Space, batch_sizes, decided, default_configuration, layout
from sweep.stores.trials import EnqueuedTrial, StartingPoint, TrialRecord
from sweep.system.hardware import Machine, this_machine

# A finished trial leaves its best checkpoint. One in training has its last one, the one before it and the best one;
# a last one is the network, the optimiser's two moments, the moving average and the best weights.
_CHECKPOINTS = 5 + 5 + 1
_FIGURES_BYTES = 250_000
_STORES_BYTES = 20_000_000
DEFAULT_START = "default configuration"


@dataclass(frozen=True)
class PlannedStudy:
    """One study of a sweep.

    Attributes:
        arch: The architecture, as `models.architecture` takes it.
        name: The study's short name, also the parent run's.
        space: What it searches.
        trials: Finished or pruned trials that it is to have in the end.
        image_size: Side of the images, in pixels.
        options: Further arguments of the architecture's `build`.
        starts: Configurations that it begins with; the default one is the first, so that the search can be held
            against it.
        enqueued: Its trials, where they are given instead of searched.
    """

    arch: str
    name: str
    space: Space
    trials: int
    image_size: int
    options: Mapping[str, Any]
    starts: tuple[StartingPoint, ...] = ()
    enqueued: tuple[EnqueuedTrial, ...] = ()

    @property
    def short_arch(self) -> str:
        """What the registry's alias and pages call the architecture."""
        return short_name(self.arch)

    def of(self, name: str, enqueued: Sequence[EnqueuedTrial]) -> PlannedStudy:
        """A study of given trials of the same architecture."""
        values = {key: dict.fromkeys(trial.params[key] for trial in enqueued) for key in self.space}
        space = {key: Choice(tuple(choices)) for key, choices in values.items()}
        return replace(self, name=name, space=space, trials=len(enqueued), starts=(), enqueued=tuple(enqueued))


@dataclass(frozen=True)
class Plan:
    """Everything a sweep has decided before it starts.

    Attributes:
        settings: What was asked for.
        source: The data set.
        split: Which images train and validate.
        device: Where trials compute: `cpu`, `cuda` or `mps`.
        precision: Of training steps.
        workers: Trials at once.
        threads: CPU threads of a trial.
        gpus: GPUs that a trial reserves on a cluster; 0 on one machine, where workers share what there is.
        studies: One per architecture.
    """

    settings: Settings
    source: Source
    split: Split
    device: str
    precision: str
    workers: int
    threads: int
    gpus: float
    studies: tuple[PlannedStudy, ...]

    @property
    def experiment(self) -> str:
        """The MLflow experiment: as asked, but for synthetic images always of their name."""
        return self.source.name if self.source.kind == "synthetic" else self.settings.experiment or self.source.name

    def full_name(self, study: PlannedStudy) -> str:
        """The name of a study in Optuna's store, unique among data sets."""
        return f"{self.experiment}/{study.name}"


def data_line(plan: Plan) -> str:
    """One line that says which images a sweep learns from."""
    source = plan.source
    if source.kind == "synthetic":
        what = "data: the built-in synthetic images (drawn by a program, not X-rays; give real ones with --data DIR)"
    else:
        what = f"data: {source.name} from {source.location}"
    train, validation, test = len(plan.split.train), len(plan.split.validation), len(source.splits["test"])
    return f"{what}: {train:,} train, {validation:,} validation, {test:,} test"


def overlaps(plan: Plan) -> list[Overlap]:
    """What the plan's train, validation and test share: of pixels where they are decoded, else of files."""
    for planned in plan.studies:
        if pixels := cache.pixel_hashes(plan.source, planned.image_size):
            return overlaps_of(plan.source, plan.split, pixels)
    return overlaps_of(plan.source, plan.split)


def leakage_of(plan: Plan) -> str:
    """What is written on everything that a plan makes about images and patients on two sides; empty for none."""
    found = overlaps(plan)
    allowed = f" (used by {OPTION})" if any(overlap.refused for overlap in found) else ""
    return "; ".join(sentences_of(found)) + allowed


def leakage_paragraphs(plan: Plan) -> list[str]:
    """The same for a page, as the terminal has it: a warning, or a note where it may be harmless; none for none."""
    sentence, serious = leakage_of(plan), any(overlap.serious for overlap in overlaps(plan))
    return [f"**{'Warning' if serious else 'Note'}:** {sentence}."] if sentence else []


@dataclass(frozen=True)
class Estimate:
    """What a study is expected to take.

    Attributes:
        arch: The architecture.
        parameters: Of its network.
        images_per_second: Of one worker's training, measured just now on random images.
        seconds: If no trial is pruned or stops early, so near the upper end.
        disk: Bytes in the working directory.
    """

    arch: str
    parameters: int
    images_per_second: float
    seconds: float
    disk: int


def make_plan(settings: Settings, *, fetch: bool, source: Source | None = None) -> Plan:
    """Checks the settings against data and machine.

    Args:
        settings: What the user asked for.
        fetch: Whether ImageNet's weights may be downloaded; without it they are not looked for.
        source: The data set, where it is open already; None opens the one that the settings name.

    Raises:
        InputError: Something cannot be done; nothing was written.
    """
    check(settings)
    source = source or open_source(settings.data, patient_pattern=settings.patient_pattern, depth=settings.depth)
    split = split_source(source, validation=settings.validation, limit=settings.limit, seed=settings.split_seed)
    check_data(settings, source, split)
    refuse(overlaps_of(source, split), source.location, allowed=settings.allow_leakage)
    if source.kind != "synthetic" and settings.experiment in synthetic.NAMES:
        raise InputError(
            f"--experiment {settings.experiment}: that name belongs to the built-in synthetic images; use another"
        )
    if settings.engine == "ray":
        machine, gpus = _cluster_of(settings)
    else:
        machine, gpus = this_machine(settings.device, settings.precision, settings.workers), 0.0
    options, notes = _options(settings, fetch=fetch)
    studies = tuple(
        PlannedStudy(
            arch,
            settings.study_of(arch),
            settings.spaces[arch],
            settings.trials,
            settings.size_of(arch, source),
            options[arch],
            default_starts(settings, arch),
        )
        for arch in settings.archs
    )
    for study in studies:
        if study.arch not in ARCHITECTURES:  # the tests have seen these
            _try_out(study, len(source.classes), len(split.train))
            _count_costs(settings, study, len(source.classes))
    return Plan(
        settings,
        replace(source, notes=(*source.notes, *_notes_of_size(source, studies), *notes), sides=source.largest),
        split,
        machine.device,
        machine.precision,
        machine.workers,
        machine.threads,
        gpus,
        studies,
    )


def default_starts(settings: Settings, arch: str) -> tuple[StartingPoint, ...]:
    """What the study of an architecture begins with where nothing else is asked for: its default configuration."""
    if settings.sampler in FINITE:  # these try every configuration once, the default one among them
        return ()
    default = default_configuration(arch, settings.spaces[arch], pretrained=settings.pretrained)
    return (StartingPoint(DEFAULT_START, default),)


def default_of(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial of the default configuration; None where it did not train to its end."""
    return next(
        (one for one in trials if one.state == "COMPLETE" and one.attributes.get("start") == DEFAULT_START), None
    )


def _try_out(study: PlannedStudy, classes: int, images: int) -> None:
    """Checks a network of others before anything is trained, with the first values of its space."""
    from sweep.stores.trial_export import check_network

    space = study.space
    first = {name: space[name] for name in ("activation", "dropout") if name in space}
    params = {name: domain.values[0] if isinstance(domain, Choice) else domain.low for name, domain in first.items()}
    lone = [size for size in batch_sizes(space) if images % size == 1]
    check_network(study.arch, study.image_size, classes, {**params, **layout(decided(space))}, study.options, lone)


def _count_costs(settings: Settings, study: PlannedStudy, classes: int) -> None:
    """Checks that the costs of a network of others can be counted, where its study chooses by one."""
    costs = [metric for metric in settings.metrics if metric in COSTS]
    if not costs:
        return
    from models.outline import cost, sketch

    try:
        digest = study.options.get("source_digest")
        cost(sketch(study.arch, study.image_size, classes, source_digest=digest), study.image_size)
    except Exception as error:  # whatever a network does with a tensor that has no values
        raise InputError(f"--metric {costs[0]}: {study.arch} cannot be counted ({error}); leave it out") from error


def _options(settings: Settings, *, fetch: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The further arguments of each architecture's `build`, and what people should know of the weights."""
    options: dict[str, dict[str, Any]] = {}
    notes = []
    for arch in settings.archs:
        row = architecture(arch)
        values: dict[str, Any] = {"finetune": settings.finetune, "source_digest": row.digest}
        if "weights" in row.options:
            path, note = (None, "")
            if fetch or settings.weights not in PRETRAINED:
                path, note = weights_of(arch, settings.weights)
            values["weights"] = str(path) if path else None
            notes += [note] if note else []
        options[arch] = {name: values[name] for name in row.options if name in values}
    return options, notes


def _notes_of_size(source: Source, studies: Sequence[PlannedStudy]) -> tuple[str, ...]:
    """Says where images are made much larger than they are; nothing where the work at most doubles."""
    if source.largest is None:
        return ()
    width, height = source.largest
    enlarging = {study.arch: study.image_size for study in studies if study.image_size**2 >= 2 * width * height}
    if not enlarging:
        return ()
    sizes = {size: [arch for arch in enlarging if enlarging[arch] == size] for size in enlarging.values()}
    named = " and ".join(
        f"{size} x {size} ({', '.join(archs)}: {int(size**2 / (width * height))} times the work)"
        for size, archs in sizes.items()
    )
    least = {arch: architecture(arch).smallest for arch in enlarging}
    size = max(width, height, min(least.values()))
    others = "".join(f"; {arch} takes {least[arch]} or more" for arch in enlarging if least[arch] > size)
    return (
        f"the training images have {width} x {height} pixels at most and are trained at {named}: "
        f"--image-size {size} trains them as they are{others}",
    )


def _cluster_of(settings: Settings) -> tuple[Machine, float]:
    """What a trial has on the Ray cluster, and its GPUs; connects to the cluster."""
    try:
        from sweep.engines.ray_cluster import survey
    except ModuleNotFoundError as error:
        raise InputError(
            "--engine ray: Ray is not installed: uv sync --extra ray, in the folder of this project"
        ) from error
    machine, gpus = survey(
        settings.address,
        settings.cpus_per_trial,
        settings.gpus_per_trial,
        settings.device,
        settings.precision,
        settings.workers,
    )
    workers = settings.workers or min(machine.workers, settings.trials)  # others use the cluster, too
    return replace(machine, workers=workers), gpus


def seed_of(*parts: int | str) -> int:
    """Derives a seed from numbers and names; 31 bits, which every library takes."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def parameters_of(plan: Plan, study: PlannedStudy) -> int:
    """Counts the parameters of a study's network without building it in memory."""
    from models.outline import sketch

    network = sketch(study.arch, study.image_size, len(plan.source.classes), **layout(decided(study.space)))
    return sum(parameter.numel() for parameter in network.parameters())


def disk_of(plan: Plan, study: PlannedStudy, *, resuming: bool = False) -> int:
    """Bytes that a study may write into the working directory.

    Args:
        plan: The sweep.
        study: The study.
        resuming: Whether most of it may be there already; then only what trials in training write is counted.
    """
    network = 4 * parameters_of(plan, study)
    kept = 1 if plan.settings.keep == "best" else study.trials
    figures = study.trials * _FIGURES_BYTES
    if resuming:
        kept, figures = 1, 0
    return (kept + plan.workers * _CHECKPOINTS) * network + figures + _STORES_BYTES


def estimate(plan: Plan, study: PlannedStudy) -> Estimate:
    """Measures the speed of a study's training for a moment and computes what the study will take."""
    speed = _speed(plan, study)
    # Validation is the forward pass only, a third of a training step; stressed images are as many again.
    passes = 2 if plan.settings.metric in STRESSED else 1
    epoch = len(plan.split.train) + passes * len(plan.split.validation) / 3
    images = study.trials * plan.settings.epochs * epoch
    return Estimate(
        study.arch, parameters_of(plan, study), speed, images / (speed * plan.workers), disk_of(plan, study)
    )


def _speed(plan: Plan, study: PlannedStudy) -> float:
    """Images per second that one worker trains, measured where trials will run."""
    from sweep.training.speed import measure_speed

    classes = len(plan.source.classes)
    arguments = (study.arch, study.image_size, classes, plan.precision, plan.device, plan.threads, study.options)
    if plan.settings.engine == "ray":
        from sweep.engines.ray_cluster import on_a_worker

        return on_a_worker(measure_speed, *arguments, cpus=plan.threads, gpus=plan.gpus)
    # All at once, as the workers will be: two of them on two threads of one core are slower than one alone.
    with ThreadPoolExecutor(plan.workers) as pool:
        return mean(pool.map(lambda _: measure_speed(*arguments), range(plan.workers)))
