"""Kills a sweep at random moments for as long as one likes, and checks the stores each time that it has got done.

    python -m benchmarks.soak --minutes 30 --seed 0

Every random draw comes from the seed; the moments themselves are the machine's. Linux only: it reads /proc.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tests.helpers.consistent import consistent

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_WAIT = 25.0  # seconds from a start to its kill; most starts live long enough to train


def soak(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Decides which process to kill, how and after how long.")] = 0,
    workers: Annotated[int, typer.Option(help="Trials to train at once.")] = 2,
) -> None:
    """Kills a sweep on the synthetic images at random moments, and checks that nothing is lost or done twice."""
    draw, kills, rounds, wanted = random.Random(seed), Counter(), 0, 0
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while time.monotonic() < end:
            wanted += draw.randint(1, 4)
            while not _attempt(folder, wanted, workers, draw, kills, end):
                pass
            trials = consistent(folder, "synthetic/cnn3", wanted)
            rounds += 1
            attempts = Counter(trial.user_attrs.get("origin", trial.number) for trial in trials)
            print(
                f"round {rounds}: {wanted} trials in {len(trials)} attempts (at most {max(attempts.values())} at one), "
                f"{sum(kills.values())} kills, stores agree",
                flush=True,
            )
    print(f"{rounds} rounds, {sum(kills.values())} kills ({', '.join(f'{n} {k}' for k, n in sorted(kills.items()))})")


def _attempt(folder: Path, wanted: int, workers: int, draw: random.Random, kills: Counter[str], end: float) -> bool:
    """Starts the sweep and kills it, or one of its workers, after a while; returns whether it got done."""
    command = [
        sys.executable, "-m", "sweep", "--arch", "cnn3", "--trials", str(wanted), "--epochs", "4", "--image-size", "32",
        "--search", "batch_size=32,64", "--warmup", "1", "--workers", str(workers), "--retries", "9",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        while process.poll() is None:
            try:
                process.wait(draw.uniform(0, LONGEST_WAIT))
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:  # let it end in peace
                    process.wait()
                    break
                victim, who = process.pid, "orchestrator"
                if draw.random() < 0.4 and (children := _children(process.pid)):
                    victim, who = draw.choice(children), "worker"
                how = draw.choice(SIGNALS)
                with suppress(ProcessLookupError):  # it was quicker
                    os.kill(victim, how)
                    kills[f"{who} {how.name}"] += 1
    output = log.read_text()
    by_signal = {-how for how in SIGNALS}  # SIGTERM and SIGINT too, before the program has begun and after its end
    if process.returncode not in {0, 130, *by_signal} or "Traceback" in output:
        raise SystemExit(f"it ended with {process.returncode}\n{output}")
    return process.returncode == 0


def _children(pid: int) -> list[int]:
    """Worker processes; the resource tracker of multiprocessing is none."""
    with suppress(FileNotFoundError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return []


if __name__ == "__main__":
    typer.run(soak)
