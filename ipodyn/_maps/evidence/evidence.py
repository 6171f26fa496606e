"""What a map says of its cells, and how it knows: variables with their words, units and codes, and their kernel."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from ..._engine.blocks import Devices, Kernel, ProgressCallback, run_points
from ..._rollouts.regimes import RegimeThresholds
from ..grid import Grid

Cells = Mapping[str, np.ndarray]  # name -> (cells, matrices), with beta the faster of the axes of a cell


@dataclasses.dataclass(frozen=True)
class Code:
    """One value of a coded variable, whose number is its place among them.

    With a `sentence` the terminal counts its cells and the tables have its fraction; `legend` says in the picture what
    the matrices do in cells that are marked for it.
    """

    name: str
    sentence: str = ""
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """A variable as a panel of the picture, unless the map has one of the variables `unless`."""

    title: str
    unit: str
    unless: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Where a variable reaches 1, as lines of the picture.

    `median` is the legend of the median matrix's line, `{median}` in it what is called so; `extremes` those of the
    largest value of all matrices and, if there are two, of the smallest.
    """

    median: str
    extremes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Variable:
    """One number or code of every cell. Datasets, stores, tables and pictures know of it what is said here.

    - `codes`: the meanings of 0, 1, ... (then stored as int8); without them it is a number, in the dtype of the map.
    - `averaged`, `largest`: tables have its mean and spread over the matrices, and the largest value of each matrix.
    - `certifies`: what a value below 1 proves, as a column of the tables.
    - `panel`, `boundary`: how the picture shows it.
    """

    name: str
    long_name: str
    units: str = "1"
    codes: tuple[Code, ...] = ()
    averaged: bool = False
    largest: bool = False
    certifies: str = ""
    panel: Panel | None = None
    boundary: Boundary | None = None

    def dtype(self, real: np.dtype) -> np.dtype:
        """As it is stored in a map of this floating dtype."""
        return np.dtype(np.int8) if self.codes else np.dtype(real)

    def attributes(self) -> dict[str, Any]:
        """Long name, units, and the meaning of codes (CF conventions)."""
        found: dict[str, Any] = {"long_name": self.long_name, "units": self.units}
        if self.codes:
            found["flag_values"] = list(range(len(self.codes)))
            found["flag_meanings"] = " ".join(code.name for code in self.codes)
        return found

    def noted(self) -> list[tuple[int, Code]]:
        """Number and meaning of the codes that tables and pictures point out."""
        return [(number, code) for number, code in enumerate(self.codes) if code.sentence]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a map is asked for beyond its grid. Every kind of evidence says by it whether it belongs into the map."""

    rollouts: bool = True
    analytic: bool = True
    num_steps: int = 3000
    window: int | None = None
    thresholds: RegimeThresholds | None = None

    def __post_init__(self) -> None:
        if not (self.rollouts or self.analytic):
            raise ValueError(
                "`rollouts` and `analytic` are both False: nothing would be computed. Ask for one of them."
            )


@dataclasses.dataclass(frozen=True)
class Patch:
    """The matrices first .. stop - 1 of a grid, with every (alpha, beta), and how kernels run over their cells.

    - `size`: points to a block. - `most`: see `Grid.tile`.
    """

    grid: Grid
    first: int
    stop: int
    size: int
    most: int | None = None
    devices: Devices | None = None
    progress: ProgressCallback | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and matrices."""
        return self.grid.points_per_matrix, self.stop - self.first

    def run(
        self,
        kernel: Kernel,
        static: Any,
        *,
        given: np.ndarray | None = None,
        order: np.ndarray | None = None,
        **options: Any,
    ) -> dict[str, np.ndarray]:
        """What `kernel(static, tile, indices)` says of every cell, by name, each (cells, matrices).

        - `given`: (cells, matrices), of which the kernel gets its block's as a fourth argument.
        - `order`: in which to take the matrices. - `options`: of `run_points`.
        """
        cells, count = self.shape
        order = np.arange(count) if order is None else order
        found = run_points(
            kernel,
            static,
            self.grid.tile(self.first + order, self.size, self.most),
            cells * count,
            size=self.size,
            devices=self.devices,
            progress=self.progress,
            points=None if given is None else given[:, order].ravel(),
            **options,
        )
        found = {name: x.reshape(cells, count) for name, x in found.items()}
        moved = not np.array_equal(order, np.arange(count))
        return {name: x[:, np.argsort(order)] for name, x in found.items()} if moved else found


class Evidence(abc.ABC):
    """One kind of evidence on every cell of a map.

    **For developers.** A frozen dataclass, in a file of its own, of what decides its numbers: by its `repr` a store
    knows its run, and its hash decides what is compiled anew. Say its `variables`; say in `asked` which maps have it;
    and give `cells`, a kernel, or `compute`, where something is to be done before or after, or no kernel is needed.
    Variables of other evidence that it needs are named in `uses`: they are computed before, where the map has them.
    Then add the class to `KINDS` in `registry.py`; maps, stores, tables and pictures read the rest from `variables`.
    """

    variables: ClassVar[tuple[Variable, ...]]
    uses: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abc.abstractmethod
    def asked(cls, grid: Grid, request: Request) -> "Evidence | None":
        """The evidence for a map of this grid that was asked for so; None where it does not belong."""

    def attributes(self, grid: Grid) -> dict[str, Any]:
        """What is recorded with the map: everything that one has to know of the numbers."""
        return {}

    @property
    def rounds(self) -> int:
        """About what a cell costs, in rounds: the progress of a map is that of its costliest evidence."""
        return 0

    def cells(self, tile: Any, index: Any, given: Any = None) -> dict[str, jax.Array]:
        """The variables of the points `index` of a tile (see `Tile.loops`), each (S,); traced, `self` is static."""
        raise NotImplementedError(f"{type(self).__name__} gives neither `cells` nor a `compute` of its own")

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        """The variables of all cells of a patch, each (cells, matrices); `found` holds those of evidence before it."""
        return patch.run(type(self).cells, self)
