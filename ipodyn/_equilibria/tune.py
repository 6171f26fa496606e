"""Tuning a loop: maximise what you want of its fixed point while it stays stable."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._loops.mrs import MRS
from .._numerics.results import RESULTS, choose
from .._numerics.types import Policy, PolicyLike, Scalar, as_float
from .equilibrium import equilibrium

Functional = Callable[[MRS, Policy], Scalar]

DEFAULT_BOUNDS = {"alpha": (0.0, 0.99), "beta": (1e-2, 1e2), "lam": (0.0, 1.0)}


class Tuned(eqx.Module):
    """What `tune` found.

    - `alpha`, `beta`, `lam` (): the setting. - `value` (): the functional there, averaged over the matrices.
    - `radius` (M,): spectral radius per matrix, at most `radius_max` when the result is successful; `policies` (M, K):
      the fixed points. - `result`: `RESULTS.successful`, or `RESULTS.infeasible` if no setting tried was stable enough
      (then the numbers are those of the start). - `num_steps` (): optimiser steps.
    """

    alpha: Scalar
    beta: Scalar
    lam: Scalar
    value: Scalar
    radius: Float[Array, " M"]
    policies: Float[Array, "M K"]
    result: RESULTS
    num_steps: Int[Array, ""]


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

    value: Scalar
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
    >>> found = ipodyn.tune(lambda loop, policy: -ipodyn.entropy(policy), ipodyn.problems.two_responses(0.9),
    ...                     alpha=0.5, beta=1.0, lam=1.0, over=["beta"], bounds={"beta": (0.1, 2.0)}, num_steps=100)
    >>> bool(found.beta > 1.8)  # sharper is better, and two responses never oscillate: the bound is active
    True
    """
    import optax

    matrices = as_float(P)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    dtype = matrices.dtype
    limits = DEFAULT_BOUNDS | dict(bounds or {})
    start = {"alpha": alpha, "beta": beta, "lam": lam}
    names = tuple(over)
    _check(names, limits, start, radius_max)
    scale = {name: [float(jnp.log(v)) if name == "beta" else v for v in limits[name]] for name in names}
    low, high = (jnp.asarray([scale[name][side] for name in names], dtype) for side in (0, 1))
    box = _Box(low, high, names)
    fixed = {name: jnp.asarray(value, dtype) for name, value in start.items()}
    solver = optax.adam(0.1) if optimiser is None else optimiser
    limit = jnp.asarray(radius_max, dtype)

    def at(x: Float[Array, " n"]) -> _Point:
        parameters = fixed | box.inside(x)

        def one(P: Float[Array, "K K"]) -> tuple[Scalar, Scalar, Policy, Bool[Array, ""]]:
            loop = MRS(P, pi_ref=pi_ref, pi_0=pi_0, objective=objective, **parameters)
            found = equilibrium(loop)
            policy = found.star.policy
            return functional(loop, policy), found.stability.radius, policy, found.solved

        values, radii, policies, solved = jax.vmap(one)(matrices)
        return _Point(jnp.mean(values), radii, policies, jnp.all(solved))

    def lagrangian(x: Float[Array, " n"], multiplier: Array, weight: Array) -> tuple[Scalar, _Point]:
        point = at(x)
        excess = jnp.maximum(point.radius - limit + multiplier / weight, 0.0)
        return -point.value + 0.5 * weight * jnp.sum(excess**2), point

    def better(point: _Point, best: _Point) -> Bool[Array, ""]:
        feasible, known = _feasible(point, limit), _feasible(best, limit)
        return feasible & (~known | (point.value > best.value))

    def step(carry: Any, index: Array) -> tuple[Any, None]:
        x, state, multiplier, best_x, best = carry
        weight = jnp.asarray(10.0, dtype)
        (_, point), gradient = jax.value_and_grad(lagrangian, has_aux=True)(x, multiplier, weight)
        improved = better(point, best)
        best_x = jnp.where(improved, x, best_x)
        best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), point, best)
        # The multiplier moves every tenth step, when the inner problem has had time to follow.
        raised = jnp.maximum(multiplier + weight * (point.radius - limit), 0.0)
        multiplier = jnp.where(index % 10 == 9, raised, multiplier)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = solver.update(gradient, state, x)
            x = optax.apply_updates(x, updates)
        return (x, state, multiplier, best_x, best), None

    @jax.jit
    def search(x: Float[Array, " n"]) -> Any:
        first = at(x)
        carry = (x, solver.init(x), jnp.zeros_like(first.radius), x, first)
        (x, _, _, best_x, best), _ = jax.lax.scan(step, carry, jnp.arange(num_steps))
        last = at(x)
        improved = better(last, best)
        best_x = jnp.where(improved, x, best_x)
        best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), last, best)
        return best_x, best

    best_x, best = search(box.coordinates(fixed))
    result = choose(_feasible(best, limit), RESULTS.successful, RESULTS.infeasible)
    parameters = fixed | box.inside(best_x)
    found = Tuned(
        parameters["alpha"],
        parameters["beta"],
        parameters["lam"],
        best.value,
        best.radius,
        best.policies,
        result,
        jnp.asarray(num_steps, jnp.int32),
    )
    if throw:
        return result.error_if(found, result != RESULTS.successful)
    return found


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
