"""A resumable store of one stability map: Zarr arrays filled region by region, and a manifest of what the run is.

    run.json                  what the run is: its parameters and a hash of its inputs
    map.zarr                  the fields; one shard along `matrix` per region, so that writers never share an object
    regions/00012.json        written last: region 12 is finished, with lengths and checksums of its chunks

It lies in a folder or a bucket. Any number of processes may fill one store, on any number of machines: each region is
written whole by whoever takes it, and `Store.regions_of` deals the regions out so that no two need to talk.

What is read back is checked. The manifest and the marks carry a hash of their own; the descriptions and coordinates of
`map.zarr` follow from the manifest and are written again where they differ; every chunk has a checksum, and its mark
another. A region that is not as its mark says is `Damaged`, and is computed again.
"""

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from .place import Place, place_at
from .shards import Layout, empty
from .stability_map import MapProblem, as_dataset
from .statistics import MapStatistics

if TYPE_CHECKING:
    import xarray

FORMAT = 2
# A piece is what is computed at once, a region what a killed process loses and what many processes share. A region is
# one piece, of which large jobs have some dozens, none so small that writing it would take as long as computing it.
# In the largest jobs several pieces make a region, so that a store has some ten thousand objects at most.
POINTS_PER_PIECE = 1 << 18
LEAST_POINTS_PER_PIECE = 1 << 16
REGIONS = 64
MOST_REGIONS = 1024
_DECISIVE = {"format": "format", "ipodyn_version": "version of ipodyn", "hash": "inputs"}

Fields = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Region:
    """The matrices first .. stop - 1 of a map."""

    index: int
    first: int
    stop: int


class Damaged(Exception):
    """A region is not as its mark says; it must be computed again."""

    def __init__(self, region: Region):
        super().__init__(f"region {region.index} is damaged")
        self.region = region


def fingerprint(problem: MapProblem) -> str:
    """A hash of everything that decides the numbers: the arrays, their dtype, the objective, and the evidence."""
    digest = hashlib.sha256()
    grid = problem.grid
    for array in (grid.P, grid.alpha, grid.beta, grid.lam, grid.pi_ref, grid.pi_0, grid.policy0):
        host = np.asarray(array)
        digest.update(f"{host.dtype}{host.shape}".encode())
        digest.update(np.ascontiguousarray(host).data)
    digest.update(repr((grid.objective, problem.evidence, sorted(problem.variables))).encode())
    return digest.hexdigest()


def division(num_matrices: int, points_per_matrix: int, parts: int) -> tuple[int, int]:
    """Matrices to a piece and pieces to a region, if `parts` processes are to have something to do."""
    points = min(POINTS_PER_PIECE, max(LEAST_POINTS_PER_PIECE, num_matrices * points_per_matrix // REGIONS))
    per_piece = max(1, min(points // points_per_matrix, num_matrices // parts))
    pieces = -(-num_matrices // per_piece)
    return per_piece, -(-pieces // max(MOST_REGIONS, parts))


class Store:
    """The store of one run; `Store.open` creates it, continues it, or refuses it."""

    def __init__(self, place: Place, problem: MapProblem, manifest: Mapping[str, Any]):
        self.place = place
        self.problem = problem
        self._dtypes = problem.dtypes
        self.run: str = manifest["run"]  # what the run is called: a name that no other run has
        self.attributes: dict[str, Any] = manifest["attributes"]
        self.layout = Layout(problem.shape, manifest["matrices_per_piece"], manifest["pieces_per_region"])
        per_region = self.layout.per_shard
        starts = range(0, problem.num_matrices, per_region)
        self.regions = [
            Region(index, first, min(first + per_region, problem.num_matrices)) for index, first in enumerate(starts)
        ]

    @classmethod
    def open(cls, where: str | os.PathLike[str] | Place, problem: MapProblem, *, parts: int = 1) -> "Store":
        """Create the store of this problem, or continue one of the same problem; several processes may do so at once.

        `parts`: how many processes will share the regions, if known; it counts when the store is created. Raises
        `ValueError` with one line if the place holds another run or files that are not of a run.
        """
        place = place_at(where)
        manifest = _manifest(problem, parts)
        names = place.names()  # before the manifest is looked for: a run that begins just now has written it first
        content = place.read("run.json")
        if content is None:
            if names:
                raise ValueError(
                    f"{place.name} is not empty and holds no run of ipodyn; name another folder for the outputs."
                )
            # The manifest comes first: whenever the process dies, the place is either empty or known to be this run's.
            place.prepare()
            place.create("run.json", _signed(manifest))
            content = place.read("run.json")
        # Whose manifest it is was decided just now or long ago; all go by the one that is there.
        store = cls(place, problem, _agreed(place.name, content, manifest))
        place.sweep()
        store._describe()
        return store

    def regions_of(self, part: int, parts: int) -> list[Region]:
        """The regions of one of `parts` processes, `part` = 0 .. parts - 1; together they have each region once."""
        return self.regions[part::parts]

    def pieces(self, region: Region) -> list[tuple[int, int]]:
        """First and stop of the matrices of each piece of a region."""
        step = self.layout.per_chunk
        return [(first, min(first + step, region.stop)) for first in range(region.first, region.stop, step)]

    def _describe(self) -> None:
        """Write what of the descriptions and coordinates is absent or is not what the manifest makes of them."""
        variables = {
            name: (self._dtypes[name], _plain(variable.attributes()))
            for name, variable in self.problem.variables.items()
        }
        coordinates = {name: (d, values, _plain(a)) for name, (d, values, a) in self.problem.coordinates().items()}
        for key, content in self.layout.metadata(self.attributes, variables, coordinates).items():
            if self.place.read(f"map.zarr/{key}") != content:
                self.place.write(f"map.zarr/{key}", content)

    @staticmethod
    def _mark(region: Region) -> str:
        return f"regions/{region.index:05d}.json"

    @staticmethod
    def _shard(name: str, region: Region) -> str:
        return f"map.zarr/{name}/c/{region.index}/0/0"

    def missing(self, regions: Sequence[Region] | None = None) -> list[Region]:
        """Those of the regions (None: all) that nobody has finished; a glance, without reading what is there."""
        marks = self.place.names("regions")
        of = self.regions if regions is None else regions
        return [region for region in of if self._mark(region).rpartition("/")[2] not in marks]

    def pending(self, regions: Sequence[Region] | None = None) -> list[Region]:
        """Those of the regions (None: all) that are missing or damaged; reads everything."""
        return [region for region in (self.regions if regions is None else regions) if not self._finished(region)]

    def _finished(self, region: Region) -> bool:
        try:
            for _ in self.read(region):
                pass
        except Damaged:
            return False
        return True

    def discard(self, regions: Sequence[Region]) -> None:
        """They count as missing from now on."""
        for region in regions:
            self.place.delete(self._mark(region))

    def write(self, region: Region, compute: Callable[[int, int], Fields]) -> None:
        """Write what `compute(first, stop)` gives for each piece of a region, and then its mark."""
        lengths: dict[str, list[int]] = {name: [] for name in self._dtypes}
        sums = []
        with ExitStack() as stack:
            writers = {name: stack.enter_context(self.place.writer(self._shard(name, region))) for name in lengths}
            for first, stop in self.pieces(region):
                fields, digest = compute(first, stop), hashlib.sha256()
                for name, writer in writers.items():
                    content = self.layout.encode(fields[name].astype(self._dtypes[name], copy=False))
                    lengths[name].append(len(content))
                    digest.update(content)
                    writer.write(content)
                sums.append(digest.hexdigest())
            for name, writer in writers.items():
                writer.write(self.layout.index(lengths[name]))
        mark = {"run": self.run, "first": region.first, "stop": region.stop, "lengths": lengths, "sha256": sums}
        self.place.write(self._mark(region), _signed(mark))

    def read(self, region: Region) -> Iterator[Fields]:
        """The fields of each piece of a region, one after the other; raises `Damaged` at the first that is not right.

        What has been read before that was right.
        """
        mark = _verified(self.place.read(self._mark(region)))
        if mark is None:
            raise Damaged(region)
        lengths: dict[str, list[int]] = mark["lengths"]
        for name in self._dtypes:
            if self.place.read(self._shard(name, region), sum(lengths[name])) != self.layout.index(lengths[name]):
                raise Damaged(region)
        for number, (first, stop) in enumerate(self.pieces(region)):
            digest, contents = hashlib.sha256(), {}
            for name in self._dtypes:
                start = sum(lengths[name][:number])
                contents[name] = self.place.read(self._shard(name, region), start, lengths[name][number])
                digest.update(contents[name] or b"")
            if digest.hexdigest() != mark["sha256"][number]:
                raise Damaged(region)
            yield {
                name: self.layout.decode(contents[name], stop - first, dtype) for name, dtype in self._dtypes.items()
            }

    def statistics(self) -> MapStatistics:
        """To gather in what tables and pictures need: `for block in stats.blocks(pieces): stats.add(block)`."""
        grid = self.problem.grid
        variables, size = self.problem.variables.values(), self.problem.num_matrices
        return MapStatistics(variables, grid.alpha, grid.beta, size, attrs=self.attributes)

    def load(self) -> "xarray.Dataset":
        """The whole map as a labelled dataset, as far as it is finished (NaN and -1 elsewhere)."""
        fields = {name: empty(self.problem.shape, dtype) for name, dtype in self._dtypes.items()}
        missing = set(self.missing())
        for region in self.regions:
            if region not in missing:
                for (first, stop), piece in zip(self.pieces(region), self.read(region), strict=True):
                    for name, values in piece.items():
                        fields[name][first:stop] = values
        return as_dataset(self.problem, fields).assign_attrs(self.attributes)


def _manifest(problem: MapProblem, parts: int) -> dict[str, Any]:
    per_piece, pieces_per_region = division(problem.num_matrices, problem.grid.points_per_matrix, parts)
    return {
        "format": FORMAT,
        "hash": fingerprint(problem),
        "ipodyn_version": problem.attributes()["ipodyn_version"],
        "run": uuid.uuid4().hex,
        "matrices_per_piece": per_piece,
        "pieces_per_region": pieces_per_region,
        "attributes": _plain(problem.attributes()),
    }


def _agreed(name: str, content: bytes | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that is there; `ValueError` if it is damaged, or of another run than the one wanted."""
    try:
        manifest = json.loads(content or b"")
        version = manifest["format"]
    except (ValueError, TypeError, KeyError):
        version = None
    if version is not None and version != FORMAT:
        raise ValueError(f"{name} holds another run (different format); name another folder for the outputs.")
    manifest = _verified(content)
    if manifest is None:
        raise ValueError(f"{name}/run.json is damaged; name another folder for the outputs, or delete this one.")
    differing = [key for key in _DECISIVE if manifest.get(key) != wanted[key]]
    if differing:
        raise ValueError(
            f"{name} holds another run (different {_DECISIVE[differing[0]]}); name another folder for the outputs, or "
            "repeat the options of that run to continue it."
        )
    return manifest


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _signed(content: Mapping[str, Any]) -> bytes:
    """As JSON, with a hash of the rest."""
    return json.dumps({**content, "signature": _hash(content)}, indent=2).encode()


def _verified(content: bytes | None) -> dict[str, Any] | None:
    """What was signed; None if it is absent or is not what was written."""
    try:
        manifest = json.loads(content or b"")
        signature = manifest.pop("signature")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if signature == _hash(manifest) else None


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON knows them."""
    return json.loads(json.dumps(attributes, default=str))
