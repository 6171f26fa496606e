"""The stability map: what a loop does over a grid of (alpha, beta), for many preference matrices at once."""

import dataclasses
import datetime
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._engine.blocks import CHEAP_BLOCKS_PER_CALL, Devices, Kernel, ProgressCallback, block_size, run_points
from .._equilibria.fixed_point import solve_fixed_point
from .._equilibria.stability import solve_stability
from .._loops.mrs import check_common
from .._loops.starts import DEFAULT_START, default_start, start_words
from .._numerics.checks import check_policy, check_positive, check_preference, check_unit_interval
from .._numerics.results import RESULTS
from .._numerics.simplex import entropy
from .._numerics.types import ScalarLike, VectorLike
from .._numerics.version import VERSION
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .._rollouts.regimes import Regime, RegimeThresholds, classify, settled
from .._rollouts.rollout import finish
from .._rollouts.rounds import run_until_standing
from .._rollouts.statistics import Plan
from .grid import Grid, Region

if TYPE_CHECKING:
    import xarray

# name: (long name, units)
VARIABLES: dict[str, tuple[str, str]] = {
    "variance": ("time-averaged variance of the policy, summed over responses, rounds 1..num_steps", "1"),
    "entropy": ("entropy of the final policy", "nat"),
    "residual": ("largest change of a probability in one more round", "1"),
    "rise": ("fastest gain of a logit on the leading response in one more round", "nat"),
    "growth": ("log of what a round multiplies a nudge of a policy at rest by; above 0 it would not stay", "1"),
    "window_variance": ("variance of the policy over the last window of rounds, summed over responses", "1"),
    "decay": ("fall of the log of that variance per round, since the window halfway", "1"),
    "regime": ("regime by evidence", "1"),
    "contraction_bound": ("alpha + beta * lam / 2 * ||P - 1/2||_2; below 1 it certifies global convergence", "1"),
    "radius": ("spectral radius at the fixed point; below 1 it is locally stable", "1"),
    "omega": ("largest rotation rate, in units of beta * lam", "1"),
    "period": ("rounds of one turn of the leading mode", "round"),
    "fixed_point_entropy": ("entropy of the fixed point", "nat"),
    "fixed_point_residual": ("largest change of a probability in one round from the fixed point", "1"),
    "disagreement": ("whether rollout and fixed point say different things", "1"),
}
ROLLOUT = ("variance", "entropy", "residual", "rise", "growth", "window_variance", "decay")
ANALYTIC = ("radius", "omega", "period", "fixed_point_entropy", "fixed_point_residual")
CODES = {
    "regime": tuple(regime.name for regime in Regime),
    "disagreement": ("none", "stable_but_moving", "unstable_but_still"),
}


class Settings(NamedTuple):
    """What is compiled in: rounds to roll out (None: none), thresholds, and whether fixed points are solved for."""

    plan: Plan | None
    thresholds: RegimeThresholds
    analytic: bool


def _analytic_cells(static: None, region: Region, index: Int[Array, " S"]) -> dict[str, Array]:
    """The fixed point of every loop of a block and its stability; NaN where there is none."""
    loop, _ = region.loops(index)
    star = solve_fixed_point(loop)
    local = solve_stability(loop, star.policy)
    fields = (local.radius, local.omega, local.period, entropy(star.policy), star.residual)
    found = star.result == RESULTS.successful
    return {name: jnp.where(found, x, jnp.nan) for name, x in zip(ANALYTIC, fields, strict=True)}


def _rollout_cells(
    settings: Settings, region: Region, index: Int[Array, " S"], radius: Float[Array, " S"]
) -> dict[str, Array]:
    """The evidence of a block of rollouts, and the regime by it."""
    loop, policy0 = region.loops(index)
    one_round = loop.round()
    assert settings.plan is not None
    orbit = finish(one_round, run_until_standing(one_round, one_round.start(policy0), settings.plan, radius >= 1))
    if isinstance(loop.objective, IPO):
        radius = jnp.where(loop.alpha < 1, radius, jnp.inf)  # with alpha = 1 no point inside the simplex attracts
    regime = classify(orbit, settings.thresholds, radius=radius).astype(jnp.int8)
    return {name: getattr(orbit, name) for name in ROLLOUT} | {"regime": regime}


def _predicted_regime(fields: dict[str, np.ndarray], K: int, thresholds: RegimeThresholds) -> np.ndarray:
    """What the fixed point alone says: stable ones attract from nearby, around unstable ones the loop turns."""
    collapsed = fields["fixed_point_entropy"] < thresholds.collapse_fraction * math.log(K)
    code = np.where(fields["radius"] < 1, np.where(collapsed, Regime.collapses, Regime.converges), Regime.oscillates)
    return np.where(np.isnan(fields["radius"]), Regime.unresolved, code).astype(np.int8)


def _disagreement(fields: dict[str, np.ndarray], thresholds: RegimeThresholds) -> np.ndarray:
    """1: the fixed point is stable, the rollout oscillates. 2: it stands still where it would not stay."""
    still = np.asarray(settled(fields["residual"], fields["rise"], thresholds))
    leaves = (fields["radius"] >= 1) | (fields["growth"] > 0)
    moving = (fields["radius"] < 1) & (fields["regime"] == Regime.oscillates)
    standing = still & leaves & (fields["regime"] == Regime.unresolved)
    return np.where(moving, 1, np.where(standing, 2, 0)).astype(np.int8)


def _expected_rounds(radius: np.ndarray, plan: Plan) -> np.ndarray:
    """Rounds until a loop stands still, by its rate of convergence: deviations shrink to 1e-9."""
    rounds = plan.odd + plan.chunk * plan.num_chunks
    rate = -np.log(np.clip(radius, 1e-9, 1.0))
    return np.where(radius < 1, np.minimum(20 / np.maximum(rate, 20 / rounds), rounds), rounds)


@dataclasses.dataclass(frozen=True)
class MapProblem:
    """A checked stability-map problem; `compute` does any range of its matrices, so that sweeps can be cut."""

    grid: Grid
    settings: Settings
    num_steps: int
    start: str
    extra_attributes: Mapping[str, Any]

    @property
    def num_matrices(self) -> int:
        return self.grid.P.shape[-1]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.num_matrices, self.grid.alpha.size, self.grid.beta.size

    def variables(self) -> dict[str, np.dtype]:
        """Names and dtypes of the fields that `compute` returns."""
        real = np.dtype(self.grid.P.dtype)
        rollout, analytic = self.settings.plan is not None, self.settings.analytic
        wanted = {"regime"} | (set(ROLLOUT) if rollout else set()) | (set(ANALYTIC) if analytic else set())
        wanted |= {"contraction_bound"} if isinstance(self.grid.objective, IPO) else set()
        wanted |= {"disagreement"} if rollout and analytic else set()
        return {name: np.dtype(np.int8) if name in CODES else real for name in VARIABLES if name in wanted}

    def attributes(self) -> dict[str, Any]:
        """Everything needed to know what the numbers are: parameters, thresholds, versions."""
        thresholds = dataclasses.asdict(self.settings.thresholds)
        plan = self.settings.plan
        rounds = {} if plan is None else {"num_steps": self.num_steps, "window": plan.window, "start": self.start}
        thresholds["residual"] = self.settings.thresholds.residual_for(self.grid.P.dtype)
        return {
            "title": "stability map of an MRS loop",
            "ipodyn_version": VERSION,
            "jax_version": jax.__version__,
            "objective": type(self.grid.objective).__name__,
            "lam": float(str(self.grid.lam)),  # the shortest decimal: 0.8, not 0.80000001
            "regime_from": "fixed point" if plan is None else "rollout",
            **rounds,
            "dtype": str(self.grid.P.dtype),
            "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
            **{f"threshold_{name}": value for name, value in thresholds.items()},
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **self.extra_attributes,
        }

    def coordinates(self) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
        """The axes of the map, with their names and units."""
        return {
            "matrix": ("matrix", np.arange(self.num_matrices), {"long_name": "index of the preference matrix"}),
            "alpha": (
                "alpha",
                self.grid.alpha,
                {"long_name": "weight of the policy in the reference", "units": "1"},
            ),
            "beta": (
                "beta",
                self.grid.beta,
                {"long_name": "strength of the preference signal", "units": "1"},
            ),
        }

    def _knows_where_it_rests(self, first: int, stop: int) -> np.ndarray:
        """(cells, matrices): whether a rollout at rest can only be at rest on the fixed point that was solved for.

        MRS-IPO has one fixed point on each face, and a start keeps its face, unless alpha = 0.
        """
        grid = self.grid
        alike = ((grid.policy0 > 0) == (grid.pi_ref > 0)).all(axis=0)[first:stop]
        return isinstance(grid.objective, IPO) & (alike | (np.repeat(grid.alpha, grid.beta.size) == 0)[:, None])

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
        K, count, cells = self.grid.P.shape[0], stop - first, self.grid.points_per_matrix
        if size is None:
            size = block_size(K, self.grid.P.dtype.itemsize, num_points=count * cells, devices=devices)
        settings = self.settings
        order = np.arange(count)

        def run(kernel: Kernel, static: Any, **options: Any) -> dict[str, np.ndarray]:
            region = self.grid.region(first + order, size, most)
            found = run_points(kernel, static, region, count * cells, size=size, devices=devices, **options)
            found = {name: x.reshape(cells, count) for name, x in found.items()}
            moved = not np.array_equal(order, np.arange(count))
            return {name: x[:, np.argsort(order)] for name, x in found.items()} if moved else found

        found: dict[str, np.ndarray] = {}
        if settings.analytic:
            report = progress if settings.plan is None else None
            found = run(_analytic_cells, None, progress=report, blocks_per_call=CHEAP_BLOCKS_PER_CALL, one_cpu=K > 4)
        if settings.plan is None:
            found["regime"] = _predicted_regime(found, K, settings.thresholds)
        else:
            radius = np.full((cells, count), np.nan, self.grid.P.dtype)
            if settings.analytic:
                # Slow matrices next to slow ones: blocks then end together, and more of them end early.
                order = np.argsort(_expected_rounds(found["radius"], settings.plan).mean(axis=0), kind="stable")
                radius = found["radius"]
            found |= run(_rollout_cells, settings, progress=progress, points=radius[:, order].ravel())
            if settings.analytic:
                at_rest = np.isin(found["regime"], (Regime.converges, Regime.collapses))
                unstable = (radius >= 1) & self._knows_where_it_rests(first, stop)
                found["regime"] = np.where(unstable & at_rest, Regime.unresolved, found["regime"]).astype(np.int8)
                found["disagreement"] = _disagreement(found, settings.thresholds)
        fields = {name: np.ascontiguousarray(x.T).reshape(count, *self.shape[1:]) for name, x in found.items()}
        if "contraction_bound" in self.variables():
            A = np.moveaxis(self.grid.P[..., first:stop], -1, 0) - 0.5
            norms = np.linalg.norm(A, ord=2, axis=(1, 2))[:, None, None]
            alpha, beta = self.grid.alpha[:, None], self.grid.beta
            fields["contraction_bound"] = (alpha + beta * self.grid.lam / 2 * norms).astype(A.dtype)
        return fields


def map_problem(
    P: ArrayLike,
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
    attributes: Mapping[str, Any] | None = None,
) -> MapProblem:
    """Check the inputs of a stability map, once, with messages that name the culprit."""
    matrices = check_preference(P)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    M, K = matrices.shape[:2]
    dtype = jax.dtypes.canonicalize_dtype(matrices.dtype)

    def axis(values: ScalarLike | VectorLike, name: str) -> np.ndarray:
        values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"`{name}` has shape {values.shape}; give a number or a list of numbers, at least one.")
        return values.astype(dtype)

    def policies(policy: ArrayLike | VectorLike | None, name: str) -> np.ndarray:
        if policy is None:
            return np.full((K, M), 1 / K, dtype)
        rows = np.asarray(policy)
        if rows.shape not in ((K,), (M, K)):
            raise ValueError(f"`{name}` has shape {rows.shape}; give ({K},) for all matrices or ({M}, {K}), one each.")
        for row in np.atleast_2d(rows):
            check_policy(row, K, name=name)
        return np.broadcast_to(np.atleast_2d(rows), (M, K)).T.astype(dtype)

    alphas, betas = axis(alpha, "alpha"), axis(beta, "beta")
    check_unit_interval(alphas, "alpha")
    check_positive(betas, "beta")
    check_unit_interval(lam, "lam")
    reference, off_policy = policies(pi_ref, "pi_ref"), policies(pi_0, "pi_0")
    if policy0 is None:
        starts = np.asarray(default_start(off_policy, reference))
    else:
        starts = policies(policy0, "policy0")
        check_common(starts, reference, alphas[:, None], name="policy0")
    grid = Grid(
        np.ascontiguousarray(np.moveaxis(matrices, 0, -1), dtype),
        alphas,
        betas,
        np.asarray(lam, dtype),
        reference,
        off_policy,
        starts,
        IPO() if objective is None else objective,
    )
    if not (rollouts or analytic):
        raise ValueError("`rollouts` and `analytic` are both False: nothing would be computed. Ask for one of them.")
    plan = Plan.of(num_steps, window) if rollouts else None
    settings = Settings(plan, RegimeThresholds() if thresholds is None else thresholds, analytic)
    start = DEFAULT_START if policy0 is None else start_words(np.asarray(policy0))
    return MapProblem(grid, settings, num_steps, start, dict(attributes or {}))


def as_dataset(problem: MapProblem, fields: Mapping[str, np.ndarray]) -> "xarray.Dataset":
    """The labelled dataset of a whole map."""
    import xarray

    def described(name: str) -> tuple[tuple[str, str, str], np.ndarray, dict[str, Any]]:
        return ("matrix", "alpha", "beta"), fields[name], variable_attributes(name)

    return xarray.Dataset(
        {name: described(name) for name in problem.variables()}, problem.coordinates(), problem.attributes()
    )


def variable_attributes(name: str) -> dict[str, Any]:
    """Long name, units, and for the regime the meaning of its codes (CF conventions)."""
    long_name, units = VARIABLES[name]
    attributes: dict[str, Any] = {"long_name": long_name, "units": units}
    if name in CODES:
        attributes["flag_values"] = list(range(len(CODES[name])))
        attributes["flag_meanings"] = " ".join(CODES[name])
    return attributes


def stability_map(
    P: ArrayLike,
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

    - `P`: shape (M, K, K) or (K, K). Its dtype is that of the map; float32 is enough for pictures.
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
    >>> found = ipodyn.stability_map(ipodyn.problems.three_cycle(0.5), alpha=[0.5, 0.95], beta=[0.5, 4.0],
    ...                              policy0=[0.5, 0.3, 0.2], num_steps=500)
    >>> [[ipodyn.Regime(int(code)).name for code in row] for row in found.regime.values[0]]
    [['converges', 'oscillates'], ['converges', 'oscillates']]
    """
    problem = map_problem(
        P,
        alpha=alpha,
        beta=beta,
        lam=lam,
        num_steps=num_steps,
        window=window,
        objective=objective,
        pi_ref=pi_ref,
        pi_0=pi_0,
        policy0=policy0,
        thresholds=thresholds,
        rollouts=rollouts,
        analytic=analytic,
        attributes=attributes,
    )
    return as_dataset(problem, problem.compute(size=size, devices=devices, progress=progress))
