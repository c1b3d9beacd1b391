"""The command line: which commands there are, and how each way to end becomes an exit code."""

from __future__ import annotations

import signal
import sys
from typing import Any

import typer

from data.faults import InputError, nearest
from sweep.cli import comparisons, data, ensembles, model, repair, studies
from sweep.cli.output import open_output
from sweep.cli.search import search, search_by_file
from sweep.space import EXTRA, FIVE
from sweep.system.errors import StudyFailedError, StudyInterruptedError, TrackingAwayError

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130  # exit codes
UsageError: Any = typer.BadParameter.__mro__[1]  # typer has a click of its own, and does not name this class

app = typer.Typer(
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(search)
app.command("search", short_help="Search hyperparameters; the same without its name.")(search_by_file)
# A line each in the list of commands, which would cut their own help off.
for command, line in (
    (studies.studies, "List the studies that are stored here."),
    (studies.trials, "List the trials of a study; export them."),
    (studies.stop, "End a study that runs, from another terminal."),
    (studies.skip, "End one trial of a study that runs."),
    (repair.doctor, "Make Optuna, MLflow and the checkpoints agree."),
    (repair.replay, "Train a recorded run again and compare every epoch."),
    (model.predict, "Label images with a registered model."),
    (model.evaluate, "Score a registered model on test images."),
    (model.promote, "Give an alias to a version if it is better."),
    (comparisons.compare, "Compare the architectures and write the report."),
    (comparisons.replicate, "Train the rows of the student report again."),
    (comparisons.ablate, "Try changes of one configuration."),
    (comparisons.crossvalidate, "Train the best trials on every fold of patients."),
    (ensembles.ensemble, "Register several trained networks as one model."),
):
    app.command(short_help=line)(command)

data_app = typer.Typer(
    help="What data there is, where it came from and what is wrong with it.",
    short_help="Show, check and download the data.",
    no_args_is_help=True,
)
for command, line in (
    (data.info, "Say what data there is, and its digest."),
    (data.verify, "Decode every image and say what is wrong."),
    (data.download, "Download Kaggle's chest X-rays (1.2 GB)."),
):
    data_app.command(short_help=line)(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Runs the command line; every way to end has its exit code."""
    close = open_output()
    try:
        _run()
    except SystemExit as ended:
        lost = close()
        if lost:
            print(f"error: {lost}", file=sys.stderr)
        sys.exit(FAILED if lost and not ended.code else ended.code)


def _run() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    as_json = "--json" in sys.argv
    try:
        sys.exit(app(standalone_mode=False))  # else typer writes its errors in a frame, and none for --json
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command
            error.show()
            sys.exit(WRONG_INPUT)
        _end(WRONG_INPUT, as_json, [_no_option(error) or error.format_message()])
    except InputError as error:
        _end(WRONG_INPUT, as_json, list(error.faults))
    except StudyInterruptedError as error:
        _end(INTERRUPTED, as_json, [str(error)])
    except (StudyFailedError, TrackingAwayError) as error:
        _end(FAILED, as_json, [str(error)])


def _no_option(error: Any) -> str:
    """What is said of an option that there is not; empty where the error is another one."""
    if type(error).__name__ != "NoSuchOption" or error.ctx is None:
        return ""
    typed: str = error.option_name
    options = [name for one in error.ctx.command.params for name in one.opts if name.startswith("--")]
    meant = nearest(typed, options)
    name = typed.lstrip("-").replace("-", "_")
    hyperparameter = name if name in (*FIVE, *EXTRA) or meant else nearest(name, (*FIVE, *EXTRA))
    if hyperparameter in (*FIVE, *EXTRA) and {"--fix", "--search"} <= set(options):
        values = f"--fix {hyperparameter}=VALUE or --search {hyperparameter}=DOMAIN"
        return f"{typed}: is no option; a hyperparameter is given as {values}"
    return f"{typed}: there is no such option{f'; did you mean {meant}?' if meant else ''}"


def _end(code: int, as_json: bool, sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"error: {sentence}" if code != INTERRUPTED else sentence, file=sys.stderr)
    if as_json:
        from sweep.terminal import print_json

        print_json({"exit_code": code, "errors": sentences})
    sys.exit(code)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
