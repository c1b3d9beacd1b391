"""`sweep doctor`: make the stores agree; `sweep replay`: train a run again and compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from data.faults import InputError
from sweep.cli import options as option


def doctor(
    storage: option.Storage = None,
    tracking_uri: option.TrackingUri = None,
    work_dir: option.WorkDir = None,
    rebuild: option.Rebuild = False,
    json: option.Json = False,
) -> None:
    """Make Optuna, MLflow and the checkpoints on disk agree; say what was repaired."""
    folder = Path.cwd()
    if storage is None and not (folder / "optuna.db").exists():
        raise InputError(f"{folder}: there is no optuna.db here; go where the sweep ran, or name its store: --storage")
    from data import cache
    from sweep.cli.terminal import Terminal
    from sweep.orchestrator.reconcile import repair
    from sweep.orchestrator.workdir import locked, mlflow_in, optuna_in, stoppable
    from sweep.stores.mlflow_stores import open_tracking
    from sweep.stores.study import stored_studies
    from sweep.system.errors import TrackingAwayError
    from sweep.system.redaction import shown

    terminal, uri = Terminal(json=json), tracking_uri or mlflow_in(folder)
    repaired: list[str] = []
    missing: list[str] = []
    with stoppable() as stopping, locked(folder):
        studies = stored_studies(storage or optuna_in(folder))
        for study in studies:
            if stopping():
                raise KeyboardInterrupt
            study.claim(shared=storage is not None)
            try:
                tracking = open_tracking(uri, study.experiment, repaired.append)
                sentences, mirrored = repair(study, tracking, folder, work_dir, terminal.say, rebuild=rebuild)
            except TrackingAwayError as error:
                raise InputError(f"--tracking-uri {shown(uri)}: {error}") from error
            finally:
                study.release()
            repaired += sentences
            missing += [] if mirrored else [study.name]
        repaired += [f"{path}: an unfinished image cache; removed" for path in cache.remove_left_behind()]
    for sentence in repaired:
        terminal.say(f"mended: {sentence}")
    for name in missing:
        terminal.say(f"missing: MLflow has no run of study {name}; `sweep doctor --rebuild` writes all of them again")
    terminal.say(f"{len(studies):,} studies looked at, {len(repaired):,} things mended")
    names = [study.name for study in studies]
    terminal.end(1 if missing else 0, studies=names, mended=repaired, missing=missing)


def replay(
    run_id: option.RunId,
    data: option.DataNow = None,
    tracking_uri: option.TrackingUri = None,
    json: option.Json = False,
) -> None:
    """Train a run again from what MLflow recorded, compare every epoch; exit 1 if a number differs."""
    from data.leakage import lines_of, overlaps_of
    from sweep.cli.terminal import Terminal
    from sweep.cli.views import replay_view
    from sweep.comparisons.replay import data_of
    from sweep.comparisons.replay import replay as train_again
    from sweep.engines.local import LocalEngine
    from sweep.orchestrator.workdir import mlflow_in, stoppable
    from sweep.stores.mlflow_stores import read_run
    from sweep.system.hardware import choose_device

    terminal = Terminal(json=json)
    past = read_run(tracking_uri or mlflow_in(Path.cwd()), run_id)
    source, split = data_of(past, data)
    device, threads = choose_device(past.params["device"]), int(past.params["threads"])
    where = f"{source.location}, data digest {source.digest}"
    terminal.say(f"{past.name}: {len(past.epochs)} epochs on {where}, seed {past.params['seed']}")
    for line in lines_of(overlaps_of(source, split)):
        terminal.say(line)
    with stoppable() as stopping:
        engine = LocalEngine(1, device, threads)
        try:
            engine.start(1)  # imports torch while the images are decoded
            result = train_again(past, source, split, engine, stopping, terminal.say)
        finally:
            engine.close()
    terminal.show(replay_view(past.name, result))
    terminal.end(0 if result.equal else 1, run_id=run_id, **{**asdict(result), "equal": result.equal})
