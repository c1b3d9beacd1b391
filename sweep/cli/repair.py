"""`sweep doctor`: make the stores agree; `sweep replay`: train a run again and compare."""

from __future__ import annotations

from dataclasses import asdict

from sweep.cli import options as option


def doctor(
    storage: option.Storage = None,
    tracking_uri: option.TrackingUri = None,
    work_dir: option.WorkDir = None,
    rebuild: option.Rebuild = False,
    json: option.Json = False,
) -> None:
    """Make Optuna, MLflow and the checkpoints on disk agree; say what was repaired."""
    from sweep.api import repair
    from sweep.terminal import Terminal

    terminal = Terminal(json=json)
    done = repair.doctor(storage=storage, tracking_uri=tracking_uri, work_dir=work_dir, rebuild=rebuild, view=terminal)
    for sentence in done.mended:
        terminal.say(f"mended: {sentence}")
    for name in done.missing:
        terminal.say(f"missing: MLflow has no run of study {name}; `sweep doctor --rebuild` writes all of them again")
    terminal.say(f"{len(done.studies):,} studies looked at, {len(done.mended):,} things mended")
    terminal.end(1 if done.missing else 0, **{name: list(value) for name, value in asdict(done).items()})


def replay(
    run_id: option.RunId,
    data: option.DataNow = None,
    tracking_uri: option.TrackingUri = None,
    json: option.Json = False,
) -> None:
    """Train a run again from what MLflow recorded, compare every epoch; exit 1 if a number differs."""
    from sweep.api import comparing
    from sweep.cli.views import replay_view
    from sweep.terminal import Terminal

    terminal = Terminal(json=json)
    name, result = comparing.replayed(run_id, data=data, tracking_uri=tracking_uri, view=terminal)
    terminal.show(replay_view(name, result))
    terminal.end(0 if result.equal else 1, run_id=run_id, **{**asdict(result), "equal": result.equal})
