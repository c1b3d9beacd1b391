"""Commands and options, nothing else."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from data.faults import InputError
from data.sources import PATIENT_PATTERN
from models import ARCHITECTURES
from sweep.metrics.names import METRICS
from sweep.settings import ENGINES, FINETUNE, KEEP, PRUNERS, VALIDATIONS, Settings, seconds_of
from sweep.system.errors import StudyFailedError, StudyInterruptedError, TrackingAwayError

REPORTED = ("cnn1", "cnn2", "cnn3")  # the report has tables of these
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="What data there is, where it came from and what is wrong with it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and everything else on stderr.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="A folder with train/ and test/ (a folder a class), or an .npz in MedMNIST's layout. "
        "Default: the downloaded data set where there is one, else the built-in phantom.",
    ),
]
PatientOption = Annotated[
    str, typer.Option("--patient-pattern", help="Regular expression that finds the patient in a file's name.")
]
TrackingOption = Annotated[
    str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's store. Default: sqlite:///mlflow.db here.")
]
StorageOption = Annotated[
    str | None, typer.Option(envvar="OPTUNA_STORAGE", help="Optuna's store. Default: sqlite:///optuna.db here.")
]

LimitOption = Annotated[int | None, typer.Option(help="Use so many training images only, for trying things.")]
WorkersOption = Annotated[int | None, typer.Option(help="Trials to train at once. Default: one a GPU, or one a core.")]
EngineOption = Annotated[
    str, typer.Option(help=f"Where trials run: {', '.join(ENGINES)} (this machine, or a Ray cluster).")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: RAY_ADDRESS; without it one starts here."
    ),
]
CpusOption = Annotated[int, typer.Option(metavar="N", help="CPUs of a trial on the cluster.")]
GpusOption = Annotated[
    float | None,
    typer.Option(metavar="X", help="GPUs of a trial on the cluster; 0.5 shares one. Default: 1 where there are any."),
]
WorkDirOption = Annotated[
    Path | None,
    typer.Option(
        "--work-dir",
        exists=True,
        file_okay=False,
        callback=lambda path: path and path.absolute(),  # a link is one on every node
        help="A folder for checkpoints, which all nodes share. Default: here; a cluster's come back with each epoch.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16 (training steps only).")]
ExperimentOption = Annotated[
    str | None,
    typer.Option(envvar="MLFLOW_EXPERIMENT_NAME", help="MLflow experiment. Default: the data set's name."),
]


@app.callback(invoke_without_command=True)
def search(
    context: typer.Context,
    arch: Annotated[
        list[str],
        typer.Option(metavar="NAME", help=f"What to search: {', '.join(ARCHITECTURES)}. Repeat it for several."),
    ] = [],  # noqa: B006
    trials: Annotated[
        int, typer.Option(help="Trials that the study is to have in all; typed again, the rest is done.")
    ] = 30,
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Epochs of a trial at most.")] = 12,
    patience: Annotated[
        int, typer.Option(help="Epochs without a lower validation loss before a trial stops; 0: never.")
    ] = 4,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the images in pixels. Default: the architecture's own; 64 for the phantom."),
    ] = None,
    limit: LimitOption = None,
    validation: Annotated[
        str,
        typer.Option(
            help=f"Where validation images come from: {', '.join(VALIDATIONS)}. "
            "`auto`: val/ if it holds 100 or more, else 15 % of the training patients. "
            "`2/5`: the second of five folds of the training patients."
        ),
    ] = "auto",
    patient_pattern: PatientOption = PATIENT_PATTERN,
    metric: Annotated[
        str,
        typer.Option(
            help=f"What the study chooses by: {', '.join(METRICS)}. "
            "`stressed`: of validation images as another X-ray machine might have made them."
        ),
    ] = "val/auroc",
    pruner: Annotated[str, typer.Option(help=f"Ends trials that fall behind: {', '.join(PRUNERS)}.")] = "median",
    warmup: Annotated[int, typer.Option(help="Epochs before a trial can be pruned.")] = 3,
    fix: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="Fix a hyperparameter: activation=sigmoid. Repeatable.")
    ] = [],  # noqa: B006
    search: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=DOMAIN",
            help="Search a hyperparameter elsewhere: learning_rate=1e-4..1e-2:log or batch_size=64,128. Repeatable.",
        ),
    ] = [],  # noqa: B006
    weights: Annotated[
        str, typer.Option(help="Where resnet50 starts: imagenet, none, or a .safetensors or .pth file.")
    ] = "imagenet",
    finetune: Annotated[str, typer.Option(help=f"How much of resnet50 is trained: {', '.join(FINETUNE)}.")] = "all",
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study; begin another one, or go on with one. Default: the architecture's."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the search's and every trial's random draws.")] = 0,
    split_seed: Annotated[
        int, typer.Option(help="Decides which patients validate; studies compare only on the same split.")
    ] = 0,
    retries: Annotated[
        int, typer.Option(help="Further attempts at a configuration that lost its worker or ran out of memory.")
    ] = 2,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Train no longer than this: 45m, 2h, 1h30m. Default: no end.")
    ] = None,
    keep: Annotated[
        str, typer.Option(help=f"Whose checkpoints stay in MLflow: {', '.join(KEEP)} (of the study).")
    ] = "all",
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    tracking_uri: TrackingOption = None,
    experiment: ExperimentOption = None,
    storage: StorageOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = None,
    work_dir: WorkDirOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print space, data, split, estimated time and disk; touch nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Search the hyperparameters of image classifiers; record every trial, register the best."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings(
        archs=tuple(arch),
        trials=trials,
        data=data,
        study=study,
        epochs=epochs,
        patience=patience,
        image_size=image_size,
        limit=limit,
        validation=validation,
        patient_pattern=patient_pattern,
        seed=seed,
        split_seed=split_seed,
        metric=metric,
        pruner=pruner,
        warmup=warmup,
        fix=tuple(fix),
        search=tuple(search),
        weights=weights,
        finetune=finetune,
        retries=retries,
        budget=None if budget is None else seconds_of(budget),
        keep=keep,
        workers=workers,
        device=device,
        precision=precision,
        tracking_uri=tracking_uri,
        storage=storage,
        experiment=experiment,
        engine=engine,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        work_dir=work_dir,
    )
    from sweep.cli.commands import dry_run as show_plan
    from sweep.cli.commands import search as run_search

    (show_plan if dry_run else run_search)(settings, as_json=json)


@app.command()
def doctor(
    storage: StorageOption = None,
    tracking_uri: TrackingOption = None,
    work_dir: WorkDirOption = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Write all runs of a study again where MLflow has none of them.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring Optuna, MLflow and the checkpoints on disk to one truth; say what was mended."""
    from sweep.cli.commands import doctor as run_doctor

    run_doctor(storage, tracking_uri, work_dir, rebuild=rebuild, as_json=json)


@app.command()
def replay(
    run_id: Annotated[str, typer.Argument(help="The MLflow run of a trial.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the run's images are now. Default: where they were.")
    ] = None,
    tracking_uri: TrackingOption = None,
    json: Json = False,
) -> None:
    """Train a run again from what MLflow knows of it, compare every epoch; exit 1 if a number differs."""
    from sweep.cli.commands import replay as run_replay

    run_replay(run_id, data, tracking_uri, as_json=json)


ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for its champion; models:/ may precede."),
]


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders and globs.")],
    threshold: Annotated[
        float | None, typer.Option(help="From which probability on an image is positive. Default: the model's own.")
    ] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a picture for each image that shows what speaks for the class."),
    ] = None,
    tracking_uri: TrackingOption = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout and everything else on stderr.")] = False,
    json: Json = False,
) -> None:
    """Label images with a registered model; exit 1 if a file could not be read."""
    from sweep.cli.commands import predict as run_predict

    if csv and json:
        raise InputError("--csv and --json: stdout belongs to one of them")
    run_predict(model, images, threshold, heatmap, tracking_uri, as_csv=csv, as_json=json)


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data set with test/, or a folder a class. Default: as for a search."),
    ] = None,
    patient_pattern: PatientOption = PATIENT_PATTERN,
    tracking_uri: TrackingOption = None,
    json: Json = False,
) -> None:
    """Score a registered model on test images, with error bars, and log it to MLflow."""
    from sweep.cli.commands import evaluate as run_evaluate

    run_evaluate(model, data, patient_pattern, tracking_uri, as_json=json)


@app.command()
def promote(
    model: ModelArgument,
    alias: Annotated[str, typer.Option("--as", metavar="ALIAS", help="champion, an architecture, or any other.")],
    force: Annotated[bool, typer.Option("--force", help="A person decides, whatever validation says.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for those who read the log.")] = "",
    tracking_uri: TrackingOption = None,
    json: Json = False,
) -> None:
    """Give an alias to a version if it is better on validation beyond chance; exit 1 if it is not."""
    from sweep.cli.commands import promote as run_promote

    run_promote(model, alias, reason, tracking_uri, force=force, as_json=json)


@app.command()
def compare(
    model: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The registered model. Default: the only one there is.")
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="NAME", help="The architecture that all others are compared with.")
    ] = "resnet50",
    seeds: Annotated[
        int, typer.Option(help="Train each winner again with so many other seeds; what was trained before is kept.")
    ] = 0,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the images are now. Default: where they were.")
    ] = None,
    audit: Annotated[
        bool,
        typer.Option(help="Score all complete trials on test too, after the choice: what was it worth?"),
    ] = True,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Show test images that the champion has wrong. Not for publication.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Trainings at once with --seeds. Default: one a GPU, or one a core.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, for --seeds.")] = "auto",
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = None,
    work_dir: WorkDirOption = None,
    json: Json = False,
) -> None:
    """Set every architecture's best side by side on the same test images; write the report."""
    from sweep.cli.comparisons import compare as run_compare

    machine = {
        "workers": workers,
        "device": device,
        "tracking_uri": tracking_uri,
        "storage": storage,
        "engine": engine,
        "address": address,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "work_dir": work_dir,
    }
    run_compare(model, against, seeds, data, machine, audit=audit, with_images=with_images, as_json=json)


@app.command()
def replicate(
    arch: Annotated[
        list[str], typer.Option(metavar="NAME", help=f"Whose rows: {', '.join(REPORTED)}. Repeatable. Default: all.")
    ] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="How often each row is trained; one seed is one draw.")] = 3,
    protocol: Annotated[
        str,
        typer.Option(help="ours: validation by patients decides. report: as they did, on 16 images; see the cost."),
    ] = "ours",
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Epochs of a training at most.")] = 12,
    patience: Annotated[
        int, typer.Option(help="Epochs without a lower validation loss before a training stops early.")
    ] = 4,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels. Default: the report's.")] = None,
    limit: LimitOption = None,
    patient_pattern: PatientOption = PATIENT_PATTERN,
    study: Annotated[
        str | None, typer.Option(help="Name of the studies, after their architecture's. Default: replicate-PROTOCOL.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every training's random draws.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Decides which patients validate.")] = 0,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    tracking_uri: TrackingOption = None,
    experiment: ExperimentOption = None,
    storage: StorageOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = None,
    work_dir: WorkDirOption = None,
    json: Json = False,
) -> None:
    """Train the rows of the report's tables again and set them beside its figures."""
    from sweep.cli.comparisons import replicate as run_replicate
    from sweep.comparisons.replication.published import ROWS

    settings = Settings(
        archs=tuple(arch) or REPORTED,
        trials=seeds,
        data=data,
        epochs=epochs,
        patience=patience,
        image_size=image_size,
        limit=limit,
        patient_pattern=patient_pattern,
        seed=seed,
        split_seed=split_seed,
        search=(f"batch_size={','.join(sorted({str(row.batch_size) for row in ROWS}))}",),
        pruner="none",
        workers=workers,
        device=device,
        precision=precision,
        tracking_uri=tracking_uri,
        experiment=experiment,
        storage=storage,
        engine=engine,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        work_dir=work_dir,
    )
    run_replicate(settings, seeds, protocol, study, as_json=json)


@app.command()
def ablate(
    arch: Annotated[str, typer.Option(metavar="NAME", help=f"Whose configuration: {', '.join(ARCHITECTURES)}.")],
    fix: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="The configuration: every hyperparameter of a search.")
    ],
    change: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="What is tried; several at once with + between them. Repeatable."),
    ] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="How often each is trained, all with the same seeds.")] = 5,
    data: DataOption = None,
    epochs: Annotated[int, typer.Option(help="Epochs of a training at most.")] = 12,
    patience: Annotated[
        int, typer.Option(help="Epochs without a lower validation loss before a training stops early.")
    ] = 4,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels. Default: as for a search.")
    ] = None,
    limit: LimitOption = None,
    patient_pattern: PatientOption = PATIENT_PATTERN,
    metric: Annotated[str, typer.Option(help=f"What a study would choose by: {', '.join(METRICS)}.")] = "val/auroc",
    weights: Annotated[
        str, typer.Option(help="Where resnet50 starts: imagenet, none, or a .safetensors or .pth file.")
    ] = "imagenet",
    finetune: Annotated[str, typer.Option(help=f"How much of resnet50 is trained: {', '.join(FINETUNE)}.")] = "all",
    study: Annotated[
        str, typer.Option(help="Name of the study, after its architecture's. Other changes are another study.")
    ] = "ablation",
    seed: Annotated[int, typer.Option(help="Decides every training's random draws.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Decides which patients validate.")] = 0,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    tracking_uri: TrackingOption = None,
    experiment: ExperimentOption = None,
    storage: StorageOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = None,
    work_dir: WorkDirOption = None,
    json: Json = False,
) -> None:
    """Try changes of one configuration, each with the same seeds; say which of them pay."""
    from sweep.cli.comparisons import ablate as run_ablate

    settings = Settings(
        archs=(arch,),
        trials=max(seeds, 1),
        data=data,
        epochs=epochs,
        patience=patience,
        image_size=image_size,
        limit=limit,
        patient_pattern=patient_pattern,
        metric=metric,
        fix=tuple(fix),
        weights=weights,
        finetune=finetune,
        seed=seed,
        split_seed=split_seed,
        pruner="none",
        workers=workers,
        device=device,
        precision=precision,
        tracking_uri=tracking_uri,
        experiment=experiment,
        storage=storage,
        engine=engine,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        work_dir=work_dir,
    )
    run_ablate(settings, change, seeds, study, as_json=json)


@app.command()
def crossvalidate(
    search: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="A finished search, such as cnn1. Default: the only one there is."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts of the training patients; each validates once.")] = 5,
    top: Annotated[int, typer.Option(help="How many of its best trials are trained again, on every fold.")] = 5,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the images are now. Default: where they were.")
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Score them on test too: what would choosing so have been worth?")
    ] = False,
    study: Annotated[str, typer.Option(help="Name of the folds' studies, after the search's.")] = "fold",
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = None,
    work_dir: WorkDirOption = None,
    json: Json = False,
) -> None:
    """Train a search's best trials on every fold of patients and choose by the mean, not by one split."""
    from sweep.cli.comparisons import crossvalidate as run_crossvalidate

    machine = {
        "workers": workers,
        "device": device,
        "tracking_uri": tracking_uri,
        "storage": storage,
        "engine": engine,
        "address": address,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "work_dir": work_dir,
    }
    run_crossvalidate(search, folds, top, study, data, machine, audit=audit, as_json=json)


@data_app.command("info")
def data_info(data: DataOption = None, patient_pattern: PatientOption = PATIENT_PATTERN, json: Json = False) -> None:
    """Say what data there is: where from, how many images and patients of each class, and its digest."""
    from sweep.cli.commands import data_info

    data_info(data, patient_pattern, as_json=json)


@data_app.command("verify")
def data_verify(data: DataOption = None, patient_pattern: PatientOption = PATIENT_PATTERN, json: Json = False) -> None:
    """Decode every image and say what is wrong: unreadable files, duplicates, patients on both sides."""
    from sweep.cli.commands import data_verify

    data_verify(data, patient_pattern, as_json=json)


@data_app.command("download")
def data_download(json: Json = False) -> None:
    """Download Kaggle's chest X-rays (1.2 GB); without --data they are used from then on."""
    from sweep.cli.commands import data_download

    data_download(as_json=json)


def main() -> None:
    """Runs the command line; every way to end has its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    as_json = "--json" in sys.argv
    try:
        app()
    except InputError as error:
        _end(WRONG_INPUT, as_json, list(error.faults))
    except StudyInterruptedError as error:
        _end(INTERRUPTED, as_json, [str(error)])
    except (StudyFailedError, TrackingAwayError) as error:
        _end(FAILED, as_json, [str(error)])


def _end(code: int, as_json: bool, sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"error: {sentence}" if code != INTERRUPTED else sentence, file=sys.stderr)
    if as_json:
        from sweep.cli.terminal import print_json

        print_json({"exit_code": code, "errors": sentences})
    sys.exit(code)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
