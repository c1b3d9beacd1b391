"""Makes everything small: a folder of little pictures that a network learns in seconds, and a home of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before torch is imported, here and in every process that a test starts: several share each core, and a thread that
# waits for another by spinning would take the core from the one it waits for.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import torch

# Before anything asks for them: no test reads or writes the caches of whoever runs it.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "OPTUNA_STORAGE"):
    os.environ.pop(name, None)

from sweep.cli import app as cli  # noqa: E402

pytest_plugins = ["tests.helpers.served", "tests.helpers.browser", "tests.helpers.servers"]
# Begun first, so that no process is left with one of them when the other has nothing more to do. With their slow tests.
LONGEST = (
    "orchestrator/test_kills.py", "benchmarks/test_benchmarks.py", "test_real.py", "orchestrator/test_faults.py",
    "orchestrator/test_tracking_server.py", "engines/test_cluster.py", "orchestrator/test_sweep.py",
    "orchestrator/test_team.py", "comparisons/test_crossvalidation.py", "comparisons/test_ablation.py",
)  # fmt: skip
XRAYS = Path(__file__).parents[2] / "shared" / "chest_xray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Runs a command in a directory, in this process, and returns exit code, stdout and stderr."""

    def typed(folder: Path, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


@pytest.fixture(scope="session")
def xrays() -> Path:
    """The real images, where this checkout has them beside it."""
    if not XRAYS.is_dir():
        pytest.skip(f"the real X-rays are not at {XRAYS}")
    return XRAYS


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in ImageFolder's layout: 160 training and 60 test JPEGs, bright blobs on one side or the other."""
    root = tmp_path_factory.mktemp("pictures") / "Blob_Pictures"
    random = np.random.default_rng(0)
    for split, patients in (("train", 40), ("test", 15)):
        for patient in range(patients):
            for picture in range(4):
                label = patient % 2
                name = f"person{patient}_virus_{picture}.jpeg" if label else f"IM-{patient:04d}-{picture:04d}.jpeg"
                path = root / split / ("PNEUMONIA" if label else "NORMAL") / name
                path.parent.mkdir(parents=True, exist_ok=True)
                blob(random, label).save(path, quality=90)
    return root


def blob(random: np.random.Generator, label: int) -> Image.Image:
    """A noisy picture with a soft blob; label 1 has it larger."""
    y, x = np.mgrid[0:40, 0:40] - random.uniform(14, 26, size=2)[:, None, None]
    radius = 4 + 4 * label + random.uniform(-1.5, 1.5)
    values = 90 + 90 * np.exp(-(x**2 + y**2) / (2 * radius**2)) + random.normal(0, 18, (40, 40))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
