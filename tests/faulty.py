"""`sweep` with one fault in it: python -m tests.faulty ARGUMENTS, the fault in the environment.

    SWEEP_FAULT=PLACE:NTH:SIGNAL    the process that comes to a place for the nth time sends itself a signal
    SWEEP_FAULT=PLACE:NTH:full      or finds the disk full there
    SWEEP_FAULT=memory:LIMIT        training steps run out of memory with more than LIMIT images at once
    SWEEP_FAULT_MARK=FILE           made when it happens, so that it happens once, whoever starts anew

Workers are spawned and import this module too, so a place may be in the orchestrator or in a worker.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENTRY, EXIT = "entry", "exit"
# place -> module, attribute, and where in the call
ORCHESTRATOR = {
    "before asking": ("sweep.stores.study", "Study.ask", ENTRY),
    "after asking": ("sweep.stores.study", "Study.ask", EXIT),
    "run started": ("sweep.stores.tracking", "Tracking.log_params", EXIT),
    "trial noted": ("sweep.mirror", "Mirror.trial_started", EXIT),
    "job sent": ("sweep.engines.local", "LocalEngine.submit", EXIT),
    "epoch received": ("sweep.stores.study", "Study.report", ENTRY),
    "epoch reported": ("sweep.stores.study", "Study.report", EXIT),
    "epoch logged": ("sweep.mirror", "Mirror.epoch_ended", EXIT),
    "files on disk": ("sweep.mirror", "Mirror.keep_files", EXIT),
    "before telling": ("sweep.stores.study", "Study.complete", ENTRY),
    "after telling": ("sweep.stores.study", "Study.complete", EXIT),
    "files logged": ("sweep.stores.tracking", "Tracking.log_folder", EXIT),
    "run ended": ("sweep.mirror", "Mirror._end_run", EXIT),
    "trial over": ("sweep.mirror", "Mirror.trial_ended", EXIT),
    "test opened": ("sweep.mirror", "Mirror.show_test", ENTRY),
    "model begun": ("sweep.stores.registry", "_logged_model", EXIT),
    "model filled": ("sweep.stores.registry", "_fill", EXIT),
    "before the alias": ("sweep.stores.registry", "seat", ENTRY),
    "after the alias": ("sweep.stores.registry", "seat", EXIT),
    "concluded": ("sweep.mirror", "Mirror.show_conclusion", ENTRY),
    "all done": ("sweep.mirror", "Mirror.show_conclusion", EXIT),
}
RECOVERY = {
    "queued again": ("sweep.stores.study", "Study.retry", EXIT),
    "failed": ("sweep.stores.study", "Study.fail", EXIT),
    "runs compared": ("sweep.mirror", "Mirror.reconcile", EXIT),
}
WORKER = {
    "worker idle": ("sweep.hardware", "prepare_training_process", EXIT),
    "worker begins": ("sweep.training", "build_network", EXIT),
    "worker in mid-epoch": ("sweep.training", "_normalise", EXIT),
    "worker in mid-checkpoint": ("sweep.checkpoint", "os.fsync", ENTRY),
    "worker after a checkpoint": ("sweep.training", "_save_last", EXIT),
    "worker at its end": ("sweep.training", "_save_best", ENTRY),
}
PLACES = {**ORCHESTRATOR, **RECOVERY, **WORKER}


def install(fault: str, mark: Path) -> None:
    """Puts a fault at its place."""
    place, nth, what = fault.rsplit(":", 2)
    if (place in WORKER) != (__name__ == "__mp_main__"):  # what multiprocessing calls it in a child
        return
    module, attribute, when = PLACES[place]
    owner: Any = __import__(module, fromlist=["_"])
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), 0

    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == ENTRY and calls == int(nth):
            happen(what, mark)
        result = real(*args, **kwargs)
        if when == EXIT and calls == int(nth):
            happen(what, mark)
        return result

    setattr(owner, name, faulty)


def happen(what: str, mark: Path) -> None:
    """The fault, unless it has happened."""
    try:
        mark.open("x").close()
    except FileExistsError:
        return
    if what == "full":
        raise OSError(28, "No space left on device")
    os.kill(os.getpid(), signal.Signals[what])


def short_of_memory(limit: int) -> Callable[..., Any]:
    """A `_normalise` for which more than `limit` images at once are too many, in training steps."""
    import torch

    from sweep import training

    real = training._normalise

    def normalise(images: Any, mean: float, std: float) -> Any:
        if len(images) > limit and not torch.is_inference_mode_enabled():
            raise torch.OutOfMemoryError(f"{len(images)} images are too many")
        return real(images, mean, std)

    return normalise


if fault := os.environ.get("SWEEP_FAULT"):
    if fault.startswith("memory:"):
        import sweep.training

        sweep.training._normalise = short_of_memory(int(fault.partition(":")[2]))
    else:
        install(fault, Path(os.environ["SWEEP_FAULT_MARK"]))

if __name__ == "__main__":
    from sweep.cli import main

    sys.argv[0] = "sweep"
    main()
