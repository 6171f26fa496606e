"""Does the memory of `ipodyn map` stay where it is as maps grow? The whole command, its computation stubbed.

    python -m benchmarks.attacks.large_map --cells 1000000 10000000 100000000

Each size is a process of its own, which fills a store, reads it back, and writes the tables and the picture. Prints
the largest memory that it held, when its store was full and at the end.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

SIDE = 20  # alphas and betas


def _peak() -> int:
    """Largest memory of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _run(cells: int, folder: pathlib.Path) -> dict[str, float]:
    from ipodyn._cli.app import run
    from ipodyn._cli.map import MapCommand
    from ipodyn._maps.stability_map import MapProblem

    draw = np.random.default_rng(0)
    A = draw.uniform(-0.5, 0.5, (max(1, cells // SIDE**2), 3, 3)).astype(np.float32)
    np.save(folder / "P.npy", 0.5 + (A - A.swapaxes(1, 2)) / 2)
    pool = draw.random((1 << 20) + (1 << 18), np.float32)
    seen: dict[str, float] = {"cells": len(A) * SIDE**2}

    def compute(self: MapProblem, first: int, stop: int, **options: object) -> dict[str, np.ndarray]:
        size, fields = (stop - first) * SIDE**2, {}
        for number, (name, dtype) in enumerate(self.dtypes.items()):
            start = (first * SIDE**2 + number) % (pool.size - size)
            values = pool[start : start + size].reshape(stop - first, SIDE, SIDE)
            fields[name] = (3 * values).astype(dtype) if dtype.kind == "i" else 2 * values
        return fields

    write = MapCommand._write

    def written(self: MapCommand, *arguments: object) -> None:
        seen["peak of writing the store, MiB"] = _peak()
        began = time.monotonic()
        write(self, *arguments)  # pyright: ignore[reportArgumentType]
        seen["seconds of tables and picture"] = round(time.monotonic() - began)

    MapProblem.compute = compute  # pyright: ignore[reportAttributeAccessIssue]
    MapCommand._write = written  # pyright: ignore[reportAttributeAccessIssue]
    grid = ["--alpha", f"0:0.95:{SIDE}", "--beta", f"0.5:10:{SIDE}"]
    began = time.monotonic()
    assert run(["map", "--preferences", str(folder / "P.npy"), *grid, "--out", str(folder / "map")]) == 0
    seen["peak at the end, MiB"] = _peak()
    seen["seconds in all"] = round(time.monotonic() - began)
    seen["files"] = sum(path.is_file() for path in (folder / "map").rglob("*"))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for cells in asked.cells:
        if asked.here:
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(_run(cells, pathlib.Path(folder))))
        else:
            command = [sys.executable, "-m", "benchmarks.attacks.large_map", "--here", "--cells", str(cells)]
            done = subprocess.run(command, capture_output=True, text=True)
            print(done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr, flush=True)


if __name__ == "__main__":
    main()
