"""The command line as processes of its own, for tests that kill, share and connect them."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import zarr

# Small regions, so that small maps have many; a small picture, since it is not looked at; Ctrl-C as in a terminal, even
# if the tests run in the background.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import ipodyn._maps.store
ipodyn._maps.store.POINTS_PER_PIECE = {points}
ipodyn.plot.stability_map = lambda dataset: ipodyn.plot.simplex([[0.5, 0.3, 0.2]])
from ipodyn._cli import main
main()
"""


def start(arguments, folder: pathlib.Path, *, points: int) -> subprocess.Popen:
    """`ipodyn` with these arguments; compiled programs are kept in `folder` for the next process."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(points=points), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **cache},
    )


def finish(process: subprocess.Popen, seconds: float = 200) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that is to end by itself."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a map."""
    group = zarr.open_group(folder / "map.zarr", mode="r")
    return {name: np.asarray(array) for name, array in group.arrays()}


def assert_identical(one: pathlib.Path, other: pathlib.Path) -> None:
    """Bit for bit the same arrays, descriptions and tables; only dates, devices and the cut into chunks may differ."""
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys() and "regime" in first
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes(), name
    assert described(one) == described(other)
    for name in ("summary.csv", "matrices.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def described(folder: pathlib.Path) -> dict:
    group = zarr.open_group(folder / "map.zarr", mode="r")
    attributes = {key: value for key, value in group.attrs.items() if key not in ("created", "device")}
    return attributes | {name: dict(array.attrs) for name, array in group.arrays()}
