"""Attacks on the store of a map: processes killed while they write, whole commands killed, single bytes damaged.

    python -m benchmarks.attacks.store --kills 1000 --damages 200 --commands 50

After every kill what counts as finished must be right, and what is not must be missing; after every damage the same
command must end with the files of the undamaged run, or refuse in one line. Ends with a count of what was seen, and
with exit code 1 if anything was not so.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ipodyn import plot
from ipodyn._cli.app import run
from ipodyn._maps import store as _store
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem
from ipodyn._maps.store import Store

MATRICES, PER_PIECE = 48, 2
JOB = ["map", "--problem", "random", "--alpha", "0:0.9:2", "--beta", "1:9:3", "--rounds", "60"]


def stubbed() -> tuple[MapProblem, Callable[[int, int], dict[str, np.ndarray]]]:
    """A map and what stands in for its computation: random numbers that stay the same."""
    problem = MapProblem.of(Grid.of(np.full((MATRICES, 2, 2), 0.5, np.float32), alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0]))
    draw = np.random.default_rng(0)
    fields = {name: (9 * draw.random(problem.shape)).astype(dtype) for name, dtype in problem.dtypes.items()}
    problem = _Stub(*(getattr(problem, field.name) for field in dataclasses.fields(problem)))
    return problem, lambda first, stop: {name: x[first:stop] for name, x in fields.items()}


def _load() -> None:
    """Here, not in every fork: modules that start no thread before they are used."""
    for module in ("zarr.codecs", "zarr.storage", "xarray", "matplotlib.backends.backend_agg"):
        importlib.import_module(module)


class _Stub(MapProblem):
    """Asks JAX for no devices, so that a fork has none to start."""

    def attributes(self) -> dict[str, str]:
        return {"ipodyn_version": "of the attack"}


def _write_for_ever(folder: pathlib.Path, failures: pathlib.Path, writing: int) -> None:
    """What is killed: check all that is there, then write; begin anew when the map is complete."""
    problem, compute = stubbed()
    whole = compute(0, MATRICES)
    first = True
    try:
        while True:
            store = Store.open(folder, problem)
            missing = store.missing()
            if store.pending() != missing:
                failures.write_text(f"a finished region is damaged: {store.pending()} and {missing}")
                return
            for region in missing:
                if first:
                    os.write(writing, b"w")
                    first = False
                store.write(region, compute)
            found = store.load()
            if not all(np.array_equal(found[name].values, values) for name, values in whole.items()):
                failures.write_text("a complete map holds other numbers")
                return
            shutil.rmtree(folder)
    except BaseException as error:
        failures.write_text(repr(error))


def kills(count: int, folder: pathlib.Path, seed: int = 0) -> dict[str, int]:
    """Kill a process that writes a store, again and again, at random moments of its writing."""
    _store.POINTS_PER_PIECE, _store.MOST_REGIONS = 6 * PER_PIECE, MATRICES // (2 * PER_PIECE)
    draw, seen = random.Random(seed), collections.Counter()
    run_folder, failures = folder / "run", folder / "failures"
    _load()
    for _ in range(count):
        begun, writing = os.pipe()
        # A fork has all modules loaded; no thread of JAX or Zarr runs in this process.
        child = os.fork()
        if child == 0:
            _write_for_ever(run_folder, failures, writing)
            os._exit(0)
        os.close(writing)
        os.read(begun, 1)  # also returns if the child ended
        os.close(begun)
        time.sleep(draw.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if failures.exists() or not os.WIFSIGNALED(status):
            words = failures.read_text() if failures.exists() else f"ended with {status}"
            raise AssertionError(f"after {seen['kills']} kills: {words}")
        seen["kills"] += 1
        names = os.listdir(run_folder) if run_folder.exists() else []
        seen["left an unfinished file"] += any(name.startswith(".unfinished-") for name in names)
        seen["left an incomplete map"] += "regions" in names
    return dict(seen)


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _meaning(name: str, content: bytes) -> object:
    """Of manifest and marks what they say; spaces between are nothing."""
    return json.loads(content) if name == "run.json" or name.startswith("regions/") else content


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """What a command says goes here."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        yield said


def damages(count: int, folder: pathlib.Path, seed: int = 0) -> dict[str, int]:
    """Change one byte of one file of a finished map, and run the same command again."""
    _store.POINTS_PER_PIECE, _store.MOST_REGIONS = 12, 4
    compute, picture = MapProblem.compute, plot.stability_map
    draw, seen = random.Random(seed), collections.Counter()
    known: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def remembered(self: MapProblem, first: int, stop: int, **options: object) -> dict[str, np.ndarray]:
        if (first, stop) not in known:
            known[first, stop] = compute(self, first, stop)
        return known[first, stop]

    MapProblem.compute = remembered  # pyright: ignore[reportAttributeAccessIssue]
    plot.stability_map = lambda dataset: plot.simplex(np.full((1, 3), 1 / 3))
    command = [*JOB, "--limit", "16", "--out", str(folder / "map")]
    try:
        with _quiet():
            assert run(command) == 0
        whole = _files(folder / "map")
        for _ in range(count):
            name = draw.choice(sorted(whole))
            damaged = bytearray(whole[name])
            damaged[draw.randrange(len(damaged))] ^= draw.randrange(1, 256)
            (folder / "map" / name).write_bytes(damaged)
            with _quiet() as said:
                code = run(command)
            seen["damages"] += 1
            if code == 0:
                found = _files(folder / "map")
                wrong = [key for key in whole if _meaning(key, found.get(key, b"{}")) != _meaning(key, whole[key])]
                assert not wrong and found.keys() == whole.keys(), f"{name} was damaged, and {wrong} are changed"
                seen["restored" if found == whole else "harmless"] += 1
            else:
                words = said.getvalue()
                assert code == 2 and words.count("\n") == 1 and name == "run.json", f"{name}: {code} {words}"
                seen["refused in one line"] += 1
            (folder / "map" / name).write_bytes(whole[name])
    finally:
        MapProblem.compute, plot.stability_map = compute, picture
    return dict(seen)


def commands(count: int, folder: pathlib.Path, seed: int = 0) -> dict[str, int]:
    """Kill whole commands at random moments, from their first file on; in the end the map is as if nothing had been."""
    draw, seen = random.Random(seed), collections.Counter()
    _store.POINTS_PER_PIECE = 1
    plot.stability_map = lambda dataset: plot.simplex(np.full((1, 3), 1 / 3))
    _load()

    def start(out: str) -> int:
        """The command in a fork, which has all modules loaded and starts JAX by itself."""
        child = os.fork()
        if child == 0:
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
                os._exit(run([*JOB, "--limit", str(4 * count), "--out", str(folder / out)]))
        return child

    def ended(child: int, options: int = 0) -> int | None:
        """Exit code, the negative of the signal, or None while it runs."""
        found, status = os.waitpid(child, options)
        return os.waitstatus_to_exitcode(status) if found else None

    def finished() -> int:
        return len(list((folder / "killed").glob("regions/[0-9]*.json")))

    assert ended(start("whole")) == 0
    for _ in range(count):
        child, least = start("killed"), finished() + draw.choice([0, 1, 1, 2, 3])
        code = None
        while code is None and not ((folder / "killed" / "run.json").exists() and finished() >= least):
            time.sleep(0.001)
            code = ended(child, os.WNOHANG)
        if code is None:
            time.sleep(draw.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            code = ended(child)
        seen["commands killed"] += code == -signal.SIGKILL
    kept = finished()
    assert ended(start("killed")) == 0
    seen["regions kept"], seen["regions"] = kept, finished()
    one, other = _files(folder / "whole"), _files(folder / "killed")
    own = {"run.json", "map.zarr/zarr.json", "report.txt"}  # date and name of the run
    alike = [name for name in one if name not in own and not name.startswith("regions/")]
    assert all(one[name] == other[name] for name in alike)
    return dict(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for attack in (kills, damages, commands):
        parser.add_argument(f"--{attack.__name__}", type=int, default=0, help=(attack.__doc__ or "").split(",")[0])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for attack in (kills, commands, damages):  # damages last: the others fork, and nothing may run in threads before
        if count := getattr(asked, attack.__name__):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                seen = attack(count, pathlib.Path(folder), asked.seed)
            print(f"{attack.__name__}: {seen} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
