"""The store continues where it stopped, never mixes runs, and notices whatever is damaged."""

import dataclasses
import errno
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

import ipodyn
import ipodyn._maps.place
import ipodyn._maps.store
from ipodyn._maps import stability_map
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.grid import Grid
from ipodyn._maps.place import Folder
from ipodyn._maps.stability_map import MapProblem, as_dataset
from ipodyn._maps.store import Damaged, Store
from ipodyn._numerics.files import SCRATCH

xarray = pytest.importorskip("xarray")
pytest.importorskip("zarr")


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(ipodyn._maps.store, "POINTS_PER_PIECE", 24)
    P = jax.vmap(lambda key: ipodyn.problems.random(key, 3))(jax.random.split(jax.random.key(1), 10))
    return MapProblem.of(Grid.of(P, alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0], lam=0.8), Request(num_steps=60))


@pytest.fixture
def in_pieces(monkeypatch):
    """Regions of two pieces, as the largest maps have many of."""
    monkeypatch.setattr(ipodyn._maps.store, "MOST_REGIONS", 2)


def fill(store, at_most=None):
    for region in store.pending()[:at_most]:
        store.write(region, store.problem.compute)


def opened(folder):
    with xarray.open_zarr(folder / "map.zarr", consolidated=False, chunks=None) as dataset:
        return dataset.load()


def assert_complete(store, problem):
    """The store and, independently of it, xarray with zarr read what is computed directly."""
    direct = as_dataset(problem, problem.compute())
    for found in (store.load(), opened(store.place.folder)):
        assert set(found.data_vars) == set(direct.data_vars)
        for name in direct.data_vars:
            np.testing.assert_array_equal(found[name].values, direct[name].values)
            assert found[name].attrs == direct[name].attrs
            assert found[name].dtype == direct[name].dtype
        for name in direct.coords:
            np.testing.assert_array_equal(found[name].values, direct[name].values)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fills_and_loads(problem, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    assert [region.stop - region.first for region in store.regions] == [4, 4, 2]
    fill(store)
    assert store.pending() == store.missing() == []
    assert_complete(store, problem)
    assert store.load().attrs["num_steps"] == 60


def test_regions_of_several_pieces(problem, in_pieces, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    assert [store.pieces(region) for region in store.regions] == [[(0, 4), (4, 8)], [(8, 10)]]
    fill(store)
    assert_complete(store, problem)


def test_continues_where_it_stopped(problem, tmp_path):
    fill(Store.open(tmp_path / "run", problem), at_most=2)
    again = Store.open(tmp_path / "run", problem)
    assert [region.index for region in again.pending()] == [region.index for region in again.missing()] == [2]
    unfinished = again.load()
    assert np.isnan(unfinished.variance.values[8:]).all() and (unfinished.regime.values[8:] == -1).all()
    fill(again)
    assert_complete(again, problem)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "append", "other region"])
def test_a_damaged_shard_is_computed_again(problem, tmp_path, damage):
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    shard = tmp_path / "run" / "map.zarr" / "entropy" / "c" / "1" / "0" / "0"
    content = shard.read_bytes()
    if damage == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        shard.write_bytes(content[:-8] + bytes(255 - byte for byte in content[-8:]))
    elif damage == "append":
        shard.write_bytes(content + b"x")
    elif damage == "other region":  # a sound shard, with sound checksums, of other numbers
        shard.write_bytes((shard.parents[2] / "0" / "0" / "0").read_bytes())
    else:
        shard.unlink()
    again = Store.open(tmp_path / "run", problem)
    assert [region.index for region in again.pending()] == [1]
    with pytest.raises(Damaged, match="region 1 is damaged"):
        again.load()
    fill(again)
    assert_complete(again, problem)


def test_a_half_written_mark_does_not_count(problem, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    mark = tmp_path / "run" / "regions" / "00000.json"
    mark.write_text(mark.read_text()[:20])
    assert [region.index for region in Store.open(tmp_path / "run", problem).pending()] == [0]


def test_the_mark_of_another_region_does_not_count(problem, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    marks = tmp_path / "run" / "regions"
    (marks / "00000.json").write_bytes((marks / "00001.json").read_bytes())
    assert [region.index for region in store.pending()] == [0]


@pytest.mark.parametrize("name", ["alpha/c/0", "beta/c/0", "matrix/c/0", "radius/zarr.json", "zarr.json", "alpha"])
def test_descriptions_and_coordinates_are_restored(problem, tmp_path, name):
    """They follow from the manifest: absent or changed, they are written again as they were."""
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    before = files(tmp_path / "run")
    path = tmp_path / "run" / "map.zarr" / name
    if path.is_dir():
        for part in sorted(path.rglob("*"), reverse=True):
            part.rmdir() if part.is_dir() else part.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert files(tmp_path / "run") != before
    assert Store.open(tmp_path / "run", problem).pending() == []
    assert files(tmp_path / "run") == before


def test_a_damaged_manifest_is_one_line(problem, tmp_path):
    """Nothing that it says is believed: neither the attributes nor how the map is cut."""
    Store.open(tmp_path / "run", problem)
    manifest = tmp_path / "run" / "run.json"
    content = manifest.read_text()
    for old, new in (('"num_steps": 60', '"num_steps": 61'), ('"pieces_per_region": 1', '"pieces_per_region": 3')):
        assert old in content
        manifest.write_text(content.replace(old, new))
        with pytest.raises(ValueError, match=r"run\.json is damaged; name another folder") as error:
            Store.open(tmp_path / "run", problem)
        assert "\n" not in str(error.value)


def test_single_bytes_anywhere(problem, in_pieces, tmp_path):
    """Of single damaged bytes, wherever they lie, each is refused, mended, or of no consequence."""
    folder = tmp_path / "run"
    fill(Store.open(folder, problem))
    before, draw = files(folder), random.Random(0)
    direct = as_dataset(problem, problem.compute())
    for _ in range(12):
        name = draw.choice(sorted(before))
        damaged = bytearray(before[name])
        damaged[draw.randrange(len(damaged))] ^= draw.randrange(1, 256)
        (folder / name).write_bytes(damaged)
        try:
            store = Store.open(folder, problem)
            fill(store)
            for found in store.load(), opened(folder):
                xarray.testing.assert_equal(found, direct)
        except ValueError as error:
            assert name == "run.json" and "\n" not in str(error)
        (folder / name).write_bytes(before[name])


def test_two_writers_fill_one_store(tmp_path):
    """Two processes open one store at once and fill a half each, at the same time."""
    program = """
import sys
import numpy as np
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem
from ipodyn._maps.store import Store
problem = MapProblem.of(Grid.of(np.full((10, 2, 2), 0.5), alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0]))
random = np.random.default_rng(0)
fields = {name: (9 * random.random(problem.shape)).astype(dtype) for name, dtype in problem.dtypes.items()}
print("ready", flush=True)
sys.stdin.readline()
store = Store.open(sys.argv[1], problem, parts=10)
for _ in range(5):
    for region in store.regions_of(int(sys.argv[2]), 2):
        store.write(region, lambda first, stop: {name: x[first:stop] for name, x in fields.items()})
print(store.run)
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "run"), str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    runs = {writer.communicate(timeout=100)[0] for writer in writers}
    assert [writer.returncode for writer in writers] == [0, 0] and len(runs) == 1
    problem = MapProblem.of(Grid.of(np.full((10, 2, 2), 0.5, np.float32), alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0]))
    store = Store.open(tmp_path / "run", problem)
    assert len(store.regions) == 10 and store.pending() == []
    found, random = store.load(), np.random.default_rng(0)
    for name, dtype in problem.dtypes.items():
        np.testing.assert_array_equal(found[name].values, (9 * random.random(problem.shape)).astype(dtype))
    assert set(os.listdir(tmp_path / "run")) == {"run.json", "map.zarr", "regions"}


@pytest.mark.parametrize("refused", ["entropy", "variance", "regime", "regions"])
def test_a_full_disk_leaves_nothing_unfinished(problem, tmp_path, monkeypatch, refused):
    """Whichever file it is that finds no room: what is finished stays, and the region at work counts as missing."""
    folder = tmp_path / "run"
    store = Store.open(folder, problem)
    fill(store, at_most=1)
    before, put = files(folder), Folder._put

    def full(self, scratch, key):
        if f"/{refused}/" in f"/{key}":
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, scratch, key)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_put", full)
        with pytest.raises(OSError, match="No space left"):
            store.write(store.regions[1], problem.compute)
    assert [region.index for region in store.missing()] == [region.index for region in store.pending()] == [1, 2]
    after = files(folder)
    assert before.items() <= after.items() and not any(name.startswith(SCRATCH) for name in after)
    fill(Store.open(folder, problem))
    assert_complete(store, problem)


def test_a_limit_on_the_size_of_files(problem, tmp_path):
    """The same with a limit that the system sets: writing stops in the middle of a shard."""
    program = """
import resource, sys
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem
from ipodyn._maps.store import Store
grid = Grid.of(np.full((4000, 2, 2), 0.5), alpha=[0.1, 0.9], beta=[0.5, 2.0])
problem = MapProblem.of(grid, Request(analytic=False))
random = np.random.default_rng(0)
store = Store.open(sys.argv[1], problem)
fields = {name: random.random(problem.shape).astype(dtype) for name, dtype in problem.dtypes.items()}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    store.write(store.regions[0], lambda first, stop: {name: x[first:stop] for name, x in fields.items()})
except OSError as error:
    print(error.strerror, len(store.missing()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "File too large 1\n", done.stderr
    assert not [name for name in files(tmp_path / "run") if SCRATCH in name or "/c/0/0/0" in name]


def test_what_killed_writers_leave_is_swept(problem, tmp_path, monkeypatch):
    """Old files of nobody go when the run is next opened; fresh ones and locked ones may be somebody's."""
    folder = tmp_path / "run"
    Store.open(folder, problem)
    for name in ("old", "old.json", "fresh.json"):
        (folder / f"{SCRATCH}{name}").write_text("half a")
    hour_ago = time.time() - 3600
    for name in ("old", "old.json"):
        os.utime(folder / f"{SCRATCH}{name}", (hour_ago, hour_ago))
    place = Folder(folder)
    with place.writer("big") as writer:
        writer.write(b"x")
        for name in os.listdir(folder):
            if name.startswith(SCRATCH) and "old" not in name and "fresh" not in name:
                os.utime(folder / name, (hour_ago, hour_ago))
        Store.open(folder, problem)
    assert place.read("big") == b"x"
    assert [name for name in os.listdir(folder) if name.startswith(SCRATCH)] == [f"{SCRATCH}fresh.json"]


def _changed(problem, what):
    grid = problem.grid
    options = {"alpha": grid.alpha, "beta": grid.beta, "lam": float(grid.lam)}
    request: dict[str, Any] = {"num_steps": 60}
    P = grid.P.copy()
    skewed = np.array([0.5, 0.3, 0.2])
    if what == "one entry":
        P[3, 0, 1] += 1e-9
        P[3, 1, 0] -= 1e-9
    elif what == "dtype":
        P = P.astype(np.float32)
    else:
        (request if what in ("num_steps", "thresholds") else options)[what] = {
            "alpha": [0.1, 0.8],
            "beta": [0.5, 2.0, 4.1],
            "lam": 0.7,
            "num_steps": 61,
            "thresholds": ipodyn.RegimeThresholds(collapse_fraction=0.2),
            "objective": ipodyn.DPO(),
            "pi_ref": skewed,
            "pi_0": skewed,
            "policy0": skewed,
        }[what]
    if what == "pi_0":
        options["policy0"] = grid.policy0  # the start stays, whatever it follows by default
    return MapProblem.of(Grid.of(P, **options), Request(**request))


DECISIVE = ["one entry", "dtype", "thresholds", "objective", "alpha", "beta", "lam", "num_steps", "pi_ref", "pi_0"]


@pytest.mark.parametrize("what", [*DECISIVE, "policy0"])
def test_another_run_is_refused_and_untouched(problem, tmp_path, what):
    fill(Store.open(tmp_path / "run", problem), at_most=1)
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another run \(different inputs\)") as error:
        Store.open(tmp_path / "run", _changed(problem, what))
    assert "\n" not in str(error.value)
    assert before == files(tmp_path / "run")


def test_the_run_of_another_version_is_refused(problem, tmp_path, monkeypatch):
    """Its numbers may be other ones; nor is a format believed that is not this one."""
    Store.open(tmp_path / "run", problem)
    with monkeypatch.context() as patch:
        patch.setattr(stability_map, "VERSION", "0.0.0")
        with pytest.raises(ValueError, match="different version of ipodyn"):
            Store.open(tmp_path / "run", problem)
    manifest = tmp_path / "run" / "run.json"
    old = {**json.loads(manifest.read_text()), "format": 1}
    del old["signature"]
    manifest.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="different format"):
        Store.open(tmp_path / "run", problem)


def test_foreign_folders_are_refused(problem, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds no run"):
        Store.open(tmp_path / "papers", problem)
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        Store.open(tmp_path / "file", problem)


def test_manifest_is_json_of_the_parameters(problem, tmp_path):
    Store.open(tmp_path / "run", problem)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["attributes"]["lam"] == 0.8 and len(manifest["hash"]) == 64


class _Marks(Folder):
    """A place of which only the names matter: what is written is forgotten, but for the manifest."""

    def __init__(self, folder):
        super().__init__(folder)
        self.written: set[str] = set()

    def write(self, key, content):
        self.written.add(key)

    def names(self, folder=""):
        top = f"{folder}/" if folder else ""
        return {name.removeprefix(top).partition("/")[0] for name in self.written if name.startswith(top)}


@pytest.mark.parametrize("M, cells", [(1_000_000, 1000), (100_000_000, 100)])
def test_a_map_of_a_million_million_cells(tmp_path, M, cells):
    """Its objects are few, and what is pending is known from the names of the marks alone."""
    small = MapProblem.of(Grid.of(np.full((2, 2, 2), 0.5), alpha=[0.1], beta=[0.5]))
    per_piece, pieces = ipodyn._maps.store.division(M, cells**2, 1)
    regions = -(-M // (per_piece * pieces))
    objects = regions * (len(small.variables) + 1)
    assert objects + 200 <= 20_000  # descriptions, coordinates and tables are not 200
    manifest = {"run": "x", "attributes": {}, "matrices_per_piece": per_piece, "pieces_per_region": pieces}

    class Large(MapProblem):
        num_matrices, shape = M, (M, cells, cells)  # pyright: ignore[reportAssignmentType]

    problem = Large(*(getattr(small, field.name) for field in dataclasses.fields(small)))
    store = Store(_Marks(tmp_path), problem, manifest)
    for region in store.regions[:-2]:
        store.place.write(store._mark(region), b"")
    assert store.missing() == store.regions[-2:]
    assert [store.regions[0].first, store.regions[-1].stop] == [0, M]


def test_a_grid_takes_no_memory_for_its_cells():
    """A map of 4e12 cells is described at once, in arrays that are as long as its axes."""
    axis = np.linspace(0.1, 0.9, 1_000_000)
    problem = MapProblem.of(Grid.of(np.full((4, 2, 2), 0.5), alpha=axis, beta=axis))
    assert problem.shape == (4, 1_000_000, 1_000_000)
    tile = problem.grid.tile(np.arange(4), 128)
    held = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves((problem.grid, tile)))
    assert held < 100 * axis.nbytes
