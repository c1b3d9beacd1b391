"""Several trainings at once on one machine or GPU: their speed together, and whether one more makes it higher."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.tables import Options, Table, median, progress, ratio
from benchmarks.training import Case, cached, cases_of, config_of, files_of, turn_of
from benchmarks.training_ways import OURS, Job, process
from sweep.system.hardware import choose_precision, usable_cores


def measure(options: Options) -> list[Table]:
    """Measures one training with all threads, and more and more at once that have a share of them each."""
    cores = usable_cores()
    counts = (1, 2, 4, 8) if options.device == "cuda" else tuple(dict.fromkeys((1, cores)))
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as name:
        # Several of the large one take more memory than most machines have.
        cases = [case for case in cases_of(options) if options.device == "cuda" or case.arch != "resnet50"]
        files = files_of(options, max(case.images for case in cases), Path(name))
        for case in cases:
            speeds = _together(case, counts, files, options, Path(name))
            values |= {f"{case.name}, {count} at once": found for count, found in speeds.items()}
            alone = speeds[1]
            found = [f"{median(speeds[count], 1)}, x {ratio(speeds[count], alone)}" for count in counts[1:]]
            rows.append((case.name, median(alone, 1), *found))
            progress(
                ", ".join(f"{count} {cell}" for count, cell in zip(counts, rows[-1][1:], strict=True))
                + f": {case.name}"
            )
    precision = choose_precision("auto", options.device)
    return [
        Table(
            "sharing",
            "Trainings at once, images a second of all together",
            ("", "1", *map(str, counts[1:])),
            rows,
            values,
            (
                f"In {precision}, on {options.device}; {cores} threads are shared out, one a training at least.",
                "x: times what one training alone does with all of them, turn by turn; median (range).",
            ),
        )
    ]


def _together(case: Case, counts: Sequence[int], files: Path, options: Options, folder: Path) -> dict[int, list[float]]:
    """Images a second of so many trainings at once, each number in turn."""
    images = cached(case, files, folder)
    config = replace(config_of(case, options), precision=choose_precision("auto", options.device))
    turn = 2 * turn_of(options)  # long beside the moments in which some have begun and others ended
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack:
        jobs = [Job(OURS, config, files, images, folder / f"{case.name}-{index}", turn) for index in range(counts[-1])]
        connections = [stack.enter_context(process(job)) for job in jobs]
        for connection in connections:
            connection.recv()  # it is warm
        for _ in range(options.repeats):
            for count in counts:
                for connection in connections[:count]:
                    connection.send(max(1, usable_cores() // count))
                speeds[count].append(sum(connection.recv().images_per_second for connection in connections[:count]))
    return speeds
