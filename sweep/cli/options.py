"""Every option of the command line once, with its help; one that means something else to another command has two.

Commands use them as `epochs: option.Epochs = Settings.epochs`: one line per option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

from models import ARCHITECTURES, absolute
from models.architecture import STAGES
from sweep import __version__
from sweep.metrics.names import COSTS
from sweep.settings import ENGINES, KEEP, PRUNERS, SAMPLERS, VALIDATIONS, Settings

REPORTED = ("cnn1", "cnn2", "cnn3")  # architectures that the report has tables of
STORES = ("tracking_uri", "storage")
# Metrics that the help names.
USUAL = ("val/auroc", "val/loss", "val/accuracy", "val/sensitivity", "val/specificity", "val/stressed_auroc")
MACHINE = ("workers", "device", "engine", "address", "cpus_per_trial", "gpus_per_trial", "work_dir")


def settings_from(options: Mapping[str, Any], **others: Any) -> Settings:
    """Builds the settings of a sweep from the options of a command.

    Args:
        options: Parameter -> value: `locals()` in the command's first line. Those with a field's name are used.
        others: Values of fields that have another name or another value than an option.
    """
    values = {field.name: options[field.name] for field in fields(Settings) if field.name in options} | others
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    frozen["archs"] = tuple(absolute(arch) for arch in frozen["archs"])
    return Settings(**frozen)


def _version(asked: bool) -> None:
    if asked:
        print(f"sweep {__version__}")
        raise Exit


def machine_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the options of a command that say where it trains and which stores it uses, from `locals()`."""
    return {name: options[name] for name in (*MACHINE, *STORES)}


# The groups of options in a command's help.
_WHAT = partial(Option, rich_help_panel="What is trained")
_DATA = partial(Option, rich_help_panel="Data")
_HOW = partial(Option, rich_help_panel="Training and choice")
_WHERE = partial(Option, rich_help_panel="Machine")
_STORE = partial(Option, rich_help_panel="Stores")
_OUTPUT = partial(Option, rich_help_panel="Output")

# What is trained.
NAMES = f"{', '.join(ARCHITECTURES)}, timm:NAME, or a function of your own as FILE.py:FUNCTION"
Archs = Annotated[
    list[str],
    _WHAT("--arch", metavar="NAME", help=f"What to search: {NAMES}. Repeat it for several."),
]
ReportArchs = Annotated[
    list[str],
    _WHAT(
        "--arch", metavar="NAME", help=f"Train the rows of this one: {', '.join(REPORTED)}. Repeatable. Default: all."
    ),
]
Arch = Annotated[str, _WHAT(metavar="NAME", help=f"The architecture: {NAMES}.")]
Trials = Annotated[
    int, _WHAT(help="Trials that the study is to have in all; the same command again runs the missing ones.")
]
Seeds = Annotated[int, _WHAT(help="How often each row is trained, each time with another seed.")]
ChangeSeeds = Annotated[int, _WHAT("--seeds", help="How often each change is trained, all with the same seeds.")]
OtherSeeds = Annotated[
    int,
    _WHAT(
        "--seeds",
        help="Train each architecture's best again with so many other seeds; what was trained before is kept.",
    ),
]
Protocol = Annotated[
    str,
    _WHAT(
        help="ours: validate on patients that do not train. "
        "report: on 16 images, as its authors did, to see what that costs."
    ),
]
SearchName = Annotated[
    str | None, Argument(metavar="[STUDY]", help="A finished search, such as cnn1. Default: the only one there is.")
]
Folds = Annotated[int, _WHAT(help="Parts of the training patients; each validates once.")]
Top = Annotated[int, _WHAT(help="How many of its best trials are trained again, on every fold.")]
EnsembleMembers = Annotated[
    str,
    _WHAT(
        "--members",
        metavar="WHICH",
        help="top:5, the study's five best configurations; seeds, its winner's other seeds (`compare --seeds`); folds, "
        "those of `crossvalidate` (folds:5 where there are several).",
    ),
]
Flip = Annotated[bool, _WHAT("--flip", help="Each member answers the mean of an image and its mirror image.")]
Change = Annotated[
    list[str],
    _WHAT(metavar="NAME=VALUE", help="A change to try; + between several makes them one change. Repeatable."),
]
Space = Annotated[
    str,
    _WHAT(
        metavar="NAME",
        help="What is searched: basic (the five hyperparameters); scratch (more, for random weights); finetune (for "
        "pretrained ones). --fix and --search change it.",
    ),
]
Fix = Annotated[list[str], _WHAT(metavar="NAME=VALUE", help="Fix a hyperparameter: activation=sigmoid. Repeatable.")]
FixAll = Annotated[
    list[str], _WHAT("--fix", metavar="NAME=VALUE", help="The configuration: every hyperparameter of a search.")
]
Search = Annotated[
    list[str],
    _WHAT(
        metavar="NAME=DOMAIN",
        help="Search a hyperparameter over other values: "
        "learning_rate=1e-4..1e-2:log or batch_size=64,128. Repeatable.",
    ),
]
Enqueue = Annotated[
    list[str],
    _WHAT(
        metavar="FILE|STUDY",
        help="Begin with given configurations, after the default one: a .json or .csv file of hyperparameters, or the "
        "best of another study. Repeatable.",
    ),
]
Weights = Annotated[
    str,
    _WHAT(
        help="Where resnet50 and networks of timm start: pretrained, none, or a .safetensors or .pth file of tensors."
    ),
]
Finetune = Annotated[str, _WHAT(help=f"How much of these networks is trained: {STAGES}.")]

# The data.
Data = Annotated[
    Path | None,
    _DATA(
        help="A folder with train/ and test/ (one folder per class), or an .npz in MedMNIST's layout. "
        "Default: the downloaded data set where there is one, else the built-in synthetic images."
    ),
]
DataNow = Annotated[Path | None, _DATA("--data", help="Where the images are now. Default: where they were.")]
TestData = Annotated[
    Path | None,
    _DATA("--data", help="A data set with test/, or one folder per class. Default: the model's own test images."),
]
PatientPattern = Annotated[str, _DATA(help="Regular expression that finds the patient in a file's name.")]
Depth = Annotated[
    int | None,
    _DATA(metavar="BITS", help="Bits per pixel of images of more than 8 bits that state no depth. Default: all 16."),
]
ModelDepth = Annotated[
    int | None,
    _DATA("--depth", metavar="BITS", help="As for a search, where images are otherwise than those of the training."),
]
AllowLeakage = Annotated[
    bool,
    _DATA(
        "--allow-leakage",
        help="Use test images that are also training images; written on everything that is made from it.",
    ),
]
Limit = Annotated[int | None, _DATA(help="Use at most so many training images, for a quick try.")]
ImageSize = Annotated[
    int | None, _DATA(help="Side of the images in pixels. Default: the architecture's own; 64 for synthetic images.")
]
ReportImageSize = Annotated[
    int | None, _DATA("--image-size", help="Side of the images in pixels. Default: the report's.")
]
Validation = Annotated[
    str,
    _DATA(
        help=f"Where validation images come from: {', '.join(VALIDATIONS)}. "
        "`auto`: val/ if it holds 100 or more, else 15 % of the training images, whole patients. "
        "`2/5`: the second of five folds of the training patients."
    ),
]

# How it is trained and chosen.
Epochs = Annotated[int, _HOW(help="Epochs of a trial at most.")]
Patience = Annotated[int, _HOW(help="Epochs without a lower validation loss before a trial stops; 0: never.")]
_CHOOSES = (
    f"What the study chooses by: {', '.join(USUAL)}, or any other score of validation (a wrong name lists all). "
    "`stressed`: of validation images as another X-ray machine might have made them."
)
Metric = Annotated[str, _HOW(help=_CHOOSES)]
Metrics = Annotated[
    list[str],
    _HOW(
        "--metric",
        metavar="NAME",
        help=f"{_CHOOSES} Several: the best by the second of those within one standard error of the best by the first; "
        f"after a score also {', '.join(COSTS)}.",
    ),
]
Sampler = Annotated[str, _HOW(help=f"How configurations are drawn, by Optuna: {', '.join(SAMPLERS)}.")]
Pruner = Annotated[str, _HOW(help=f"Ends trials that fall behind: {', '.join(PRUNERS)}.")]
Warmup = Annotated[int, _HOW(help="Epochs before a trial can be pruned.")]
Seed = Annotated[int, _HOW(help="Decides the search's and every trial's random draws.")]
SplitSeed = Annotated[int, _HOW(help="Decides which patients validate; studies compare only on the same split.")]
Retries = Annotated[int, _HOW(help="Further attempts at a configuration that lost its worker or ran out of memory.")]
Budget = Annotated[
    str | None, _HOW(metavar="TIME", help="Train no longer than this: 45m, 2h, 1h30m. Default: no limit.")
]
Keep = Annotated[str, _HOW(help=f"Trials whose checkpoints stay in MLflow: {', '.join(KEEP)} (of the study).")]
DryRun = Annotated[bool, _HOW("--dry-run", help="Print space, data, split, estimated time and disk; touch nothing.")]

# Where it is trained.
Workers = Annotated[int | None, _WHERE(help="Trials to train at once. Default: one per GPU, or one per core.")]
Device = Annotated[str, _WHERE(help="auto, cpu, cuda or mps (Apple's).")]
Precision = Annotated[str, _WHERE(help="auto, float32 or bfloat16 (training steps only).")]
Engine = Annotated[str, _WHERE(help=f"Where trials run: {', '.join(ENGINES)} (this machine, or a Ray cluster).")]
Address = Annotated[
    str | None,
    _WHERE(
        help="The Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: RAY_ADDRESS; without it one starts here."
    ),
]
CpusPerTrial = Annotated[int, _WHERE(metavar="N", help="CPUs of a trial on the cluster.")]
GpusPerTrial = Annotated[
    float | None,
    _WHERE(metavar="X", help="GPUs of a trial on the cluster; 0.5 shares one. Default: 1 where there are any."),
]
WorkDir = Annotated[
    Path | None,
    _WHERE(
        exists=True,
        file_okay=False,
        callback=lambda path: path and path.absolute(),  # not resolved: the nodes share a link, not what it points at
        help="A folder for checkpoints, which all nodes share. "
        "Default: here; a cluster sends them back with each epoch.",
    ),
]

# Stores.
TrackingUri = Annotated[
    str | None,
    _STORE(
        envvar="MLFLOW_TRACKING_URI",
        callback=lambda uri: uri.rstrip("/") if uri and uri.startswith("http") else uri,
        help="MLflow's store. Default: sqlite:///mlflow.db here.",
    ),
]
Experiment = Annotated[
    str | None, _STORE(envvar="MLFLOW_EXPERIMENT_NAME", help="MLflow experiment. Default: the data set's name.")
]
Storage = Annotated[
    str | None, _STORE(envvar="OPTUNA_STORAGE", help="Optuna's store. Default: sqlite:///optuna.db here.")
]
Study = Annotated[
    str | None,
    _STORE(help="Name of the study; begin another one, or go on with one. Default: the architecture's."),
]
ReportStudies = Annotated[
    str | None,
    _STORE("--study", help="Name of the studies, after their architecture's. Default: replicate-PROTOCOL."),
]
ChangesStudy = Annotated[
    str, _STORE("--study", help="Name of the study, after its architecture's. Other changes are another study.")
]
FoldStudies = Annotated[str, _STORE("--study", help="Name of the folds' studies, after the search's.")]
Rebuild = Annotated[bool, _STORE("--rebuild", help="Write all runs of a study again where MLflow has none of them.")]
RunId = Annotated[str, Argument(metavar="RUN_ID", help="The MLflow run of a trial.")]

AnyStudy = Annotated[
    str | None, Argument(metavar="[STUDY]", help="A study, such as cnn1. Default: the only one there is.")
]
TrialNumber = Annotated[int, Argument(metavar="TRIAL", help="The trial's number, from 0.")]

# Registered models.
Model = Annotated[
    str,
    Argument(
        metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for its champion, with or without models:/ before it."
    ),
]
ModelName = Annotated[
    str | None, Argument(metavar="[NAME]", help="The registered model. Default: the only one there is.")
]
Images = Annotated[list[str], Argument(metavar="IMAGE...", help="Files, folders and globs.")]
Threshold = Annotated[
    float | None, Option(help="From which probability on an image is positive. Default: the model's own.")
]
Heatmap = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Write each image beside its heat map, which marks what the answer is based on.",
    ),
]
Alias = Annotated[str, Option("--as", metavar="ALIAS", help="champion, an architecture, or any other.")]
Force = Annotated[bool, Option("--force", help="A person decides, whatever validation says.")]
Reason = Annotated[str, Option(help="Why, for those who read the log.")]
Prevalence = Annotated[
    float | None,
    Option(
        metavar="SHARE",
        help="Prevalence in a population of yours, such as 0.05: predictive values (PPV, NPV) for it too.",
    ),
]
Against = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="The architecture that all others are compared with. Default: resnet50, else the champion.",
    ),
]
Audit = Annotated[bool, Option(help="Score all complete trials on test too, after the choice, to see what it gained.")]
FoldAudit = Annotated[bool, Option("--audit", help="Score them on test too, to see what choosing this way gains.")]
WithImages = Annotated[
    bool, Option("--with-images", help="Show test images that the champion has wrong. Not for publication.")
]

WithStudentReport = Annotated[
    bool,
    Option(
        "--with-student-report",
        help="Show the student report's final table too, where image sizes or data are not its own.",
    ),
]

# Output.
Notify = Annotated[
    str | None,
    _OUTPUT(
        metavar="COMMAND|URL",
        help="Tell somebody when the search is over: a shell command gets JSON on stdin, a webhook is sent it.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    Argument(
        metavar="[FILE]",
        help="A file of settings, as --save-config writes it. What is typed goes before it, and it before the "
        "environment.",
    ),
]
SaveConfig = Annotated[
    Path | None,
    _OUTPUT("--save-config", metavar="FILE", help="Write every setting and the whole space to a file, to search by."),
]
Version = Annotated[bool, _OUTPUT("--version", callback=_version, is_eager=True, help="Print the version and end.")]
Quiet = Annotated[bool, _OUTPUT("--quiet", "-q", help="Print results and warnings alone.")]
Verbose = Annotated[bool, _OUTPUT("--verbose", "-v", help="Print each epoch of each trial, too.")]
Csv = Annotated[bool, _OUTPUT("--csv", help="Print CSV on stdout and everything else on stderr.")]
Latex = Annotated[bool, _OUTPUT("--latex", help="Print a table of LaTeX on stdout.")]
Json = Annotated[bool, _OUTPUT("--json", help="Print one JSON object on stdout and everything else on stderr.")]
