"""What MLflow's page of an experiment opens with: a description, and a view of its runs that the links here name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sweep.metrics.names import MAIN_TEST_SCORES, NOT_A_DEVICE, sign_of
from sweep.stores import tags as tag
from sweep.stores.tracking import Tracking

COLUMN_WIDTH, SCORE_WIDTH = 95, 140  # in pixels: the hyperparameters are to be seen without scrolling
# Columns that the table always has, by its own names: the second says when, and has the sign of the status.
NAME_WIDTHS = {"attributes.`Run Name`": 145, "runDateAndNestInfo": 135}
OBJECTIVE = "objective"  # what a study chooses by, of a trial's best epoch


def runs_page(experiment_id: str) -> str:
    """The path of an experiment's runs in `mlflow ui`, in the view that `shared_view` describes."""
    return f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={tag.SHARED_VIEW}"


def shared_view(metric: str, hyperparameters: Sequence[str]) -> str:
    """The state of MLflow's table of runs, as its page reads it from a tag of the experiment.

    The order is that of a leaderboard: complete trials, the best first; then the others, which have no objective.

    Args:
        metric: What the study chooses by.
        hyperparameters: The columns after the scores.

    Returns:
        JSON, with the fields of MLflow 3.17 that its own "share view" writes.
    """
    state, objective = f"tags.`{tag.STATE}`", f"metrics.`{OBJECTIVE}`"
    scores = [f"metrics.`{name}`" for name in list(MAIN_TEST_SCORES)[:2]]
    params = [f"params.`{name}`" for name in hyperparameters]
    order = [*NAME_WIDTHS, state, objective, *scores, *params, "duration"]
    return json.dumps(
        {
            "orderByKey": objective,
            "orderByAsc": sign_of(metric) < 0,
            "selectedColumns": ["attributes.`Created`", state, objective, *scores, *params],
            "columnOrder": order,
            "columnWidths": {
                **dict.fromkeys((state, objective, *params), COLUMN_WIDTH),
                **dict.fromkeys(scores, SCORE_WIDTH),
                **NAME_WIDTHS,
            },
            "searchFilter": "",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runListHidden": False,
            "viewMaximized": False,
            "groupBy": None,
        }
    )


def describe_experiment(
    tracking: Tracking, data: str, classes: Sequence[str], metric: str, hyperparameters: Sequence[str]
) -> None:
    """Gives an experiment its description, unless it has one, and its view of the runs.

    Args:
        tracking: The experiment.
        data: The name of the data set.
        classes: Its classes.
        metric: What the study that runs now chooses by.
        hyperparameters: What it searches.
    """
    tracking.describe_experiment(_note(tracking.experiment_id, data, classes), shared_view(metric, hyperparameters))


def _note(experiment_id: str, data: str, classes: Sequence[str]) -> str:
    """Markdown; its first line is all that the page shows at first."""
    return (
        f"Searches for networks that tell {joined(classes)} apart in the images of {data}.\n\n"
        f"[All trials, the best first](.{runs_page(experiment_id)})\n\n"
        f"- `{OBJECTIVE}` is the metric that a study chooses by, on validation images, at the best epoch of a trial.\n"
        f"- `{tag.STATE}` says how a trial ended. PRUNED: it was stopped early, because others were better.\n"
        "- `served_test_...` is there for the chosen trial of each study alone: its test scores at the threshold with "
        "which its model is served. All of its scores are in the run of the study and on the page of its model.\n"
        f"- {NOT_A_DEVICE}"
    )


def joined(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> joined(["NORMAL", "PNEUMONIA"]), joined(["a", "b", "c"])
    ('NORMAL and PNEUMONIA', 'a, b and c')
    """
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])
