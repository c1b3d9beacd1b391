"""The load of this machine: what the installed libraries tell, now and then, in this process alone."""

from __future__ import annotations

import sys
import threading

import pytest

from sweep.stores import system_metrics
from sweep.stores.system_metrics import MachineLoad


def test_processor_and_memory_are_sampled_without_a_thread(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("psutil")
    before = threading.active_count()
    load = MachineLoad()
    assert load.sample() == {}  # too early
    monkeypatch.setattr(system_metrics, "SAMPLE_SECONDS", 0.0)

    sample = load.sample()

    assert 0 <= sample["system/cpu_utilization_percentage"] <= 100
    assert 0 < sample["system/system_memory_usage_percentage"] <= 100
    assert sample["system/system_memory_usage_megabytes"] > 1
    assert threading.active_count() == before


def test_without_the_libraries_there_is_nothing_to_log(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "mlflow.system_metrics.metrics.cpu_monitor", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.metrics.gpu_monitor", None)
    monkeypatch.setattr(system_metrics, "SAMPLE_SECONDS", 0.0)

    assert MachineLoad().sample() == {}
