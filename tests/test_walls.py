"""The walls of the house, a line a wall: who may import what. Arrows run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("data", "models", "sweep")
    for path in (ROOT / package).rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Everything that a module imports, also inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def modules(*rooms: str) -> list[str]:
    return [module for module in FILES if within(module, rooms)]


WALLS = [
    # rooms, what they never import
    (("data",), ("models", "sweep", "optuna", "mlflow", "ray")),
    (("models",), ("sweep", "optuna", "mlflow", "ray")),
    (("sweep.training",), ("optuna", "mlflow", "ray", "sweep.stores", "sweep.engines", "sweep.results")),
    (("sweep.engines",), ("optuna", "mlflow", "sweep.stores", "sweep.results", "sweep.orchestrator.loop")),
    (("sweep.metrics",), ("torch", "optuna", "mlflow", "ray", "sweep.stores", "sweep.engines")),
    (("sweep.stores",), ("ray", "sweep.engines", "sweep.orchestrator.loop", "sweep.cli.app", "sweep.training")),
    (("sweep.space", "sweep.settings"), ("torch", "optuna", "mlflow", "sweep.stores", "sweep.engines", "rich", "typer")),
    (("sweep.orchestrator.loop", "sweep.orchestrator.mlflow_mirror", "sweep.orchestrator.figure_pool", "sweep.orchestrator.reconcile", "sweep.orchestrator.conclude"), ("optuna", "mlflow", "rich", "typer", "sweep.cli.terminal")),
    (("sweep.comparisons.architectures.audit", "sweep.comparisons.enqueued", "sweep.comparisons.architectures.candidates", "sweep.comparisons.ablation.run", "sweep.comparisons.crossvalidation.run", "sweep.comparisons.replication.run", "sweep.comparisons.replication.published"), ("optuna", "mlflow", "rich", "typer", "sweep.cli.terminal")),
    (("sweep.stores.serving_model",), ("sweep", "models", "data")),
    (("data.decode",), ("data", "torch", "mlflow")),
]  # fmt: skip


@pytest.mark.parametrize(("rooms", "forbidden"), WALLS, ids=lambda value: " ".join(value))
def test_the_wall_stands(rooms, forbidden):
    inside = modules(*rooms)
    assert inside, f"there is no such room: {rooms}"
    breaches = [
        (module, name)
        for module in inside
        for name in imports(module)
        if within(name, forbidden) and name.split(".")[0] + "." + name.split(".")[-1] != module and name != module
    ]
    assert not breaches


def test_only_the_stores_import_optuna_and_mlflow():
    owners = {module for module in FILES if any(within(name, ("optuna", "mlflow")) for name in imports(module))}
    assert owners
    assert all(within(module, ("sweep.stores",)) for module in owners)


def test_only_the_ray_engine_imports_ray():
    owners = {module for module in FILES if any(within(name, ("ray",)) for name in imports(module))}
    assert owners == {"sweep.engines.ray_cluster"}


def test_no_module_imports_itself_in_a_circle():
    edges = {module: {name for name in imports(module) if name in FILES} for module in FILES}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        for other in edges[module]:
            visit(other, (*path, module))

    # TYPE_CHECKING imports point at types alone and are left out by looking at the names that run.
    for module, path in FILES.items():
        tree = ast.parse(path.read_text())
        guarded = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for statement in node.body
            if isinstance(statement, ast.ImportFrom)
            for inner in [statement.module or ""]
        }
        edges[module] -= guarded | {module}
    for module in FILES:
        visit(module, ())


def test_nothing_reads_a_pickle():
    """`torch.load` stands in one place and reads tensors alone; nothing else opens pickles."""
    calls = []
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                text = ast.unparse(node)
                if text.startswith(("torch.load(", "pickle.", "joblib.load", "cloudpickle.", "dill.")):
                    calls.append((module, "weights_only=True" in text))
                if text.startswith("np.load("):
                    assert "allow_pickle=False" in text, f"{module}: {text}"
    assert calls == [("models.resnet50", True)]


def test_the_command_line_starts_without_the_heavy_libraries():
    import subprocess
    import sys

    script = "import sys, sweep.cli.app; print([n for n in ('torch', 'mlflow', 'optuna', 'sklearn', 'matplotlib') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
