"""Runs in MLflow: one contract for a file, for a server, and for a team's server with users and PostgreSQL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.server.auth.client import AuthServiceClient

from data.faults import InputError
from sweep.stores.mlflow_stores import SECONDS, open_client, open_tracking, read_run, tracking_of
from sweep.stores.tracking import FAILED, FINISHED, KILLED, METRICS_PER_REQUEST, Tracking
from sweep.system.errors import TrackingAwayError
from tests.helpers.servers import ADMIN, PASSWORD, free_port

EXPERIMENT = "x-rays"
ABSENT = "0" * 32
STORES = ["sqlite", pytest.param("server", marks=pytest.mark.slow), pytest.param("team", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Those of the team's server; the other stores ask for none."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture(scope="module", params=STORES)
def uri(request, make_server, tmp_path_factory) -> str:
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("store")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # where artifacts of an experiment go that is made there
            return open_tracking(f"sqlite:///{folder}/mlflow.db", EXPERIMENT).uri
    if request.param == "team":
        return request.getfixturevalue("team").uri
    server = make_server()
    server.start()
    return server.uri


@pytest.fixture
def tracking(uri) -> Tracking:
    return open_tracking(uri, EXPERIMENT)


@pytest.fixture
def run_id(tracking) -> str:
    return tracking.start("cnn1-000", {}).run_id


def values(tracking: Tracking, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracking.client.get_metric_history(run_id, name)]


def names(tracking: Tracking, run_id: str, folder: str | None = None) -> set[str]:
    return {entry.path for entry in tracking.client.list_artifacts(run_id, folder)}


# Experiments ----------------------------------------------------------------------------------------------------------


def test_an_experiment_is_made_once(uri, tracking):
    again = open_tracking(uri, EXPERIMENT)
    assert again.experiment_id == tracking.experiment_id
    assert tracking.client.get_experiment(again.experiment_id).tags["mlflow.experimentKind"]


def test_a_deleted_experiment_is_not_used(uri, tracking):
    gone = open_tracking(uri, "gone")
    run = gone.start("cnn1-000", {})
    gone.client.delete_experiment(gone.experiment_id)
    for refused in (lambda: open_tracking(uri, "gone"), lambda: tracking_of(tracking.client, run.run_id)):
        with pytest.raises(InputError, match="gone.* is deleted; restore it with `mlflow experiments restore`"):
            refused()


def test_a_run_leads_to_its_experiment(tracking, run_id):
    same = tracking_of(open_client(tracking.uri), run_id)
    assert (same.uri, same.experiment, same.experiment_id) == (tracking.uri, EXPERIMENT, tracking.experiment_id)
    with pytest.raises(InputError, match=f"run {ABSENT}, which made the model, is not there"):
        tracking_of(tracking.client, ABSENT)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_is_as_it_was_started(tracking):
    started = tracking.start("cnn1-001", {"sweep.trial": 1}, started=1_700_000_000.5)
    run = tracking.get(started.run_id)
    assert run == started
    assert (run.name, run.status, run.params, run.metrics) == ("cnn1-001", "RUNNING", {}, {})
    assert run.tags["sweep.trial"] == "1"
    assert tracking.client.get_run(started.run_id).info.start_time == 1_700_000_000_500


def test_there_is_no_run_of_an_unknown_id_nor_of_a_deleted_one(tracking, run_id):
    assert tracking.get(ABSENT) is None
    tracking.client.delete_run(run_id)
    assert tracking.get(run_id) is None


def test_params_logged_again_change_nothing_and_others_are_refused(tracking, run_id):
    for _ in range(2):
        tracking.log_params(run_id, {"learning_rate": 0.001, "activation": "relu"})
    assert tracking.get(run_id).params == {"learning_rate": "0.001", "activation": "relu"}
    with pytest.raises(MlflowException, match="learning_rate"):
        tracking.log_params(run_id, {"learning_rate": 0.002})


def test_metrics_and_tags_are_logged_together(tracking, run_id):
    tracking.log(run_id, {"test/auroc": 0.9, "test/accuracy": 1}, step=3, tags={"sweep.state": "COMPLETE"})
    tracking.log(run_id, {}, tags={"sweep.state": "PRUNED"})
    run = tracking.get(run_id)
    assert run.metrics == {"test/auroc": 0.9, "test/accuracy": 1.0}
    assert run.tags["sweep.state"] == "PRUNED"
    assert values(tracking, run_id, "test/auroc") == [(3, 0.9)]


def test_more_epochs_than_a_request_takes_are_logged_once_each(tracking, run_id):
    columns = [f"val/{number}" for number in range(7)]
    rows = [
        {"epoch": epoch, "time": 1_700_000_000.0 + epoch, **dict.fromkeys(columns, epoch / 8)}
        for epoch in range(1, METRICS_PER_REQUEST // len(columns) + 9)
    ]
    assert len(rows) * len(columns) > METRICS_PER_REQUEST
    for _ in range(2):  # the same command typed again
        tracking.log_epochs(run_id, rows)
    for name in (columns[0], columns[-1]):
        assert values(tracking, run_id, name) == [(row["epoch"], row[name]) for row in rows]
    assert tracking.get(run_id).metrics.keys() == set(columns)  # neither the epoch nor the time is one


@pytest.mark.parametrize("status", [FINISHED, KILLED, FAILED])
def test_a_run_that_ended_can_go_on(tracking, run_id, status):
    tracking.finish(run_id, status, ended=1_700_000_100.0)
    assert tracking.get(run_id).status == status
    assert tracking.client.get_run(run_id).info.end_time == 1_700_000_100_000
    tracking.reopen(run_id)
    run = tracking.get(run_id)
    assert (run.status, run.tags["sweep.state"]) == ("RUNNING", "RUNNING")


def test_children_come_in_the_order_in_which_they_started(tracking, run_id):
    late = tracking.start("cnn1-002", {}, parent=run_id, started=1_700_000_002.0)
    early = tracking.start("cnn1-001", {}, parent=run_id, started=1_700_000_001.0)
    deleted = tracking.start("cnn1-003", {}, parent=run_id)
    tracking.client.delete_run(deleted.run_id)
    assert [run.run_id for run in tracking.children(run_id)] == [early.run_id, late.run_id]
    assert tracking.children(late.run_id) == []
    assert tracking.search(f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.run_name = 'cnn1-002'") == [late]


def test_a_studys_run_is_found_by_the_studys_own_id(tracking, run_id):
    tags = {"sweep.study_id": run_id, "sweep.kind": "study"}
    tracking.start("cnn1-000", {"sweep.study_id": run_id}, parent=run_id)  # a trial's
    assert tracking.find_study(run_id) is None
    parent = tracking.start("cnn1", tags)
    assert tracking.find_study(run_id) == parent


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_are_logged_fetched_replaced_and_removed(tracking, run_id, tmp_path):
    tracking.log_files(
        run_id, {"figures/roc.svg": "<svg>ü</svg>", "report.html": b"old", "checkpoint/last.bin": b"\0\1"}
    )
    tracking.log_files(run_id, {"report.html": b"new"})
    assert names(tracking, run_id) == {"figures", "report.html", "checkpoint"}
    for path, content in (("report.html", b"new"), ("figures/roc.svg", "<svg>ü</svg>".encode())):
        assert tracking.fetch(run_id, path, tmp_path).read_bytes() == content
    assert tracking.remove(run_id, "checkpoint")
    assert not tracking.remove(run_id, "checkpoint")
    assert names(tracking, run_id) == {"figures", "report.html"}


def test_a_folder_is_logged_with_what_is_below(tracking, run_id, tmp_path):
    (tmp_path / "from" / "below").mkdir(parents=True)
    (tmp_path / "from" / "one.json").write_text("1")
    (tmp_path / "from" / "below" / "two.json").write_text("2")
    for _ in range(2):
        tracking.log_folder(run_id, tmp_path / "from")
    assert names(tracking, run_id) == {"below", "one.json"}
    assert names(tracking, run_id, "below") == {"below/two.json"}


@pytest.mark.parametrize("path", ["none.json", "none/there.json", "figures/none.svg"])
def test_what_a_run_does_not_have_is_not_fetched(tracking, run_id, tmp_path, path):
    tracking.log_files(run_id, {"figures/roc.svg": "<svg/>"})
    assert tracking.fetch(run_id, path, tmp_path) is None
    assert tracking.fetch(ABSENT, path, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_one_that_mlflow_shows(tracking, run_id, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)  # MLflow looks for the runs with tables there
    for score in (0.5, 0.75):  # the second one replaces the first
        tracking.log_table(run_id, pd.DataFrame({"arch": ["cnn1"], "auroc": [score]}), "scores.json")
    shown = tracking.client.load_table(tracking.experiment_id, "scores.json", [run_id])
    assert shown.to_dict("records") == [{"arch": "cnn1", "auroc": 0.75}]


# Data and models ------------------------------------------------------------------------------------------------------


def test_a_trials_run_says_all_that_it_takes_to_train_it_again(tracking, run_id):
    with pytest.raises(InputError, match="is not a trial's; give one such as cnn1-000-000"):
        read_run(tracking.uri, run_id)
    tracking.log_params(run_id, {"seed": 7})
    tracking.log(run_id, {"test/auroc": 0.5}, tags={"sweep.trial": 0})
    rows = [{"epoch": epoch, "time": 1.7e9 + epoch, "val/loss": 1 / epoch, SECONDS: 2.0} for epoch in (1, 2)]
    tracking.log_epochs(run_id, rows)
    for _ in range(2):
        tracking.log_data(run_id, "x-rays", "/data/x-rays", {"train": "a1", "val": "b2"}, '{"images": 9}')
    past = read_run(tracking.uri, run_id)
    assert (past.name, past.params["seed"], past.tags["sweep.trial"]) == ("cnn1-000", "7", "0")
    assert past.epochs == [{key: value for key, value in row.items() if key != "time"} for row in rows]
    assert (past.data_name, past.data_location) == ("x-rays", "/data/x-rays")
    inputs = tracking.client.get_run(run_id).inputs.dataset_inputs
    assert {(entry.tags[0].value, entry.dataset.digest) for entry in inputs} == {("train", "a1"), ("val", "b2")}
    for unknown in (ABSENT, "no/id"):
        with pytest.raises(InputError, match=f"has no run {unknown}; `mlflow ui` shows"):
            read_run(tracking.uri, unknown)


def test_a_run_knows_of_its_model_and_whether_it_is_registered(tracking, run_id, monkeypatch):
    model = tracking.client.create_logged_model(tracking.experiment_id, "cnn1", run_id)
    other = tracking.start("comparison", {}).run_id
    tracking.link_model(other, model.model_id)
    assert [entry.model_id for entry in tracking.client.get_run(other).inputs.model_inputs] == [model.model_id]
    data = ("x-rays", "c3")
    tracking.log(run_id, {"test/auroc": 0.9}, model_id=model.model_id, dataset=data)
    (metric,) = tracking.client.get_logged_model(model.model_id).metrics
    assert (metric.key, metric.value, metric.dataset_name, metric.dataset_digest) == ("test/auroc", 0.9, *data)

    assert not tracking.registered(run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)  # MLflow looks for a version's model there
    tracking.client.create_registered_model(f"model-{run_id}")
    tracking.client.create_model_version(
        f"model-{run_id}", f"models:/{model.model_id}", run_id=run_id, model_id=model.model_id
    )
    assert tracking.registered(run_id)
    assert not tracking.registered(other)


def test_a_store_that_is_there_is_opened_and_nothing_is_made(tracking):
    before = len(tracking.client.search_experiments(ViewType.ALL))
    assert len(open_client(tracking.uri).search_experiments(ViewType.ALL)) == before


# Servers that do not do what they should ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A method of Tracking with what it takes."""

    name: str
    arguments: tuple

    def on(self, tracking: Tracking) -> object:
        return getattr(tracking, self.name)(*self.arguments)


CALLS = [
    Call("start", ("cnn1-000", {})),
    Call("get", (ABSENT,)),
    Call("describe_experiment", ("a note", "{}")),
    Call("log_params", (ABSENT, {"seed": 1})),
    Call("log_scores", (ABSENT, {"val/auroc": 1.0}, None, {"val": ("x-rays", "a1")})),
    Call("log", (ABSENT, {"val/loss": 1.0})),
    Call("log_epochs", (ABSENT, [{"epoch": 1, "time": 1.7e9, "val/loss": 1.0}])),
    Call("log_files", (ABSENT, {"a": b"b"})),
    Call("log_table", (ABSENT, pd.DataFrame({"a": [1]}), "a.json")),
    Call("log_data", (ABSENT, "x-rays", "/data", {"train": "a1"}, "")),
    Call("link_model", (ABSENT, "m-1")),
    Call("fetch", (ABSENT, "a", Path())),
    Call("remove", (ABSENT, "a")),
    Call("registered", (ABSENT,)),
    Call("finish", (ABSENT, FINISHED)),
    Call("reopen", (ABSENT,)),
    Call("change_status", (ABSENT, FINISHED)),
    Call("children", (ABSENT,)),
    Call("find_study", ("a1",)),
    Call("search", ("",)),
]
each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)


def test_every_method_is_called():
    public = {name for name, value in vars(Tracking).items() if callable(value) and not name.startswith("_")}
    assert {call.name for call in CALLS} == public - {"reaching", "log_folder"}  # which log_files calls


def tracking_on(uri: str) -> Tracking:
    """As a study has it whose server was there at the start."""
    return Tracking(MlflowClient(uri, uri), uri, EXPERIMENT, "1")


@each_call
def test_a_server_that_is_away_is_named(call):
    tracking = tracking_on(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingAwayError, match=rf"{tracking.uri} does not answer \(.*refused"):
        call.on(tracking)


OPENERS = [lambda uri: open_tracking(uri, EXPERIMENT), open_client, lambda uri: read_run(uri, ABSENT)]
each_opener = pytest.mark.parametrize("opener", OPENERS, ids=["open_tracking", "open_client", "read_run"])


@each_opener
def test_a_server_that_is_away_at_the_start_is_wrong_input(opener):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"--tracking-uri http://{address}: does not answer") as caught:
        opener(f"http://{ADMIN}:hunter%2F2@{address}")
    assert "hunter" not in str(caught.value)
    credentials = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    assert credentials == (ADMIN, "hunter/2")  # where MLflow looks for them


@each_opener
def test_an_address_that_cannot_be_read_is_named_without_its_password(opener):
    with pytest.raises(InputError, match=r"--tracking-uri http://admin:\*\*\*@host: cannot be opened") as caught:
        opener("http://admin:hunter[2@host")  # nobody encoded it
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("opener", OPENERS[1:], ids=["open_client", "read_run"])
def test_a_file_that_is_not_there_is_not_made(opener, tmp_path):
    with pytest.raises(InputError, match=r"none\.db: there is no such file"):
        opener(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_credentials_of_the_url_count_before_those_of_the_environment(team, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    tracking = open_tracking(team.uri.replace("://", f"://{ADMIN}:{quote(PASSWORD, safe='')}@"), EXPERIMENT)
    run = tracking.start("cnn1-000", {})
    tracking.log_files(run.run_id, {"a": b"b"})
    assert tracking.fetch(run.run_id, "a", team.folder).read_bytes() == b"b"
    assert tracking.uri == team.uri


@pytest.mark.slow
@each_call
def test_a_password_that_is_no_longer_right_is_told_and_not_repeated(call, team, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    with pytest.raises(InputError, match="does not know the user or the password; set MLFLOW_TRACKING_") as caught:
        call.on(tracking_on(team.uri))
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
@each_opener
def test_a_wrong_password_is_wrong_input(opener, team):
    with pytest.raises(InputError, match=f"--tracking-uri {team.uri}: the server does not know the user") as caught:
        opener(team.uri.replace("://", f"://{ADMIN}:hunter2@"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_a_user_without_rights_and_a_name_that_the_server_does_not_have_are_refused(team, monkeypatch):
    run = open_tracking(team.uri, EXPERIMENT).start("cnn1-000", {})
    with pytest.raises(InputError, match=r"the server refuses this \(.*Invalid Host header"):
        open_client(team.uri.replace("127.0.0.1", "localhost"))
    AuthServiceClient(team.uri).create_user("guest", "a guest's password")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "guest")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guest's password")
    with pytest.raises(InputError, match=r"the server refuses this \(.*Permission denied"):
        tracking_on(team.uri).finish(run.run_id, FINISHED)
