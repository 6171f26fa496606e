"""Tuning a loop: maximise what you want of its fixed point while it stays stable."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._loops.loop import where
from .._loops.mrs import MRS
from .._numerics.deprecation import renamed_attribute
from .._numerics.results import RESULTS, choose, throw_unless_successful
from .._numerics.types import Policy, PolicyLike, Scalar, as_float
from .equilibrium import equilibrium

Functional = Callable[[MRS, Policy], Scalar]

DEFAULT_BOUNDS = {"alpha": (0.0, 0.99), "beta": (1e-2, 1e2), "lam": (0.0, 1.0)}
WEIGHT = 10.0  # of the penalty on radii above the limit


class Tuned(eqx.Module):
    """What `tune` found.

    - `alpha`, `beta`, `lam` (): the setting. - `functional_value` (): the functional there, averaged over the matrices.
    - `radius` (M,): spectral radius per matrix, at most `radius_max` when the result is successful; `policies` (M, K):
      the fixed points. - `result`: `RESULTS.successful`, or `RESULTS.infeasible` if no setting tried was stable enough
      (then the numbers are those of the start). - `num_steps` (): optimiser steps.
    """

    alpha: Scalar
    beta: Scalar
    lam: Scalar
    functional_value: Scalar
    radius: Float[Array, " M"]
    policies: Float[Array, "M K"]
    result: RESULTS
    num_steps: Int[Array, ""]

    value = renamed_attribute("value", "functional_value", "0.3")


class _Box(eqx.Module):
    """Unconstrained coordinates of the parameters that move, each inside its bounds; beta on a logarithmic scale."""

    low: Float[Array, " n"]
    high: Float[Array, " n"]
    names: tuple[str, ...] = eqx.field(static=True)

    def inside(self, x: Float[Array, " n"]) -> dict[str, Scalar]:
        unit = jax.nn.sigmoid(x)
        values = self.low + (self.high - self.low) * unit
        return {name: jnp.exp(v) if name == "beta" else v for name, v in zip(self.names, values, strict=True)}

    def coordinates(self, values: dict[str, Scalar]) -> Float[Array, " n"]:
        raw = jnp.stack([jnp.log(values[name]) if name == "beta" else values[name] for name in self.names])
        unit = jnp.clip((raw - self.low) / (self.high - self.low), 0.01, 0.99)
        return jnp.log(unit) - jnp.log1p(-unit)


class _Point(eqx.Module):
    """A setting with everything that is asked of it."""

    functional_value: Scalar
    radius: Float[Array, " M"]
    policies: Float[Array, "M K"]
    solved: Bool[Array, ""]


def tune(
    functional: Functional,
    P: ArrayLike,
    *,
    alpha: float,
    beta: float,
    lam: float,
    over: Sequence[str] = ("alpha", "beta", "lam"),
    radius_max: float = 0.95,
    bounds: dict[str, tuple[float, float]] | None = None,
    pi_ref: PolicyLike | None = None,
    pi_0: PolicyLike | None = None,
    objective: Any = None,
    optimiser: Any = None,
    num_steps: int = 300,
    throw: bool = True,
) -> Tuned:
    r"""Maximise a differentiable functional of the fixed point subject to \(\rho(J) \le \rho_{max}\).

    \(\max_{\theta}\ \tfrac1M\sum_m f(\mathrm{loop}_m, \pi^*_m)\) such that every matrix is stable with margin, by
    gradient steps (optax) through the implicit derivative of the fixed point, with an augmented Lagrangian for the
    constraint. The best setting visited that satisfies it exactly is returned, so the answer is feasible, and at least
    as good as a feasible start; that it is the global maximum is not promised.

    - `functional`: called as `functional(loop, policy)`, returns a number, e.g. the win rate against the reference,
      `lambda loop, policy: policy @ loop.P @ loop.pi_ref`. - `P`: shape (K, K) or (M, K, K).
    - `alpha`, `beta`, `lam`: where to start, and the values of those that are not in `over`.
    - `bounds`: per parameter, inside alpha in [0, 1), beta > 0, lam in [0, 1]. - `optimiser`: an
      `optax.GradientTransformation`; None is Adam. - `num_steps`: gradient steps.

    Returns a `Tuned`; raises its sentence (or returns it with `throw=False`) where no stable setting was found.

    >>> import ipodyn
    >>> tuned = ipodyn.tune(lambda loop, policy: -ipodyn.entropy(policy), ipodyn.problems.two_responses(0.9),
    ...                     alpha=0.5, beta=1.0, lam=1.0, over=["beta"], bounds={"beta": (0.1, 2.0)}, num_steps=100)
    >>> bool(tuned.beta > 1.8)  # sharper is better, and two responses never oscillate: the bound is active
    True
    """
    import optax

    matrices = as_float(P)
    start = {"alpha": alpha, "beta": beta, "lam": lam}
    limits = DEFAULT_BOUNDS | dict(bounds or {})
    _check(tuple(over), limits, start, radius_max)
    task = _Task.of(functional, matrices, start, tuple(over), limits, radius_max, (pi_ref, pi_0), objective)
    solver = optax.adam(0.1) if optimiser is None else optimiser
    x, best = jax.jit(lambda x: _search(task, solver, x, num_steps))(task.box.coordinates(task.start))
    parameters = task.parameters(x)
    result = choose(_feasible(best, task.limit), RESULTS.successful, RESULTS.infeasible)
    tuned = Tuned(
        parameters["alpha"],
        parameters["beta"],
        parameters["lam"],
        best.functional_value,
        best.radius,
        best.policies,
        result,
        jnp.asarray(num_steps, jnp.int32),
    )
    return throw_unless_successful(tuned, result) if throw else tuned


class _Task(eqx.Module):
    """What is maximised, over what, under which limit on the radius."""

    functional: Functional = eqx.field(static=True)
    P: Float[Array, "M K K"]
    start: dict[str, Scalar]
    box: _Box
    limit: Scalar
    policies: tuple[PolicyLike | None, PolicyLike | None]  # pi_ref and pi_0
    objective: Any

    @classmethod
    def of(
        cls,
        functional: Functional,
        P: Float[Array, "..."],
        start: dict[str, float],
        names: tuple[str, ...],
        limits: dict[str, tuple[float, float]],
        radius_max: float,
        policies: tuple[PolicyLike | None, PolicyLike | None],
        objective: Any,
    ) -> "_Task":
        P = P[None] if P.ndim == 2 else P
        scale = {name: [float(jnp.log(v)) if name == "beta" else v for v in limits[name]] for name in names}
        low, high = (jnp.asarray([scale[name][side] for name in names], P.dtype) for side in (0, 1))
        begin = {name: jnp.asarray(value, P.dtype) for name, value in start.items()}
        box = _Box(low, high, names)
        return cls(functional, P, begin, box, jnp.asarray(radius_max, P.dtype), policies, objective)

    def parameters(self, x: Float[Array, " n"]) -> dict[str, Scalar]:
        return self.start | self.box.inside(x)

    def at(self, x: Float[Array, " n"]) -> _Point:
        pi_ref, pi_0 = self.policies

        def one(P: Float[Array, "K K"]) -> tuple[Scalar, Scalar, Policy, Bool[Array, ""]]:
            loop = MRS(P, pi_ref=pi_ref, pi_0=pi_0, objective=self.objective, **self.parameters(x))
            solution = equilibrium(loop)
            policy = solution.star.policy
            return self.functional(loop, policy), solution.stability.radius, policy, solution.solved

        values, radii, policies, solved = jax.vmap(one)(self.P)
        return _Point(jnp.mean(values), radii, policies, jnp.all(solved))

    def lagrangian(self, x: Float[Array, " n"], multiplier: Float[Array, " M"]) -> tuple[Scalar, _Point]:
        point = self.at(x)
        excess = jnp.maximum(point.radius - self.limit + multiplier / WEIGHT, 0.0)
        return -point.functional_value + 0.5 * WEIGHT * jnp.sum(excess**2), point

    def better(self, new: tuple[Any, _Point], best: tuple[Any, _Point]) -> tuple[Any, _Point]:
        """Coordinates with their point, or the best ones so far."""
        feasible, known = _feasible(new[1], self.limit), _feasible(best[1], self.limit)
        improved = feasible & (~known | (new[1].functional_value > best[1].functional_value))
        return where(improved, new, best)


class _Climb(eqx.Module):
    """Where the optimiser is, its state, the multipliers of the radii, and the best feasible setting so far."""

    x: Float[Array, " n"]
    state: Any
    multiplier: Float[Array, " M"]
    best: tuple[Float[Array, " n"], _Point]


def _search(task: _Task, solver: Any, x: Float[Array, " n"], num_steps: int) -> tuple[Float[Array, " n"], _Point]:
    """The best feasible setting that gradient steps on the augmented Lagrangian visit."""
    import optax

    def step(climb: _Climb, index: Array) -> tuple[_Climb, None]:
        x = climb.x
        (_, point), gradient = jax.value_and_grad(task.lagrangian, has_aux=True)(x, climb.multiplier)
        # The multiplier moves every tenth step, when the inner problem has had time to follow.
        raised = jnp.maximum(climb.multiplier + WEIGHT * (point.radius - task.limit), 0.0)
        multiplier = jnp.where(index % 10 == 9, raised, climb.multiplier)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = solver.update(gradient, climb.state, x)
            moved = jnp.asarray(optax.apply_updates(x, updates))
        return _Climb(moved, state, multiplier, task.better((x, point), climb.best)), None

    first = task.at(x)
    begin = _Climb(x, solver.init(x), jnp.zeros_like(first.radius), (x, first))
    end, _ = jax.lax.scan(step, begin, jnp.arange(num_steps))
    return task.better((end.x, task.at(end.x)), end.best)


def _feasible(point: _Point, limit: Scalar) -> Bool[Array, ""]:
    return point.solved & jnp.all(point.radius <= limit)


def _check(
    names: tuple[str, ...], limits: dict[str, tuple[float, float]], start: dict[str, float], radius_max: float
) -> None:
    unknown = [name for name in (*names, *limits) if name not in DEFAULT_BOUNDS]
    if unknown or not names:
        raise ValueError(f"`over` and `bounds` name {unknown}; name at least one of 'alpha', 'beta', 'lam'.")
    if not 0 < radius_max <= 1:
        raise ValueError(f"`radius_max` is {radius_max}; it must be in (0, 1]: the loop is stable below 1.")
    widest = {"alpha": (0.0, 1.0), "beta": (0.0, float("inf")), "lam": (0.0, 1.0)}
    for name in names:
        low, high = limits[name]
        if not (widest[name][0] <= low < high <= widest[name][1]) or (name == "alpha" and high >= 1):
            raise ValueError(f"The bounds of `{name}` are ({low}, {high}); they must be increasing and in its range.")
        if name == "beta" and low <= 0:
            raise ValueError(f"The lower bound of `beta` is {low}; it must be positive.")
        if not low <= start[name] <= high:
            raise ValueError(f"`{name}` starts at {start[name]}, outside its bounds ({low}, {high}).")
