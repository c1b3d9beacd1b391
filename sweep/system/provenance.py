"""Where a result comes from: commit, versions of packages, machine."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from sweep import __version__
from sweep.system import hardware

PACKAGES = ("torch", "torchvision", "optuna", "mlflow", "numpy", "scikit-learn", "pillow")


@cache
def tags() -> dict[str, str]:
    """The tags of a run that say where it comes from, with MLflow's own tag for the commit."""
    commit = _git("rev-parse", "HEAD")
    versions = {f"sweep.version.{name}": metadata.version(name) for name in PACKAGES}
    machine = {f"sweep.machine.{name}": value for name, value in hardware.describe().items()}
    code = (
        {"mlflow.source.git.commit": commit, "sweep.dirty": str(bool(_git("status", "--porcelain")))} if commit else {}
    )
    python = platform.python_version()
    return {"sweep.version": __version__, "sweep.version.python": python, **versions, **machine, **code}


def _git(*arguments: str) -> str:
    """Asks git about the checkout that this code runs from; empty if it is not a checkout or git is missing."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        answer = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
