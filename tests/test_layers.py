"""The package is a house of wings: a module imports only downwards, never in a circle, never a name that is private."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "ipodyn"

# From the ground up; a wing imports from those before it. The public face is `ipodyn/__init__.py`.
WINGS = [
    *("_numerics", "_preferences", "problems", "data"),
    *("_objectives", "_ranking", "_loops", "recipes"),
    *("_equilibria", "_engine", "_rollouts", "_maps", "_diagnosis", "plot"),
    *("__init__", "_reproduce", "_cli"),
]
RANK = {name: rank for rank, name in enumerate(WINGS)}


def module(path: pathlib.Path) -> str:
    """The dotted name inside the package: `_loops.mrs`, `data` for `data/__init__.py`, `__init__` for the face."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str) -> list[tuple[str, str]]:
    """(module, name) of all that a module imports from the package when it is loaded or run."""
    path = PATHS[name]
    package = path.parent.relative_to(PACKAGE).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name.partition(".")[2] or "__init__", "") for alias in node.names if _ours(alias.name)]
        if not isinstance(node, ast.ImportFrom) or not (node.level or _ours(node.module or "")):
            continue
        start = package[: len(package) - node.level + 1] if node.level else ()
        said = (node.module or "").split(".") if node.level else (node.module or "").split(".")[1:]
        base = ".".join([*start, *filter(None, said)])
        for alias in node.names:
            deeper = ".".join(filter(None, [base, alias.name]))
            found.append((deeper, "") if deeper in PATHS else (base or "__init__", alias.name))
    return found


def _ours(name: str) -> bool:
    return name.split(".")[0] == "ipodyn"


def wing(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", PATHS)
def test_imports_go_down(name):
    assert wing(name) in RANK, f"{name} stands in no wing: add its wing to WINGS in tests/test_layers.py"
    wrong = {other for other, _ in imports(name) if wing(other) != wing(name) and RANK[wing(other)] > RANK[wing(name)]}
    assert not wrong, f"{name} imports from above: {sorted(wrong)}"


@pytest.mark.parametrize("name", PATHS)
def test_private_names_stay_at_home(name):
    private = {f"{other}.{what}" for other, what in imports(name) if what.startswith("_") and not what.endswith("__")}
    assert not private, f"{name} imports private names: {sorted(private)}"


def test_the_paper_is_reproduced_with_what_everyone_has():
    """The experiments import the public face and the pictures alone: they show what a user can do.

    How files are written is no part of them.
    """
    for name in PATHS:
        if wing(name) == "_reproduce":
            wrong = {other for other, _ in imports(name) if wing(other) not in ("__init__", "plot", "_reproduce")}
            wrong -= {"_numerics.files"}
            assert not wrong, f"{name} imports {sorted(wrong)}: take them from the public face"


def test_no_circle():
    """Modules can be put in an order in which each imports only from those before it."""
    below = {name: {other for other, _ in imports(name) if other != name and other in PATHS} for name in PATHS}
    while below:
        ready = {name for name, others in below.items() if not others & below.keys()}
        assert ready, f"these import one another in a circle: {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in ready}


def test_the_house_is_small():
    """Someone new guesses the right file: few rooms, each of a size that fits in the head."""
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 20
    long = {name: lines for name, path in PATHS.items() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long, f"split these by noun: {long}"


LONGEST = 60  # lines of a function, its docstring apart


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From its first line (that of `def`) to its last, less the docstring."""
    assert function.end_lineno is not None
    first = function.body[0]
    said = ast.get_docstring(function) is not None and first.end_lineno is not None
    docstring = first.end_lineno - first.lineno + 1 if said else 0  # pyright: ignore[reportOptionalOperand]
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_are_short():
    long = {}
    for name, path in PATHS.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > LONGEST:
                long[f"{name}.{node.name}"] = lines(node)
    assert not long, f"split these, each part by what it does: {long}"


def test_lines_of_a_function_are_counted_without_its_docstring():
    source = 'def f(\n    x,\n):\n    """One.\n\n    Two.\n    """\n\n    # why\n    return x\n'
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef) and lines(function) == 6


def test_import_is_light_and_changes_nothing():
    """Importing starts no backend, changes no configuration, and leaves the heavy optional libraries alone."""
    program = """
import sys, jax
before = dict(jax.config.values)
import ipodyn
from jax._src import xla_bridge
assert not xla_bridge._backends, "the import started a backend"
changed = [name for name, value in before.items() if jax.config.values[name] != value]
assert not changed, changed
heavy = {"optax", "optimistix", "lineax", "scipy.optimize", "polars", "xarray", "zarr", "matplotlib", "typer", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
