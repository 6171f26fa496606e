"""Every notebook runs from top to bottom in a process of its own, and says what its committed outputs say."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.slow

# How lines begin whose numbers a rerun must repeat: those that depend neither on the size of the run (tests make small
# ones) nor on the clock. Of notebooks on real data only where these are at hand.
COMPARED = {
    "1_start_here": (
        "TRL, IPO",
        "  alpha =",
        "  beta  =",
        "  lam   =",
        "Condorcet winner",
        "majority cycle",
        "Smith set",
        "cyclic share",
        "IPO at beta = 5",
        "DPO at beta = 5",
        "cyclic preferences",
        "the same at β = 5",
        "transitive preferences",
        "β = 1.5",
        "β = 5:",
        "measured in the rollout",
        "the radius reaches 1",
        "radius",
        "  thorough over concise",
        "  concise over friendly",
        "  friendly over thorough",
    ),
    "2_one_shot_sampling": ("all mass to the top", "last to last but one"),
    "5_own_data": ("a wrong name", "TRL, IPO", "online, IPO", "  alpha =", "  beta  =", "  lam   =", "kappa ="),
    "6_large_sweeps": ("same results", "regimes as computed here", "the same map as before"),
}
ON_REAL_DATA = {
    "2_one_shot_sampling": (
        "GPT-4 judging",
        "every P within",
        "matrix 18",
        "guanaco-65b ",
        "vicuna-13b ",
        "gpt-3.5 ",
        "gpt-4 ",
        "cyclic share of the energy",
        "  guanaco-65b >",
        "Bradley-Terry",
    ),
    "3_stability_maps": ("rows", "prompts", "matrices"),
    "4_sensitivities": (
        "rows",
        "prompts",
        "matrices",
        "64 matrices",
        "20 of 64 matrices",
        "largest omega",
        "19 matrices",
        "  pair named by the gradient",
        "  a random other pair",
        "beta up to",
    ),
    "5_own_data": ("P of oa-0", "[[0.5", " [0.5", "| oa-97 "),
}
NUMBER = re.compile(r"[+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
ROUNDING = 1e-6  # smaller numbers are errors made of roundings: the rerun's must be as small, not the same


def code_cells(path: pathlib.Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def printed(path: pathlib.Path) -> str:
    """What the committed cells print."""
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    return "\n".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")


def chosen(text: str, beginnings: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginnings)]


def unit(number: str) -> float:
    """The value of the last printed digit."""
    mantissa, _, exponent = number.partition("e")
    if exponent and not float(mantissa):
        return 0.0  # "0e+00" is nothing, not less than one
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def agree(line: str, other: str) -> bool:
    """The same words, and every number within one unit of its last printed digit, or both mere roundings."""
    numbers = [NUMBER.findall(text) for text in (line, other)]
    if NUMBER.sub("#", line).split() != NUMBER.sub("#", other).split() or len(numbers[0]) != len(numbers[1]):
        return False
    for a, b in zip(*numbers, strict=True):
        x, y = float(a.replace(",", "")), float(b.replace(",", ""))
        if abs(x - y) > 1.001 * max(unit(a), unit(b)) and max(abs(x), abs(y)) > ROUNDING:
            return False
    return True


def test_lines_agree_only_within_their_last_digit():
    assert agree("radius 0.913: stable, error 3e-17", "radius 0.914: stable, error 8e-16")
    assert not agree("radius 0.913: stable", "radius 0.915: stable")
    assert not agree("radius 0.913: stable", "radius 0.913: unstable")
    assert not agree("error 3e-17", "error 3e-05") and not agree("error 0e+00", "error 3e-05")
    assert not agree("[0.4209 0.3016]", "[0.4209 0.3016 0.2775]")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path):
    data = path.parents[2] / "shared" / "data"
    environment = os.environ | {"MPLBACKEND": "Agg", "IPODYN_NOTEBOOK_QUICK": "1", "IPODYN_DATA": str(data)}
    environment.pop("XLA_FLAGS", None)
    code = "\n\n".join("".join(cell["source"]) for cell in code_cells(path))
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    beginnings = COMPARED.get(path.stem, ()) + (ON_REAL_DATA.get(path.stem, ()) if data.is_dir() else ())
    recorded, found = chosen(printed(path), beginnings), chosen(run.stdout, beginnings)
    assert len(recorded) >= len(beginnings) and len(recorded) == len(found)
    assert not [pair for pair in zip(recorded, found, strict=True) if not agree(*pair)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_outputs_small_enough_to_read_on_a_code_host(path):
    cells = code_cells(path)
    assert any(cell["outputs"] for cell in cells)
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert path.stat().st_size < 600_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_tell_nothing_of_the_machine(path):
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    words = json.dumps([output.get("text", output.get("data", {}).get("text/plain")) for output in outputs])
    assert not [word for word in ("/tmp/", "/home/", "/root/", "site-packages", "Warning") if word in words]
