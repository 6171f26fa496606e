"""The stability map: what a loop does over a grid of (alpha, beta), for many preference matrices at once."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import ArrayLike

from .._engine.blocks import Devices, ProgressCallback, block_size
from .._numerics.types import ScalarLike, VectorLike
from .._numerics.version import VERSION
from .._objectives.objective import AbstractObjective
from .._rollouts.regimes import RegimeThresholds
from ..data import PreferenceSet
from .evidence.evidence import Evidence, Patch, Request, Variable
from .evidence.registry import chosen, in_order
from .grid import Grid
from .shards import DIMENSIONS

if TYPE_CHECKING:
    import xarray


@dataclasses.dataclass(frozen=True)
class MapProblem:
    """A map that was asked for: a grid, and the evidence on each of its cells.

    `compute` does any range of its matrices, so that large maps can be cut.
    """

    grid: Grid
    evidence: tuple[Evidence, ...]
    extra_attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, grid: Grid, request: Request | None = None, attributes: Mapping[str, Any] | None = None
    ) -> "MapProblem":
        """The map of a grid with the evidence that was asked for; `attributes` are added to its own."""
        return cls(grid, chosen(grid, request or Request()), dict(attributes or {}))

    @property
    def num_matrices(self) -> int:
        return len(self.grid.P)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.num_matrices, self.grid.alpha.size, self.grid.beta.size

    @property
    def variables(self) -> dict[str, Variable]:
        """What `compute` returns, by name."""
        return {variable.name: variable for evidence in self.evidence for variable in evidence.variables}

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """Names and dtypes of the fields that `compute` returns."""
        return {name: variable.dtype(self.grid.P.dtype) for name, variable in self.variables.items()}

    def attributes(self) -> dict[str, Any]:
        """Everything needed to know what the numbers are: parameters, thresholds, versions."""
        described = {
            "title": "stability map of an MRS loop",
            "ipodyn_version": VERSION,
            "jax_version": jax.__version__,
            "objective": type(self.grid.objective).__name__,
            "lam": float(str(self.grid.lam)),  # the shortest decimal: 0.8, not 0.80000001
            "dtype": str(self.grid.P.dtype),
            "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        }
        for evidence in self.evidence:
            described |= evidence.attributes(self.grid)
        return {
            **described,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **self.extra_attributes,
        }

    def coordinates(self) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
        """The axes of the map, with their names and units."""
        alpha = {"long_name": "weight of the policy in the reference", "units": "1"}
        beta = {"long_name": "strength of the preference signal", "units": "1"}
        return {
            "matrix": ("matrix", np.arange(self.num_matrices), {"long_name": "index of the preference matrix"}),
            "alpha": ("alpha", self.grid.alpha, alpha),
            "beta": ("beta", self.grid.beta, beta),
        }

    def compute(
        self,
        first: int = 0,
        stop: int | None = None,
        *,
        most: int | None = None,
        size: int | None = None,
        devices: Devices | None = None,
        progress: ProgressCallback | None = None,
    ) -> dict[str, np.ndarray]:
        """The fields of the matrices first .. stop - 1, each of shape (matrices, alphas, betas).

        `most`: how many matrices the largest of several ranges has, so that all of them share their programs.
        """
        stop = self.num_matrices if stop is None else stop
        count, K = stop - first, self.grid.P.shape[-1]
        if size is None:
            points = count * self.grid.points_per_matrix
            size = block_size(K, self.grid.P.dtype.itemsize, num_points=points, devices=devices)
        patch = Patch(self.grid, first, stop, size, most, devices)
        costliest = max(self.evidence, key=lambda evidence: evidence.rounds)
        fields: dict[str, np.ndarray] = {}
        for evidence in in_order(self.evidence):
            heard = dataclasses.replace(patch, progress=progress if evidence is costliest else None)
            fields |= evidence.compute(heard, fields)
        return {name: np.ascontiguousarray(fields[name].T).reshape(count, *self.shape[1:]) for name in self.variables}


def as_dataset(problem: MapProblem, fields: Mapping[str, np.ndarray]) -> "xarray.Dataset":
    """The labelled dataset of a whole map."""
    import xarray

    described = {
        name: (DIMENSIONS, fields[name], variable.attributes()) for name, variable in problem.variables.items()
    }
    return xarray.Dataset(described, problem.coordinates(), problem.attributes())


def stability_map(
    P: ArrayLike | PreferenceSet,
    *,
    alpha: ScalarLike | VectorLike,
    beta: ScalarLike | VectorLike,
    lam: ScalarLike = 1.0,
    num_steps: int = 3000,
    window: int | None = None,
    objective: AbstractObjective | None = None,
    pi_ref: ArrayLike | VectorLike | None = None,
    pi_0: ArrayLike | VectorLike | None = None,
    policy0: ArrayLike | VectorLike | None = None,
    thresholds: RegimeThresholds | None = None,
    rollouts: bool = True,
    analytic: bool = True,
    size: int | None = None,
    devices: Devices | None = None,
    progress: ProgressCallback | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> "xarray.Dataset":
    r"""Solve and roll out every matrix with every (alpha, beta), and say by evidence what each loop does.

    - `P`: shape (M, K, K) or (K, K). Its dtype is that of the map; float32 is enough for pictures. Or a
      `PreferenceSet`, whose values were checked when it was made.
    - `alpha`: shape (A,), in [0, 1]. - `beta`: shape (B,), > 0, larger = stronger preference signal.
    - `lam`: a number in [0, 1]. - `num_steps`: rounds. - `window`: rounds in a window of the late statistics; None is
      a tenth of `num_steps`.
    - `objective`: `IPO()` (None) or `DPO()`. - `pi_ref`, `pi_0`, `policy0`: shape (K,) or (M, K): reference,
      off-policy sampler, start; None is uniform, uniform, the `generic_start` beside `pi_0` (`pi_ref` where the two
      share no response): from `pi_0` itself a symmetry could keep a loop on an unstable fixed point.
    - `thresholds`: a `RegimeThresholds`. - `rollouts`: False leaves the rounds out; the regime is then what the fixed
      point predicts. - `analytic`: False leaves the fixed points out. - `size`: points per block.
    - `devices`: JAX devices to use; None is all local ones.
    - `progress`: called with (points done, points in all) as blocks finish. - `attributes`: added to the dataset's.

    Returns an `xarray.Dataset` with dimensions (matrix, alpha, beta). From rollouts: `variance`, `entropy`, `residual`,
    `rise`, `growth`, `window_variance`, `decay`, `regime`. From the fixed point, NaN where there is none (alpha = 1):
    `radius`, `omega`, `period`, `fixed_point_entropy`, `fixed_point_residual`. From both: `disagreement`, which marks
    stable fixed points whose rollout keeps moving (a cycle beside them) and rollouts that stand still where they would
    not stay (a symmetry of their start keeps them there; their regime is unresolved): findings, not errors. For IPO
    also `contraction_bound`. Raises `ValueError` for wrong inputs.
    Memory on the devices does not grow with the number of points or rounds.

    >>> import ipodyn
    >>> dataset = ipodyn.stability_map(ipodyn.problems.three_cycle(0.5), alpha=[0.5, 0.95], beta=[0.5, 4.0],
    ...                              policy0=[0.5, 0.3, 0.2], num_steps=500)
    >>> [[ipodyn.Regime(int(code)).name for code in row] for row in dataset.regime.values[0]]
    [['converges', 'oscillates'], ['converges', 'oscillates']]
    """
    grid = Grid.of(P, alpha=alpha, beta=beta, lam=lam, objective=objective, pi_ref=pi_ref, pi_0=pi_0, policy0=policy0)
    request = Request(rollouts, analytic, num_steps, window, thresholds)
    problem = MapProblem.of(grid, request, attributes)
    return as_dataset(problem, problem.compute(size=size, devices=devices, progress=progress))
