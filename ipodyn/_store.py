"""A resumable store of one stability map: Zarr arrays filled region by region, and a manifest of what the run is.

    folder/run.json            what the run is: its parameters and a hash of its inputs
    folder/map.zarr            the fields; one chunk along `matrix` per region, so that writers never share a chunk
    folder/regions/00012.json  written last: region 12 is finished, with checksums of its fields

Any number of processes may fill one store, on any number of machines: each region is written whole by whoever takes
it, and `Store.share` deals the regions out so that no two need to talk.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._stability_map import MapProblem, variable_attributes

if TYPE_CHECKING:
    import xarray
    import zarr

FORMAT = 1
# A region is the unit of work that a killed process loses and that many processes share: some dozens of them where the
# job is large, none so small that writing it would take as long as computing it.
POINTS_PER_REGION = 1 << 18
LEAST_POINTS_PER_REGION = 1 << 16
REGIONS = 64
SCRATCH = ".unfinished-"  # what a killed process may leave behind under such a name is nobody's
_DECISIVE = {"format": "format", "ipodyn_version": "version of ipodyn", "hash": "inputs"}


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


def matrices_per_region(problem: MapProblem, parts: int) -> int:
    """How many matrices make a region, if `parts` processes are to have something to do."""
    per_matrix, M = problem.grid.points_per_matrix, problem.num_matrices
    points = min(POINTS_PER_REGION, max(LEAST_POINTS_PER_REGION, M * per_matrix // REGIONS))
    return max(1, min(points // per_matrix, M // parts))


def _write_json(path: pathlib.Path, content: Mapping[str, Any], *, first: bool = False) -> None:
    """Written under another name and renamed, so that a reader never sees half of it; `first` keeps what is there."""
    scratch = path.with_name(f"{SCRATCH}{path.name}.{uuid.uuid4().hex}")
    with open(scratch, "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    try:
        if first:
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)  # unlike a rename it fails if another process was faster
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(scratch, path)
    else:
        if not first:
            os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Store:
    """The folder of one run; `Store.open` creates it, continues it, or refuses it."""

    def __init__(self, folder: pathlib.Path, problem: MapProblem, run: str, per_region: int):
        self.folder = folder
        self.problem = problem
        self.run = run  # what the run is called in its manifest: a name that no other run has
        self.per_region = per_region
        starts = range(0, problem.num_matrices, per_region)
        self.regions = [
            Region(index, first, min(first + per_region, problem.num_matrices)) for index, first in enumerate(starts)
        ]

    @classmethod
    def open(cls, folder: str | os.PathLike[str], problem: MapProblem, *, parts: int = 1) -> "Store":
        """Create the store of this problem, or continue one of the same problem; several processes may do so at once.

        `parts`: how many processes will share the regions, if known; it counts when the store is created. Raises
        `ValueError` with one line if the folder holds another run or files that are not of a run.
        """
        folder = pathlib.Path(folder)
        per_region = matrices_per_region(problem, parts)
        manifest = {
            "format": FORMAT,
            "hash": fingerprint(problem),
            "ipodyn_version": problem.attributes()["ipodyn_version"],
            "run": uuid.uuid4().hex,
            "matrices_per_region": per_region,
            "num_regions": -(-problem.num_matrices // per_region),
            "attributes": problem.attributes(),
        }
        run_file = folder / "run.json"
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; name a folder for the outputs.")
        foreign = folder.exists() and any(not path.name.startswith(SCRATCH) for path in folder.iterdir())
        if foreign and not run_file.exists():
            raise ValueError(f"{folder} is not empty and holds no run of ipodyn; name another folder for the outputs.")
        # The manifest comes first: whenever the process dies, the folder is either empty or known to be this run's.
        folder.mkdir(parents=True, exist_ok=True)
        if not run_file.exists():
            _write_json(run_file, manifest, first=True)
        # Whose manifest it is was decided just now or long ago; all go by the one that is there.
        store = cls(folder, problem, *_agreed(run_file, manifest))
        (folder / "regions").mkdir(exist_ok=True)
        store._create_arrays()
        return store

    def share(self, part: int, parts: int) -> list[Region]:
        """The regions of one of `parts` processes, `part` = 0 .. parts - 1; together they have each region once."""
        return self.regions[part::parts]

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

    @functools.cached_property
    def _arrays(self) -> "dict[str, zarr.Array]":
        import zarr

        group = zarr.open_group(self.folder / "map.zarr", mode="r+")
        return {name: group[name] for name in self.problem.variables()}  # pyright: ignore[reportReturnType]

    def _mark(self, region: Region) -> pathlib.Path:
        return self.folder / "regions" / f"{region.index:05d}.json"

    def pending(self, regions: Sequence[Region] | None = None) -> list[Region]:
        """Those of the regions (None: all) that are missing, or whose chunks no longer agree with their checksums."""
        return [region for region in self._of(regions) if not self._finished(region)]

    def missing(self, regions: Sequence[Region] | None = None) -> list[Region]:
        """Those of the regions (None: all) that nobody has finished; a glance, without reading what is there."""
        return [region for region in self._of(regions) if not self._mark(region).exists()]

    def _of(self, regions: Sequence[Region] | None) -> Sequence[Region]:
        return self.regions if regions is None else regions

    def _finished(self, region: Region) -> bool:
        try:
            sums = json.loads(self._mark(region).read_text())["sha256"]
            return all(
                _checksum(np.asarray(array[region.first : region.stop])) == sums[name]
                for name, array in self._arrays.items()
            )
        except Exception:  # a truncated chunk fails in as many ways as there are codecs; all mean: compute it again
            return False

    def discard(self, regions: Sequence[Region]) -> None:
        """They count as missing from now on."""
        for region in regions:
            self._mark(region).unlink(missing_ok=True)

    def write(self, region: Region, fields: Mapping[str, np.ndarray]) -> None:
        """Write all fields of a region, then its mark."""
        for name, array in self._arrays.items():
            array[region.first : region.stop] = fields[name]
        sums = {name: _checksum(fields[name]) for name in self._arrays}
        _write_json(self._mark(region), {"first": region.first, "stop": region.stop, "sha256": sums})

    def load(self) -> "xarray.Dataset":
        """The whole map as a labelled dataset, as far as it is finished (NaN and -1 elsewhere)."""
        import xarray

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's notes on format details are not the user's concern
            with xarray.open_zarr(self.folder / "map.zarr", consolidated=False, chunks=None) as dataset:
                return dataset.load()


def _agreed(run_file: pathlib.Path, manifest: Mapping[str, Any]) -> tuple[str, int]:
    """Name and matrices per region of the run that is there; `ValueError` if it is another than that of `manifest`."""
    try:
        found = json.loads(run_file.read_text())
        differing = [key for key in _DECISIVE if found.get(key) != manifest[key]]
        run, per_region = (None, None) if differing else (str(found["run"]), int(found["matrices_per_region"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{run_file} cannot be read as a manifest; name another folder for the outputs.") from None
    if run is None or per_region is None:
        raise ValueError(
            f"{run_file.parent} holds another run (different {_DECISIVE[differing[0]]}); name another folder for the "
            "outputs, or repeat the options of that run to continue it."
        )
    return run, per_region


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON knows them."""
    return json.loads(json.dumps(attributes, default=str))
