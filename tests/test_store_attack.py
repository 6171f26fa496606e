"""The attacks of `benchmarks.attacks.store` on a small scale."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("zarr")


@pytest.mark.slow
def test_kills_and_damages():
    """Processes killed while they write, and single damaged bytes: all finished regions right, all damage noticed."""
    command = [sys.executable, "-m", "benchmarks.attacks.store", "--kills", "25", "--damages", "15", "--seed", "1"]
    clone = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=clone)
    assert done.returncode == 0, done.stderr
    assert "kills: {'kills': 25" in done.stdout and "damages: {'damages': 15" in done.stdout
