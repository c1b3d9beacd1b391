"""What was asked for: every option of a sweep, checked in one place before anything is touched."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from data.faults import InputError, did_you_mean
from data.sources import PATIENT_PATTERN, Source
from data.splits import Split, fold_of
from models import ARCHITECTURES, architecture, file_of, short_name
from models.architecture import PRETRAINED, STAGES, Architecture, is_stages
from sweep.metrics.names import COSTS, METRICS, STRESSED, SYNONYMS, TWO_CLASSES
from sweep.space import Choice, Space, batch_sizes, study_space
from sweep.system.environment import faults_of_environment

SYNTHETIC_IMAGE_SIZE = 64
SAMPLERS = ("tpe", "random", "gp", "cmaes", "grid", "brute", "qmc")
FINITE = ("grid", "brute")  # samplers that try every combination once
PRUNERS = ("median", "hyperband", "halving", "patient", "none")
KEEP = ("all", "best")
ENGINES = ("local", "ray")
RESERVED = ("champion", "latest")  # aliases of the registry that are of no architecture
VALIDATIONS = ("auto", "split", "val", "sixteen")


@dataclass(frozen=True)
class Settings:
    """One sweep. The defaults are the defaults of the command line.

    Attributes:
        archs: Architectures, one study for each.
        trials: Finished or pruned trials that each study is to have in the end.
        data: As `data.sources.open_source` takes it.
        study: Name of the study; None names it after the architecture.
        epochs: Epochs of a trial at most.
        patience: Epochs without a lower validation loss before a trial stops; 0 never stops.
        image_size: Side of the images in pixels; None takes the architecture's own, or 64 for the synthetic images.
        limit: Training images to use at most; None uses all.
        validation: As `data.splits.split_source` takes it.
        patient_pattern: As `data.sources.open_source` takes it.
        depth: Likewise.
        allow_leakage: Whether test images that are also training or validation images are used.
        seed: Decides the sampler's draws and each trial's seed.
        split_seed: Decides which patients validate. Studies compare only on the same split.
        metrics: What the study chooses by: keys of METRICS or SYNONYMS, later ones of COSTS too (`metrics.pareto`).
        sampler: One of SAMPLERS.
        pruner: One of PRUNERS.
        warmup: Epochs before a trial can be pruned.
        space: What the studies search before `fix` and `search` change it, a key of `sweep.space.READY`.
        fix: Hyperparameters to fix, as `sweep.space.study_space` takes them; `ARCH/name=value` is for one architecture.
        search: Hyperparameters to search elsewhere, likewise.
        enqueue: Configurations to begin with, as `sweep.orchestrator.starting_points.plan_with_starts` takes them.
        weights: Where networks start that can be pretrained, resnet50 and those of timm: `pretrained`, `none`, a file.
            `imagenet` is the older name of the first.
        finetune: How much of these networks is trained, as `models.architecture.is_stages` takes it.
        retries: Further attempts at a configuration that lost its worker or ran out of memory.
        budget: Seconds that training may take, over all studies; None for as long as it takes.
        keep: Whose checkpoints stay in MLflow: those of `all` finished trials, or of the `best` of each study.
        workers: Trials to train at once; None takes one per GPU or core.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `float32` or `bfloat16`.
        tracking_uri: MLflow's store.
        storage: Optuna's store.
        experiment: Name of the MLflow experiment; None takes the data set's.
        engine: Where trials run: in processes of this machine (`local`), or on a Ray cluster (`ray`).
        address: The cluster's, as `sweep.engines.ray_cluster.connect` takes it.
        cpus_per_trial: CPUs of a trial on a cluster, at least 1.
        gpus_per_trial: GPUs of a trial on a cluster, below 1 to share one; None takes one where there are any.
        notify: Who is told when the search is over: a command of the shell, or a webhook's URL; None tells nobody.
        work_dir: A folder that all nodes of a cluster share, for checkpoints; None has them come back with each epoch.
    """

    archs: tuple[str, ...]
    trials: int = 30
    data: Path | None = None
    study: str | None = None
    epochs: int = 12
    patience: int = 4
    image_size: int | None = None
    limit: int | None = None
    validation: str = "auto"
    patient_pattern: str = PATIENT_PATTERN
    depth: int | None = None
    allow_leakage: bool = False
    seed: int = 0
    split_seed: int = 0
    metrics: tuple[str, ...] = ("val/auroc",)
    sampler: str = "tpe"
    pruner: str = "median"
    warmup: int = 3
    space: str = "basic"
    fix: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    enqueue: tuple[str, ...] = ()
    weights: str = "pretrained"
    finetune: str = "all"
    retries: int = 2
    budget: float | None = None
    keep: str = "all"
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    tracking_uri: str | None = None
    storage: str | None = None
    experiment: str | None = None
    engine: str = "local"
    address: str | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    work_dir: Path | None = None
    notify: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(SYNONYMS.get(metric, metric) for metric in self.metrics))

    @property
    def metric(self) -> str:
        """The metric that was named first, which every trial has after each epoch."""
        return self.metrics[0]

    @property
    def pruning(self) -> str:
        """The pruner that is used: none with several metrics, since Optuna's compare trials by one."""
        return self.pruner if len(self.metrics) == 1 else "none"

    def size_of(self, arch: str, source: Source) -> int:
        """Side of the images that an architecture reads, in pixels."""
        default = SYNTHETIC_IMAGE_SIZE if source.kind == "synthetic" else architecture(arch).image_size
        return self.image_size or default

    @cached_property
    def spaces(self) -> Mapping[str, Space]:
        """What the study of each architecture searches. Raises InputError where an option that says so is wrong."""
        return {
            arch: study_space(arch, _of(arch, self.fix), _of(arch, self.search), self.space, pretrained=self.pretrained)
            for arch in self.archs
        }

    @property
    def pretrained(self) -> bool:
        """Whether networks start from trained weights, where they can."""
        return self.weights != "none"

    def study_of(self, arch: str) -> str:
        """The short name of the study of an architecture."""
        return self.study or short_name(arch)

    def option_of(self, arch: str, name: str) -> str:
        """What runs and studies record of an option that only some architectures have: `weights`, `finetune`."""
        value = str(getattr(self, name))
        if name == "weights" and value in PRETRAINED:
            return "imagenet" if arch == "resnet50" else "pretrained"  # what these are is known of resnet50 alone
        return value


def _of(arch: str, texts: Sequence[str]) -> list[str]:
    """What is for an architecture of texts such as `dropout=0.2` and `cnn1/dropout=0.2`; the second goes first."""
    split = [(*text.partition("=")[0].rpartition("/")[::2], text) for text in texts]
    own = {name: text for only, name, text in split if only == short_name(arch)}
    others = [text for only, name, text in split if not only and name not in own]
    return [*others, *(text.partition("/")[2] for text in own.values())]


def seconds_of(text: str) -> float:
    """Reads a time as people write it: `45s`, `90m`, `2h`, `1h30m`, `1d`, or a number of seconds.

    Raises:
        InputError: The text is not a time.
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text) or re.findall(r"^(\d+(?:\.\d+)?)()$", text)
    seconds = sum(float(number) * units.get(unit, 1) for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise InputError(f"--budget {text}: write a time such as 45m, 2h or 1h30m")
    return seconds


def check(settings: Settings) -> None:
    """Checks what can be checked without looking at the data.

    Raises:
        InputError: With every fault found.
    """
    faults: list[str] = []

    def want(good: bool, fault: str) -> None:
        if not good:
            faults.append(fault)

    known, faults = _architectures(settings)
    want(bool(settings.archs), f"--arch: name one or more of {', '.join(ARCHITECTURES)}")
    want(settings.trials >= 1, f"--trials {settings.trials}: give 1 or more")
    want(settings.epochs >= 1, f"--epochs {settings.epochs}: give 1 or more")
    want(settings.patience >= 0, f"--patience {settings.patience}: give 0 (never stop early) or more")
    want(settings.warmup >= 0, f"--warmup {settings.warmup}: give 0 or more")
    want(settings.retries >= 0, f"--retries {settings.retries}: give 0 (never again) or more")
    want(settings.seed >= 0, f"--seed {settings.seed}: give 0 or more")
    want(settings.split_seed >= 0, f"--split-seed {settings.split_seed}: give 0 or more")
    want(settings.limit is None or settings.limit >= 2, f"--limit {settings.limit}: give 2 images or more")
    want(
        settings.depth is None or 8 <= settings.depth <= 32,
        f"--depth {settings.depth}: give how many bits of a pixel are used, from 8 to 32",
    )
    want(settings.workers is None or settings.workers >= 1, f"--workers {settings.workers}: give 1 or more")
    for arch, row in known.items():
        if settings.image_size is not None:
            want(
                row.smallest <= settings.image_size <= 1024,
                f"--image-size {settings.image_size}: {arch} takes {row.smallest} to 1024 pixels",
            )
    want(
        settings.study is None or len(settings.archs) == 1,
        f"--study {settings.study}: several architectures are several studies; name one --arch",
    )
    want(
        settings.study is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", settings.study) is not None,
        f"--study {settings.study!r}: use letters, digits, '.', '_' and '-'",
    )
    names = {short_name(arch) for arch in settings.archs}
    for option, texts in (("--fix", settings.fix), ("--search", settings.search)):
        for text in texts:
            only = text.partition("=")[0].rpartition("/")[0]
            want(not only or only in names, f"{option} {text}: this search has no {only}; it has {', '.join(names)}")
    faults += _faults_of_metrics(settings)
    faults += _faults_of_choices(settings)
    faults += _faults_of_the_cluster(settings)
    faults += faults_of_environment(settings.tracking_uri)
    try:  # the options that change a space are checked even where no architecture is known
        archs = tuple(known) or tuple(ARCHITECTURES)[:1]
        spaces = (settings if archs == settings.archs else replace(settings, archs=archs)).spaces
        faults += _faults_of_finite_spaces(settings, spaces)
    except InputError as error:  # most faults are the same for every architecture, and are listed once
        faults += error.faults
    if faults:
        raise InputError(*faults)


def _architectures(settings: Settings) -> tuple[dict[str, Architecture], list[str]]:
    """The architectures that there are of those named, and what is wrong with the names."""
    known, faults = {}, []
    for arch in dict.fromkeys(settings.archs):
        try:
            known[arch] = architecture(arch)
        except InputError as error:
            faults += error.faults
    named: dict[str, list[str]] = {}
    for arch in settings.archs:
        named.setdefault(short_name(arch), []).append(arch)
    for name, archs in named.items():
        if len(set(archs)) < len(archs):
            faults.append(f"--arch {archs[0]}: is named twice")
        elif len(archs) > 1:
            faults.append(f"--arch: {' and '.join(archs)} would both be called {name}; give one of them another name")
    for arch in known:
        name = short_name(arch)
        if arch not in ARCHITECTURES and (
            name in (*ARCHITECTURES, *RESERVED) or re.fullmatch(r"v\d+|.+-ensemble", name)
        ):
            kind = "file" if file_of(arch) else "architecture"
            faults.append(
                f"--arch {arch}: its study would be called {name}, which is taken; give the {kind} another name"
            )
    given = settings.weights not in (*PRETRAINED, "none")
    without = [arch for arch, row in known.items() if "weights" not in row.options]
    if given and without:
        faults.append(f"--weights {settings.weights}: {', '.join(without)} cannot start from a file of weights")
    return known, faults


def _faults_of_metrics(settings: Settings) -> list[str]:
    """What is wrong with what the study chooses by."""
    known = (*METRICS, *COSTS)
    listed = f"there are {', '.join((*METRICS, *SYNONYMS, *COSTS))}"
    unknown = [metric for metric in settings.metrics if metric not in known]
    faults = [
        f"--metric {metric}: there is no such value; {listed}{did_you_mean(metric, (*known, *SYNONYMS))}"
        for metric in unknown
    ]
    if not settings.metrics:
        return [f"--metric: name what the study chooses by; {listed}"]
    if settings.metric in COSTS:
        faults.append(f"--metric {settings.metric}: name a score of validation before it, such as --metric val/auroc")
    if len(settings.metrics) == 1:
        return faults
    if len(set(settings.metrics)) < len(settings.metrics):
        faults.append(f"--metric: {', '.join(settings.metrics)} names one twice")
    for metric in STRESSED.intersection(settings.metrics[1:]):
        faults.append(f"--metric {metric}: name it first, since it also decides which epoch of a trial is kept")
    several = "with several --metric"
    if settings.pruner not in (Settings.pruner, "none"):
        faults.append(f"--pruner {settings.pruner}: {several} no trial is ended early; leave it out")
    if settings.sampler == "cmaes":
        others = ", ".join(name for name in SAMPLERS if name != "cmaes")
        faults.append(f"--sampler cmaes: has one metric alone; {several} there are {others}")
    if settings.keep == "best":
        faults.append(f"--keep best: {several} the choice is known at the end alone; leave it out")
    return faults


def _faults_of_choices(settings: Settings) -> list[str]:
    """What is wrong with the options that take one of several words."""
    choices = {
        "--sampler": (settings.sampler, SAMPLERS),
        "--pruner": (settings.pruner, PRUNERS),
        "--keep": (settings.keep, KEEP),
        "--engine": (settings.engine, ENGINES),
        "--device": (settings.device, ("auto", "cpu", "cuda", "mps")),
        "--precision": (settings.precision, ("auto", "float32", "bfloat16")),
    }
    faults = [
        f"{option} {value}: there is no such value; there are {', '.join(allowed)}{did_you_mean(value, allowed)}"
        for option, (value, allowed) in choices.items()
        if value not in allowed
    ]
    if not is_stages(settings.finetune):
        faults.append(f"--finetune {settings.finetune}: there is no such value; there are {STAGES}")
    if settings.validation not in VALIDATIONS and fold_of(settings.validation) is None:
        faults.append(
            f"--validation {settings.validation}: there is no such value; there are {', '.join(VALIDATIONS)}, "
            "and folds such as 1/5, the first of five"
        )
    return faults


def _faults_of_finite_spaces(settings: Settings, spaces: Mapping[str, Space]) -> list[str]:
    """What keeps a sampler from trying every combination once."""
    if settings.sampler not in FINITE:
        return []
    faults = [f"--enqueue: --sampler {settings.sampler} tries every configuration anyway"] if settings.enqueue else []
    for arch, space in spaces.items():
        ranges = [name for name, domain in space.items() if not isinstance(domain, Choice)]
        sizes = [len(domain.values) for domain in space.values() if isinstance(domain, Choice)]
        if ranges:
            listed = f"--search {ranges[0]}=VALUE,VALUE"
            faults.append(
                f"--sampler {settings.sampler}: {', '.join(ranges)} of {arch} are ranges without end; list values, "
                f"such as {listed}, or fix them"
            )
        elif settings.trials > (combinations := math.prod(sizes)):
            faults.append(
                f"--trials {settings.trials}: the space of {arch} has {combinations:,} combinations, which --sampler "
                f"{settings.sampler} tries once each; give --trials {combinations} or fewer"
            )
    return faults


def _faults_of_the_cluster(settings: Settings) -> list[str]:
    """What is wrong with the options that say where trials run."""
    if settings.engine != "ray":
        given = {
            "--address": settings.address,
            "--cpus-per-trial": settings.cpus_per_trial != 1,
            "--gpus-per-trial": settings.gpus_per_trial is not None,
        }
        return [
            f"{option}: is for trials on a cluster; say --engine ray too" for option, value in given.items() if value
        ]
    faults, cpus, gpus = [], settings.cpus_per_trial, settings.gpus_per_trial
    if settings.device == "mps":
        faults.append("--device mps: Ray counts no GPUs of Apple's; leave --engine ray out")
    if settings.address is not None and not re.fullmatch(r"auto|local|(ray://)?[^/\s]+:\d+", settings.address):
        faults.append(f"--address {settings.address}: give auto, HOST:PORT or ray://HOST:PORT")
    if cpus < 1:
        faults.append(f"--cpus-per-trial {cpus}: give 1 or more")
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))):
        faults.append(f"--gpus-per-trial {gpus:g}: give a part of a GPU (0 to 1) or whole ones")
    if gpus and settings.device == "cpu":
        faults.append(f"--gpus-per-trial {gpus:g}: --device cpu has no use for a GPU; leave one of them out")
    if gpus == 0 and settings.device == "cuda":
        faults.append("--gpus-per-trial 0: --device cuda needs a GPU; leave one of them out")
    return faults


def check_data(settings: Settings, source: Source, split: Split) -> None:
    """Checks what depends on the data.

    Raises:
        InputError: A batch may be larger than the training set, or the metric exists with two classes alone.
    """
    if len(source.classes) > 2 and TWO_CLASSES.intersection(settings.metrics):
        others = ", ".join(name for name in METRICS if name not in TWO_CLASSES)
        raise InputError(
            *(
                f"--metric {metric}: exists with two classes alone, and {source.name} has {len(source.classes)}; "
                f"there are {others}"
                for metric in settings.metrics
                if metric in TWO_CLASSES
            )
        )
    largest = max(batch_sizes(space)[-1] for space in settings.spaces.values())
    if largest > len(split.train):
        raise InputError(
            f"batch_size {largest} is larger than the training set of {len(split.train):,} images; "
            f"give smaller ones, such as --search batch_size=8,16 or --fix batch_size={max(1, len(split.train) // 4)}"
        )
