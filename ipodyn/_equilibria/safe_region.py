"""Safe regions: how far alpha, beta or lam can go before too many loops lose stability or spread."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .._loops.mrs import MRS
from .._numerics.checks import check_policy, check_positive, check_preference, check_unit_interval
from .._numerics.deprecation import renamed_attribute, renamed_keywords
from .._numerics.results import RESULTS, choose, throw_unless_successful
from .._numerics.simplex import entropy
from .._numerics.types import PolicyLike, Scalar
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .equilibrium import equilibrium
from .first_crossing import first_crossing

DEFAULT_BOUNDS = {"alpha": (0.0, 0.999), "beta": (1e-3, 1e3), "lam": (0.0, 1.0)}
GRID = 96  # values of the scan; a gap narrower than a step, with no maximum of the radius that shows, is missed


class SafeRegion(eqx.Module):
    """What `safe_region` found.

    - `value` (): the largest safe value of the parameter that was left open. - `limits` (M,): that of each matrix
      alone; the upper bound where it is safe all the way, the lower one where it is safe nowhere.
    - `binding` (M,): the matrices whose limit is `value`: those that keep it from growing. - `unsafe` (M,): those
      given up, because only a fraction was asked for. - `fraction` (): of the matrices that are safe at `value`.
    - `radius`, `entropy` (M,): spectral radius and fixed-point entropy (nats) at `value`.
    - `result`: `RESULTS.successful`, or `RESULTS.infeasible` where not even the lower bound is safe for the fraction
      asked (then `value` is that bound). - `parameter`: the name of the parameter.
    """

    value: Scalar
    limits: Float[Array, " M"]
    binding: Bool[Array, " M"]
    unsafe: Bool[Array, " M"]
    fraction: Scalar
    radius: Float[Array, " M"]
    entropy: Float[Array, " M"]
    result: RESULTS
    parameter: str = eqx.field(static=True)

    share = renamed_attribute("share", "fraction", "0.3")


class _Look(eqx.Module):
    """Whether each matrix is safe at its value, with its radius, entropy and fixed point there."""

    safe: Bool[Array, " M"]
    radius: Float[Array, " M"]
    entropy: Float[Array, " M"]
    policy: Float[Array, "K M"]
    solved: Bool[Array, " M"]


class _Question(eqx.Module):
    """What is asked of every matrix; matrices stand last."""

    P: Float[Array, "K K M"]
    parameters: dict[str, Scalar]  # the two that are given
    pi_ref: Float[Array, "K M"]
    pi_0: Float[Array, "K M"]
    radius_max: Scalar
    entropy_min: Scalar
    objective: AbstractObjective
    parameter: str = eqx.field(static=True)

    def look(self, value: Float[Array, " M"], near: Float[Array, "K M"] | None = None) -> _Look:
        """The fixed points at a value for each matrix, found from policies nearby."""
        fields = {name: jnp.broadcast_to(x, value.shape) for name, x in self.parameters.items()}
        fields[self.parameter] = value
        loop = MRS(self.P, pi_ref=self.pi_ref, pi_0=self.pi_0, objective=self.objective, **fields)
        solution = equilibrium(loop, near)
        radius, spread = solution.stability.radius, entropy(solution.star.policy)
        safe = (radius < self.radius_max) & (spread >= self.entropy_min) & solution.solved
        return _Look(safe, radius, spread, solution.star.policy, solution.solved)

    def value(self, low: Scalar, high: Scalar, t: Float[Array, " M"]) -> Float[Array, " M"]:
        """The parameter at t in [0, 1]: geometric in beta, linear in the others."""
        return low * jnp.exp(t * jnp.log(high / low)) if self.parameter == "beta" else low + t * (high - low)

    def height(self, look: _Look) -> Float[Array, " M"]:
        """0 where a condition is just met, above it where one is not."""
        tiny = jnp.finfo(look.radius.dtype).tiny
        swing = 2 * jnp.log(jnp.maximum(look.radius, tiny) / self.radius_max)
        short = jnp.where(self.entropy_min > 0, self.entropy_min - look.entropy, -jnp.inf)
        return jnp.where(look.solved, jnp.maximum(swing, short), jnp.inf)


class _Limits(eqx.Module):
    """The last safe value of each matrix before the first unsafe one, whether there is any, and the last look."""

    value: Float[Array, " M"]
    nowhere: Bool[Array, " M"]
    look: _Look


@eqx.filter_jit
def _limits(question: _Question, low: Scalar, high: Scalar) -> _Limits:
    """The limits between two values. Where the two are one, a look at that: compiling it is what takes time."""
    zero = jnp.zeros(question.P.shape[-1], question.P.dtype)
    margin = 256 * float(jnp.finfo(zero.dtype).eps)  # so that rounding does not decide at the limit itself

    def height(t: Float[Array, " M"], last: _Look) -> tuple[Float[Array, " M"], _Look, Bool[Array, " M"]]:
        near = jnp.where(last.solved, last.policy, question.pi_ref)
        look = question.look(question.value(low, high, t), near)
        return question.height(look) + margin, look, jnp.ones(t.shape, bool)

    never = jnp.zeros(zero.shape, bool)
    begin = _Look(never, zero, zero, question.pi_ref, never)
    crossing = first_crossing(height, begin, zero, num_points=GRID)
    at = jnp.where(crossing.crosses & (crossing.height <= margin / 2), crossing.t, crossing.below)
    return _Limits(jnp.where(at < 1, question.value(low, high, at), high), crossing.starts_above, crossing.carry)


@renamed_keywords("0.3", share="fraction")
def safe_region(
    P: ArrayLike,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    lam: float | None = None,
    fraction: float = 1.0,
    radius_max: float = 1.0,
    entropy_min: float = 0.0,
    bounds: tuple[float, float] | None = None,
    pi_ref: PolicyLike | None = None,
    pi_0: PolicyLike | None = None,
    objective: AbstractObjective | None = None,
    throw: bool = True,
) -> SafeRegion:
    r"""The largest value of one parameter at which a given fraction of the matrices is stable, with margin.

    Leave one of `alpha`, `beta`, `lam` open: it is raised from its lower bound until \(\rho(J) \ge \rho_{max}\) or
    \(H(\pi^*)\) falls below the floor, for each matrix; the answer is safe all the way up to it. (The radius need not
    grow with beta: what lies above the first unsafe value is not called safe.)

    - `P`: shape (M, K, K) or (K, K). - `fraction` in (0, 1]: of the matrices. - `radius_max` in (0, 1]: spectral radius
      to stay below. - `entropy_min`: in nats, at least 0. - `bounds`: where to look; None is (0, 0.999) for alpha,
      (0.001, 1000) for beta, (0, 1) for lam. - `pi_ref`, `pi_0`: shape (K,); None is uniform. - `objective`: None is
      `IPO()`.

    Returns a `SafeRegion`; raises its sentence (or returns it with `throw=False`) where nothing is safe.

    >>> import ipodyn
    >>> answers = ipodyn.safe_region(ipodyn.problems.three_cycle(0.3), alpha=0.5, lam=1.0)
    >>> round(float(answers.value), 3)  # sqrt(3 * (1 - alpha^2)) / 0.3
    5.0
    """
    matrices = check_preference(P)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    M, K = matrices.shape[:2]
    dtype = matrices.dtype
    given = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("lam", lam)) if value is not None}
    parameter, (low, high) = _range(given, bounds)
    _check(fraction, radius_max, entropy_min, K)

    def policies(policy: PolicyLike | None, name: str) -> Array:
        row = np.full(K, 1 / K) if policy is None else np.asarray(check_policy(np.asarray(policy), K, name=name))
        return jnp.broadcast_to(jnp.asarray(row, dtype)[:, None], (K, M))

    question = _Question(
        jnp.moveaxis(jnp.asarray(matrices), 0, -1),
        {name: jnp.asarray(value, dtype) for name, value in given.items()},
        policies(pi_ref, "pi_ref"),
        policies(pi_0, "pi_0"),
        jnp.asarray(radius_max, dtype),
        jnp.asarray(entropy_min, dtype),
        IPO() if objective is None else objective,
        parameter,
    )
    ends = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
    answers = _limits(question, *ends)
    limits = answers.value
    value = jnp.sort(limits)[M - math.ceil(fraction * M - 1e-9)]
    look = _limits(question, value, value).look
    safe = look.safe | ((limits >= value) & ~answers.nowhere)
    enough = jnp.sum(safe) >= math.ceil(fraction * M - 1e-9)
    result = choose(enough, RESULTS.successful, RESULTS.infeasible)
    close = jnp.abs(limits - value) <= 64 * float(jnp.finfo(dtype).eps) * jnp.abs(value)
    binding = close & (limits < ends[1])
    region = SafeRegion(
        value, limits, binding, limits < value, jnp.mean(safe), look.radius, look.entropy, result, parameter
    )
    return throw_unless_successful(region, result) if throw else region


def _range(given: dict[str, float], bounds: tuple[float, float] | None) -> tuple[str, tuple[float, float]]:
    """The parameter that was left open, and where to look for it."""
    missing = [name for name in DEFAULT_BOUNDS if name not in given]
    if len(missing) != 1:
        raise ValueError(f"Leave exactly one of alpha, beta, lam open; open are {missing or 'none'}.")
    (parameter,) = missing
    low, high = DEFAULT_BOUNDS[parameter] if bounds is None else bounds
    for name, values in (*given.items(), (parameter, low), (parameter, high)):
        check_positive(values, name) if name == "beta" else check_unit_interval(values, name)
    if not low < high or (parameter == "alpha" and high >= 1):
        raise ValueError(
            f"`bounds` of {parameter} are ({low}, {high}); they must increase, and stay below 1 for alpha."
        )
    return parameter, (low, high)


def _check(fraction: float, radius_max: float, entropy_min: float, K: int) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` is {fraction}; it must be in (0, 1].")
    if not 0 < radius_max <= 1:
        raise ValueError(f"`radius_max` is {radius_max}; it must be in (0, 1]: a loop is stable below 1.")
    if not 0 <= entropy_min < math.log(K):
        raise ValueError(f"`entropy_min` is {entropy_min}; it must be in [0, log {K}) nats.")
