"""The package is read in layers: a module imports only from the layers before its own."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "ipodyn"

# Reading order. Modules on one line do not import one another.
LAYERS = [
    {"_types", "_cpu"},
    {"_results"},
    {"_simplex", "_linear", "_starts", "_double"},
    {"_preferences", "_structure", "_matrix_game", "_sampler_lp"},
    {"problems", "_axioms", "_voting", "_hodge", "_sampler"},
    {"_bradley_terry", "_intervals", "_sampler_variants"},
    {"_objectives", "_sequential"},
    {"_losses", "_empirical", "_sequential_runs"},
    {"_gradient_optimum", "_loop", "_sampling_sensitivity", "_concentration", "_witness"},
    {"_chunk_kernel"},
    {"_newton_path", "recipes", "_violation"},
    {"_certificate"},
    {"_growth", "_fixed_point"},
    {"_rollout"},
    {"_regimes", "_stability"},
    {"_critical", "_covariance"},
    {"_boundary"},
    {"_safe_region", "_tune", "_audit"},
    {"_engine", "_grid"},
    {"_stability_map", "_sweep", "_map_statistics", "_place", "_shards"},
    {"_finite", "_uncertain"},
    {"_detection", "_prompts"},
    {"_recommendation"},
    {"_diagnosis"},
    {"_store"},
    {"data"},
    {"_report_html"},
    {"plot"},
    {"_reproduce"},
    {"_cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> set[str]:
    """The layers that a module imports when it is loaded or run, relative or absolute."""
    found = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ipodyn."):
            found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    if path == PACKAGE / "__init__.py":
        return
    own = layer_of(path)
    assert own in RANK, f"{own} has no layer: add it to LAYERS in tests/test_layers.py"
    upward = {name for name in imported(path) - {own} if RANK.get(name, -1) >= RANK[own]}
    assert not upward, f"{own} imports from its own layer or a later one: {sorted(upward)}"


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
