"""Sweeps on a Ray cluster: a node is lost in the middle, the orchestrator is killed, and a team's stores are used."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import pytest

from sweep.stores.conversion import attributes_of
from tests.helpers.consistent import consistent
from tests.helpers.servers import ADMIN, PASSWORD, wait_for
from tests.helpers.studies import LONG, STUDY, TIMEOUT, running, trials_of

pytest.importorskip("sweep.engines.ray_cluster", reason="needs the extra ray")  # first: it tells Ray how to be
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.fixture
def cluster():
    """A head and a further node, one CPU each."""
    # A node that is gone is noticed within two seconds; Ray's own twenty may be longer than what is left of a study.
    noticed = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": noticed}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _both_in_the_middle(folder: Path) -> bool:
    """Whether two trials are in training, and neither is about to end; however far they are apart, that moment comes."""
    trials = trials_of(folder, STUDY)
    training = [len(trial.intermediate_values) for trial in trials if trial.state.name == "RUNNING"]
    return len(training) == 2 and all(1 <= epochs <= 8 for epochs in training)


@pytest.mark.slow
def test_a_node_lost_in_the_middle_costs_an_epoch_at_most(pictures, tmp_path, cluster):
    node = cluster.add_node(num_cpus=1)
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 10, *LONG, "--engine", "ray")
    with running(tmp_path, *arguments, "--address", cluster.address) as (process, said):
        wait_for(lambda: said().count(" complete ") >= 2, process, said)
        wait_for(lambda: _both_in_the_middle(tmp_path), process, said)  # between two trials nothing would be lost
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: "worker lost" in said(), process, said)
        cluster.add_node(num_cpus=1)
        assert process.wait(TIMEOUT) == 0, said()
    (tmp_path / "log").unlink()

    trials = consistent(tmp_path, STUDY, 10)

    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert lost
    for trial in lost:
        assert trial.user_attrs["failure"]["cause"] == "worker lost"
        (retry,) = [other for other in trials if other.user_attrs.get("retry_of") == trial.number]
        seen = len(attributes_of(trial)["result"]["history"])
        assert retry.user_attrs["result"]["resumed_after"] >= seen  # the epoch in training was lost, and no other


@pytest.mark.slow
def test_a_killed_orchestrator_goes_on_and_no_password_is_in_rays_logs(
    pictures, tmp_path, cluster, postgres, team, monkeypatch
):
    storage, shared, work = postgres.database(), tmp_path / "shared", tmp_path / "work"
    shared.mkdir()
    work.mkdir()
    stores = {
        "OPTUNA_STORAGE": storage,
        "MLFLOW_TRACKING_URI": team.uri,
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }
    for name, value in stores.items():
        monkeypatch.setenv(name, value)
    ray = ("--engine", "ray", "--address", cluster.address, "--work-dir", shared, "--workers", 2)
    # The cluster has room for one trial at a time; other tests have a study of the usual name in the team's stores.
    arguments = ("--arch", "cnn3", "--study", "cluster", "--data", pictures, "--trials", 4, *LONG, "--epochs", 8, *ray)
    for how, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with running(work, *arguments) as (process, said):
            wait_for(lambda: " complete " in said(), process, said)
            process.send_signal(how)
            assert process.wait(60) == code, said()
    with running(work, *arguments) as (process, said):
        assert process.wait(TIMEOUT) == 0, said()
        last = said()
    (work / "log").unlink()

    trials = consistent(work, "blob-pictures/cluster", 4, uri=team.uri, storage=storage)

    assert {trial.user_attrs["failure"]["cause"] for trial in trials if trial.state.name == "FAIL"} == {"interrupted"}
    assert any(trial.user_attrs.get("result", {}).get("resumed_after") for trial in trials)
    assert list(shared.iterdir()) == []  # what was in training lay there
    logs = [path for path in Path(tempfile.gettempdir(), "ray").glob("session_*/logs/**/*") if path.is_file()]
    assert logs
    for secret in (postgres.password, PASSWORD):
        assert secret not in last
        assert not [path for path in logs if secret.encode() in path.read_bytes()]
