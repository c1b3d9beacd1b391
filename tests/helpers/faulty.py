"""`sweep` with one fault in it: python -m tests.helpers.faulty ARGUMENTS, the fault in the environment.

    SWEEP_FAULT=PLACE:NTH:SIGNAL    the process that comes to a place for the nth time sends itself a signal
    SWEEP_FAULT=PLACE:NTH:full      or finds the disk full there
    SWEEP_FAULT=memory:LIMIT        training steps run out of memory with more than LIMIT images at once
    SWEEP_FAULT=crowded             or with any number, in a worker beside which another one trains
    SWEEP_FAULT=gpu:BYTES           a worker may take so much of its GPU's memory
    SWEEP_FAULT_MARK=FILE           made when it happens, so that it happens once, whoever starts anew
    SWEEP_BLANK_FIGURES=1           figures are laid out by nobody and have one pixel

Workers are spawned and import this module too, so a place may be in the orchestrator or in a worker.

    python -m tests.helpers.faulty --serve

imports everything once and forks a sweep for each line of JSON on stdin (`tests.helpers.studies.WarmSweeps` writes them):
importing is most of what a tiny one takes.
"""

from __future__ import annotations

import base64
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

# A PNG of one white pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")
ENTRY, EXIT = "entry", "exit"
# place -> module, attribute, and where in the call
TRAINING = {
    "before asking": ("sweep.stores.study", "Study.ask", ENTRY),
    "after asking": ("sweep.stores.study", "Study.ask", EXIT),
    "run created": ("sweep.stores.tracking", "Tracking.start", EXIT),
    "run described": ("sweep.stores.tracking", "Tracking.log_params", EXIT),
    "trial noted": ("sweep.orchestrator.mlflow_mirror", "Mirror.trial_started", EXIT),
    "job sent": ("sweep.engines.local", "LocalEngine.submit", EXIT),
    "epoch received": ("sweep.stores.study", "Study.report", ENTRY),
    "epoch reported": ("sweep.stores.study", "Study.report", EXIT),
    "epoch logged": ("sweep.orchestrator.mlflow_mirror", "Mirror.epoch_ended", EXIT),
    "files on disk": ("sweep.orchestrator.artifacts", "Artifacts.keep_files", EXIT),
    "before telling": ("sweep.stores.study", "Study.complete", ENTRY),
    "after telling": ("sweep.stores.study", "Study.complete", EXIT),
    "figures drawn": ("sweep.orchestrator.artifacts", "Artifacts._figures", EXIT),
    "files logged": ("sweep.stores.tracking", "Tracking.log_folder", EXIT),
    "run ended": ("sweep.orchestrator.mlflow_mirror", "Mirror._end_run", EXIT),
    "trial over": ("sweep.orchestrator.mlflow_mirror", "Mirror.trial_ended", EXIT),
}
CONCLUDING = {
    "best fetched": ("sweep.orchestrator.mlflow_mirror", "Mirror.fetch_checkpoint", EXIT),
    "test opened": ("sweep.orchestrator.mlflow_mirror", "Mirror.show_test", ENTRY),
    "model begun": ("sweep.stores.registry", "_logged_model", EXIT),
    "model filled": ("sweep.stores.packaging", "fill", EXIT),
    "version made": ("sweep.stores.registry", "register", EXIT),
    "model tried": ("sweep.stores.packaging", "try_out", EXIT),
    "before the alias": ("sweep.orchestrator.conclude", "settle", ENTRY),
    "decision logged": ("sweep.lifecycle.promotion", "_record", EXIT),
    "after the alias": ("sweep.orchestrator.conclude", "settle", EXIT),
    "concluded": ("sweep.orchestrator.mlflow_mirror", "Mirror.show_conclusion", ENTRY),
    "all done": ("sweep.orchestrator.mlflow_mirror", "Mirror.show_conclusion", EXIT),
}
RECOVERY = {
    "queued again": ("sweep.stores.study", "Study.retry", EXIT),
    "failed": ("sweep.stores.study", "Study.fail", EXIT),
    "runs compared": ("sweep.orchestrator.mlflow_mirror", "Mirror.reconcile", EXIT),
}
WORKER = {
    "worker idle": ("sweep.system.hardware", "prepare_training_process", EXIT),
    "worker begins": ("sweep.training.loop", "build_network", EXIT),
    "worker in mid-epoch": ("sweep.training.loop", "normalise", EXIT),
    "worker in mid-checkpoint": ("sweep.training.checkpoint", "os.fsync", ENTRY),
    "worker after a checkpoint": ("sweep.training.loop", "save_last", EXIT),
    "worker at its end": ("sweep.training.loop", "save_best", ENTRY),
}
PLACES = {**TRAINING, **CONCLUDING, **RECOVERY, **WORKER}


def install(fault: str, mark: Path) -> None:
    """Puts a fault at its place."""
    place, nth, what = fault.rsplit(":", 2)
    if (place in WORKER) != (__name__ == "__mp_main__"):
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
    """A `normalise` for which more than `limit` images at once are too many, in training steps."""
    import torch

    from sweep.training import loop as training

    real = training.normalise

    def normalise(images: Any, mean: float, std: float) -> Any:
        if len(images) > limit and not torch.is_inference_mode_enabled():
            raise torch.OutOfMemoryError(f"{len(images)} images are too many")
        return real(images, mean, std)

    return normalise


def share_memory(mark: Path) -> None:
    """Has memory for one training: that which came first, until it has ended."""
    import fcntl

    import torch

    from sweep.training import loop as training

    real, end, file = training.normalise, training.save_best, mark.open("w")

    def normalise(images: Any, mean: float, std: float) -> Any:
        if not torch.is_inference_mode_enabled():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise torch.OutOfMemoryError("another one has it") from None
        return real(images, mean, std)

    def save_best(*arguments: Any) -> None:
        end(*arguments)
        fcntl.flock(file, fcntl.LOCK_UN)

    training.normalise, training.save_best = normalise, save_best


def prepare() -> None:
    """Puts the fault of the environment at its place."""
    fault = os.environ.get("SWEEP_FAULT", "")
    if fault.startswith("memory:"):
        import sweep.training.loop

        sweep.training.loop.normalise = short_of_memory(int(fault.partition(":")[2]))
    elif fault == "crowded":
        if __name__ == "__main__":
            import sweep.orchestrator.loop

            sweep.orchestrator.loop.workers_alone = lambda *_: 1
        share_memory(Path(os.environ["SWEEP_FAULT_MARK"]))
    elif fault.startswith("gpu:"):
        import torch

        if __name__ == "__mp_main__":
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(int(fault.partition(":")[2]) / whole)
    elif fault:
        install(fault, Path(os.environ["SWEEP_FAULT_MARK"]))
    if os.environ.get("SWEEP_BLANK_FIGURES") and __name__ == "__main__":
        import sweep.metrics.figures

        sweep.metrics.figures.png = lambda figure: PIXEL


def warm_up() -> None:
    """Imports what a sweep imports, and computes what a process computes once."""
    import torch
    from mlflow.utils import requirements_utils

    from sweep.metrics import figures
    from sweep.stores.packaging import export_network

    torch.set_num_threads(1)  # a fork has the thread that forks and no other
    requirements_utils._init_modules_to_packages_map()  # reads what every installed package is made of
    figure, _ = figures.panels(1, (1, 1), "fonts are found and measured")
    figures.png(figure)
    with tempfile.TemporaryDirectory() as folder:
        export_network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), 2, Path(folder, "network.pt2"))


def serve() -> None:
    """Runs the sweeps that lines of JSON ask for, see `WarmSweeps`; answers with process numbers and exit codes."""
    for module in (
        "sweep.engines.local", "sweep.orchestrator.runner", "sweep.stores.registry", "alembic.runtime.environment",
        "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.db.utils", "mlflow.pyfunc", "optuna.importance",
        "optuna.storages._rdb.storage", "optuna.visualization.matplotlib", "sqlalchemy.dialects.sqlite",
        "torch._dynamo", "torch.export._trace",
    ):  # fmt: skip
        importlib.import_module(module)
    warm_up()
    multiprocessing.set_forkserver_preload(["tests.helpers.warm_worker"])
    forkserver.ensure_running()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(asked: dict[str, Any]) -> int | None:
    """Forks a sweep and gives its process; or gives the exit code of one, None if it is asked for before its end."""
    if "pid" in asked:
        pid, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    for path in asked["output"]:
        Path(path).write_text("")  # before anybody looks into it
    if child := os.fork():
        return child
    import torch

    # torch makes its thread pool anew in a fork, and two threads that ask for it at once, as the first gradients do, end
    # the process ("Invalid thread pool"): asked for here, it is there before there are two.
    torch.set_num_threads(1)
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for stream, path in enumerate((os.devnull, *asked["output"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), stream)
    signal.alarm(asked["timeout"])
    sys.argv[1:] = asked["arguments"]
    in_workers = ("worker", "memory", "crowded", "gpu")  # faults for the environment that a spawned worker gets
    if not os.environ.get("SWEEP_FAULT", "").startswith(in_workers):
        fork_workers()
    run()
    raise AssertionError("a sweep ends its process")


def fork_workers() -> None:
    """Has workers forked from the server's own fork server and not spawned, see `tests.helpers.warm_worker`."""
    real = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: real("forkserver" if method == "spawn" else method)
    forkserver._forkserver.ensure_running = lambda: None  # it runs, but as a child of our parent


def run() -> None:
    """Runs `sweep` with the arguments there are, and ends the process."""
    from sweep.cli.app import main

    prepare()
    sys.argv[0] = "sweep"
    main()
    sys.exit(0)


if __name__ == "__main__" and sys.argv[1:] == ["--serve"]:
    serve()
elif __name__ == "__main__":
    run()
elif __name__ == "__mp_main__":  # what multiprocessing calls it in a worker
    prepare()
