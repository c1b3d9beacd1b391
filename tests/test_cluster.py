"""A sweep on a Ray cluster of two nodes, one of which is lost in the middle; and what only such an engine does."""

from __future__ import annotations

import pytest

from tests.consistent import consistent
from tests.test_faults import LONG, running, wait_for
from tests.test_kills import STUDY

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra sweep[ray]")


@pytest.fixture
def cluster():
    """A head and a further node, one CPU each."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_node_lost_in_the_middle_costs_an_epoch_at_most(pictures, tmp_path, cluster):
    node = cluster.add_node(num_cpus=1)
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 20, *LONG, "--engine", "ray")
    with running(tmp_path, *arguments, "--address", cluster.address) as (process, said):
        wait_for(lambda: said().count(" complete ") >= 4, process, said)
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: "worker lost" in said(), process, said)
        cluster.add_node(num_cpus=1)
        assert process.wait(240) == 0, said()
    (tmp_path / "log").unlink()

    trials = consistent(tmp_path, STUDY, 20)

    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert lost
    for trial in lost:
        assert trial.user_attrs["failure"]["cause"] == "worker lost"
        (retry,) = [other for other in trials if other.user_attrs.get("retry_of") == trial.number]
        seen = len(trial.user_attrs["result"]["history"])
        assert retry.user_attrs["result"]["resumed_after"] >= seen  # the epoch in training was lost, and no other
