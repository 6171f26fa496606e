"""A resumable store of one stability map: Zarr arrays filled region by region, and a manifest of what the run is.

    folder/run.json            what the run is: its parameters and a hash of its inputs
    folder/map.zarr            the fields; one chunk along `matrix` per region, so that writers never share a chunk
    folder/regions/00012.json  written last: region 12 is finished, with checksums of its fields

Any number of processes may fill one store; each region is written whole by whoever takes it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import uuid
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._stability_map import MapProblem, variable_attributes

if TYPE_CHECKING:
    import xarray
    import zarr

FORMAT = 1
POINTS_PER_REGION = 1 << 18
SCRATCH = ".unfinished-"  # what a killed process may leave behind under such a name is nobody's


@dataclasses.dataclass(frozen=True)
class Region:
    """The matrices first .. stop - 1 of a map."""

    index: int
    first: int
    stop: int


def fingerprint(problem: MapProblem) -> str:
    """A hash of everything that decides the numbers: the arrays, their dtype, the objective, rounds, thresholds."""
    digest = hashlib.sha256()
    grid = problem.grid
    for array in (grid.P, grid.alpha, grid.beta, grid.lam, grid.pi_ref, grid.pi_0, grid.policy0):
        host = np.asarray(array)
        digest.update(f"{host.dtype}{host.shape}".encode())
        digest.update(np.ascontiguousarray(host).tobytes())
    digest.update(repr((grid.objective, problem.settings, sorted(problem.variables()))).encode())
    return digest.hexdigest()


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Written under another name and renamed, so that a reader never sees half of it."""
    scratch = path.with_name(f"{SCRATCH}{path.name}.{uuid.uuid4().hex}")
    with open(scratch, "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Store:
    """The folder of one run; `Store.open` creates it, continues it, or refuses it."""

    def __init__(self, folder: pathlib.Path, problem: MapProblem):
        self.folder = folder
        self.problem = problem
        per_region = max(1, POINTS_PER_REGION // problem.grid.points_per_matrix)
        starts = range(0, problem.num_matrices, per_region)
        self.regions = [
            Region(index, first, min(first + per_region, problem.num_matrices)) for index, first in enumerate(starts)
        ]
        self.per_region = per_region

    @classmethod
    def open(cls, folder: str | os.PathLike[str], problem: MapProblem) -> "Store":
        """Create the store of this problem, or continue one of the same problem.

        Raises `ValueError` with one line if the folder holds another run or files that are not of a run.
        """
        folder = pathlib.Path(folder)
        store = cls(folder, problem)
        manifest = {
            "format": FORMAT,
            "hash": fingerprint(problem),
            "ipodyn_version": problem.attributes()["ipodyn_version"],
            "matrices_per_region": store.per_region,
            "num_regions": len(store.regions),
            "attributes": problem.attributes(),
        }
        run_file = folder / "run.json"
        if run_file.exists():
            store._check_same(run_file, manifest)
        elif folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; name a folder for the outputs.")
        elif folder.exists() and any(not path.name.startswith(SCRATCH) for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no run of ipodyn; name another folder for the outputs.")
        # The manifest comes first: whenever the process dies, the folder is either empty or known to be this run's.
        folder.mkdir(parents=True, exist_ok=True)
        if not run_file.exists():
            _write_json(run_file, manifest)
        (folder / "regions").mkdir(exist_ok=True)
        store._create_arrays()
        return store

    def _check_same(self, run_file: pathlib.Path, manifest: Mapping[str, Any]) -> None:
        try:
            found = json.loads(run_file.read_text())
        except (OSError, json.JSONDecodeError):
            raise ValueError(f"{run_file} cannot be read as a manifest; name another folder for the outputs.") from None
        for key, what in (("format", "format"), ("ipodyn_version", "version of ipodyn"), ("hash", "inputs")):
            if found.get(key) != manifest[key]:
                raise ValueError(
                    f"{self.folder} holds another run (different {what}); name another folder for the outputs, "
                    "or repeat the options of that run to continue it."
                )

    def _create_arrays(self) -> None:
        """Make the empty arrays beside their place and rename them into it: whoever is first wins, all agree."""
        place = self.folder / "map.zarr"
        if place.exists():
            return
        import zarr

        scratch = self.folder / f"{SCRATCH}map.{uuid.uuid4().hex}.zarr"
        group = zarr.create_group(scratch, attributes=_plain(self.problem.attributes()))
        dimensions = ("matrix", "alpha", "beta")
        for name, dtype in self.problem.variables().items():
            group.create_array(
                name,
                shape=self.problem.shape,
                chunks=(self.per_region, *self.problem.shape[1:]),
                dtype=dtype,
                fill_value=-1 if dtype.kind == "i" else np.nan,
                dimension_names=dimensions,
                attributes=_plain(variable_attributes(name)),
            )
        for name, (dimension, values, attributes) in self.problem.coordinates().items():
            axis = group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                dimension_names=(dimension,),
                attributes=_plain(attributes),
            )
            axis[...] = values
        try:
            os.rename(scratch, place)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            if not place.exists():
                raise

    def _arrays(self) -> "zarr.Group":
        import zarr

        return zarr.open_group(self.folder / "map.zarr", mode="r+")

    def _mark(self, region: Region) -> pathlib.Path:
        return self.folder / "regions" / f"{region.index:05d}.json"

    def pending(self) -> list[Region]:
        """Regions that are missing, or whose chunks no longer agree with their checksums."""
        return [region for region in self.regions if not self._finished(region)]

    def _finished(self, region: Region) -> bool:
        try:
            sums = json.loads(self._mark(region).read_text())["sha256"]
            group = self._arrays()
            return all(
                _checksum(np.asarray(group[name][region.first : region.stop])) == sums[name]  # pyright: ignore
                for name in self.problem.variables()
            )
        except Exception:  # a truncated chunk fails in as many ways as there are codecs; all mean: compute it again
            return False

    def write(self, region: Region, fields: Mapping[str, np.ndarray]) -> None:
        """Write all fields of a region, then its mark."""
        group = self._arrays()
        for name in self.problem.variables():
            group[name][region.first : region.stop] = fields[name]  # pyright: ignore[reportArgumentType, reportIndexIssue]
        sums = {name: _checksum(fields[name]) for name in self.problem.variables()}
        _write_json(self._mark(region), {"first": region.first, "stop": region.stop, "sha256": sums})

    def load(self) -> "xarray.Dataset":
        """The whole map as a labelled dataset, as far as it is finished (NaN and -1 elsewhere)."""
        import xarray

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's notes on format details are not the user's concern
            with xarray.open_zarr(self.folder / "map.zarr", consolidated=False, chunks=None) as dataset:
                return dataset.load()


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON knows them."""
    return json.loads(json.dumps(attributes, default=str))
