"""The load of this machine, as MLflow's page of system metrics shows it.

MLflow's own monitor is a thread with a connection of its own to the store. Here the one process that writes asks
MLflow's probes now and then: nothing outlives the run, and an answer takes less than a millisecond.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

SAMPLE_SECONDS = 10.0  # as MLflow's own


class MachineLoad:
    """Load of processor, memory and NVIDIA GPUs: what `psutil` and `nvidia-ml-py` tell, where they are installed."""

    def __init__(self) -> None:
        """Makes the probes; without a library, or a GPU, that one is left out."""
        self._probes: list[BaseMetricsMonitor] = []
        self._sampled = time.monotonic()
        with suppress(ImportError):
            from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

            self._probes.append(CPUMonitor())
        with suppress(ImportError, RuntimeError):  # the latter where there is no GPU
            from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

            self._probes.append(GPUMonitor())
        self._collect()  # the load of a processor is that since it was last asked

    def sample(self) -> dict[str, float]:
        """The metrics `system/...` where the last sample is ten seconds old; empty otherwise."""
        if time.monotonic() - self._sampled < SAMPLE_SECONDS:
            return {}
        self._sampled = time.monotonic()
        return {f"system/{name}": float(value) for name, value in self._collect().items()}

    def _collect(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for probe in self._probes:
            probe.clear_metrics()
            probe.collect_metrics()
            values.update(probe.aggregate_metrics() or {})
        return values
