"""The walls between the packages: who may import what, one test per wall. `docs/architecture.md` says why."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("data", "models", "sweep")
    for path in (ROOT / package).rglob("*.py")
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}
# From the ground up: a package imports from those before it, and from itself.
FLOORS = (
    "data", "models", "sweep.system", "sweep.training", "sweep.engines", "sweep.space", "sweep.metrics", "sweep.settings", "sweep.settings_file",
    "sweep.stores", "sweep.plan", "sweep.lifecycle", "sweep.orchestrator", "sweep.comparisons", "sweep.terminal", "sweep.api", "sweep.cli",
)  # fmt: skip


def imports(module: str) -> set[str]:
    """Everything that a module imports, also inside functions and for type checkers."""
    names = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def modules(*packages: str) -> list[str]:
    return [module for module in FILES if within(module, packages)]


def analyses() -> tuple[str, ...]:
    return tuple(module for module in FILES if module.rpartition(".")[2] == "analysis")


LIBRARIES = ("optuna", "mlflow", "ray")
WALLS = [
    # packages, what they never import
    (("data",), ("models", "sweep", *LIBRARIES)),
    (("models",), ("sweep", *LIBRARIES)),
    (("data.decode",), ("data", "torch", "mlflow")),  # travels with a registered model
    (("sweep.stores.serving_model",), ("sweep", "models", "data")),  # likewise
    (("sweep.stores.heat_map",), ("sweep", "models", "data", "mlflow", "pandas")),  # likewise
    (("sweep.training",), (*LIBRARIES, "sweep.stores", "sweep.engines", "sweep.metrics")),
    (("sweep.engines",), ("optuna", "mlflow", "sweep.stores", "sweep.metrics", "sweep.orchestrator")),
    (("sweep.stores",), ("ray", "sweep.engines", "sweep.orchestrator", "sweep.training")),
    (("sweep.metrics", *analyses()), ("torch", *LIBRARIES, "sweep.stores", "sweep.engines")),
    (("sweep.training.config",), ("torch",)),
    (("sweep.stores.trials", "sweep.stores.tags"), ("torch", *LIBRARIES)),
]


@pytest.mark.parametrize(("packages", "forbidden"), WALLS, ids=lambda value: " ".join(value))
def test_a_package_never_imports(packages, forbidden):
    inside = modules(*packages)
    assert all(modules(package) for package in packages), f"a package of {packages} is gone"
    assert not [
        (module, name)
        for module in inside
        for name in imports(module)
        if within(name, forbidden) and not within(name, (module,))
    ]


@pytest.mark.parametrize(
    ("libraries", "owners"),
    [
        (("optuna", "mlflow"), ("sweep.stores",)),
        (("ray",), ("sweep.engines.ray", "sweep.engines.ray_cluster")),
        (("typer",), ("sweep.cli",)),
        (("rich",), ("sweep.cli", "sweep.terminal")),
        (("sweep.cli",), ("sweep.cli", "sweep.__main__")),
    ],
    ids=lambda value: " ".join(value),
)
def test_only_its_owner_imports(libraries, owners):
    importers = {module for module in FILES if any(within(name, libraries) for name in imports(module))}
    assert importers
    assert not {module for module in importers if not within(module, owners)}


def test_only_the_bounded_study_touches_optunas_private_names():
    private = re.compile(r"(?:study|trial|_study|_search|super\(\))\._(?:storage|study_id|trial_id|cached_frozen_trial|pop_waiting_trial_id|get_trials)\b")  # fmt: skip
    assert {module for module, path in FILES.items() if private.search(path.read_text())} <= {
        "sweep.stores.bounded_study"
    }


def test_every_arrow_points_down():
    floor_of = {module: floor for module in FILES for floor, name in enumerate(FLOORS) if within(module, (name,))}
    unplaced = {module for module in FILES if module not in floor_of}
    assert unplaced == {"sweep", "sweep.__main__"}, "give a new package its place in FLOORS"
    assert not [
        (module, name)
        for module, floor in floor_of.items()
        for name in imports(module)
        if floor_of.get(name, -1) > floor
    ]


def test_no_module_imports_itself_in_a_circle():
    # Imports under TYPE_CHECKING point at types alone.
    guarded = {
        module: {
            statement.module or ""
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for statement in node.body
            if isinstance(statement, ast.ImportFrom)
        }
        for module, tree in TREES.items()
    }
    edges = {module: imports(module) & FILES.keys() - guarded[module] - {module} for module in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        if module not in done:
            for other in edges[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def test_nothing_reads_a_pickle():
    """`torch.load` stands in one place and reads tensors alone; nothing else opens pickles."""
    calls = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                text = ast.unparse(node)
                if text.startswith(("torch.load(", "pickle.", "joblib.load", "cloudpickle.", "dill.")):
                    calls.append((module, "weights_only=True" in text))
                if text.startswith("np.load("):
                    assert "allow_pickle=False" in text, f"{module}: {text}"
    assert calls == [("models.weights", True)]


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = ("torch", "mlflow", "optuna", "sklearn", "matplotlib", "scipy", "pandas")
    script = f"import sys, sweep.cli.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_file_is_longer_than_400_lines():
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.jinja"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in tracked.stdout.split()
        if "mlartifacts" not in name and (ROOT / name).exists()
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_words_that_the_house_gave_up_stay_away():
    """CONTRIBUTING.md has the words in use."""
    given_up = re.compile(
        r"\b(seats?|duels?|obituary|levers?|contenders?|came to nothing|what it was worth|phantoms?)\b", re.IGNORECASE
    )
    texts = [*FILES.values(), *(ROOT / "sweep").rglob("*.jinja"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        if path.name not in ("CONTRIBUTING.md", "CHANGELOG.md", "RESULTS.md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if given_up.search(line) and "FORMER_NAME" not in line
    ]
    assert hits == []
