"""Damping: loops that aim at the same fixed point and take smaller steps towards it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._loops.loop import known
from .._loops.mrs import MRS
from .._numerics.results import RESULTS, choose
from .._numerics.skew import safe_sqrt
from .._numerics.types import PolicyBlock, ScalarBlock, ScalarLike, as_float
from .certificate import METRICS, check_ipo, convergence_gains, squared_turning
from .fixed_point import solve_fixed_point
from .stability import solve_stability


class Damping(eqx.Module):
    """A damping s of a loop, for `damped`: below 1 the rounds take smaller steps than the loop's own, above 1 larger.

    - `value` (): s. - `radius` (): spectral radius of the damped loop at the fixed point, or None.
    - `rate` (): of its `convergence_certificate`, or None.
    - `result`: `RESULTS.successful`; what else it may be, the function says that returned it.
    """

    value: ScalarBlock
    radius: ScalarBlock | None
    rate: ScalarBlock | None
    result: RESULTS


def damped(loop: MRS, s: ScalarLike) -> MRS:
    r"""The loop that goes s of the way in every round: the same fixed points, other dynamics.

    \(z' = (1 - s) z + s F(z)\) on logits is the loop with \(\alpha_s = 1 - s(1 - \alpha)\) and \(\beta_s = s\beta\),
    exactly, so that \(\beta/(1 - \alpha)\) stays. For IPO and DPO.

    - `s` in (0, 1 / (1 - alpha)]: 1 is the loop itself; less is more damped; the largest s has alpha 0.

    Source: derived here, by substitution; interpolation towards the image is the relaxation of Krasnoselskii and Mann.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> half = ipodyn.damped(loop, 0.5)
    >>> float(half.alpha), float(half.beta)
    (0.75, 4.0)
    """
    s = as_float(s, loop.P)
    step = s * (1 - loop.alpha)
    if known(step):
        number, limit = np.asarray(s), 1 + 8 * float(jnp.finfo(loop.P.dtype).eps)
        if not (np.all(number > 0) and np.all(np.asarray(step) <= limit)):
            largest = 1 / (1 - np.asarray(loop.alpha)) if np.all(np.asarray(loop.alpha) < 1) else np.inf
            raise ValueError(f"`s` is {number}; it must be above 0 and at most 1 / (1 - alpha) = {largest:.6g}.")
    alpha = jnp.where(step < 1, 1 - step, 0.0)
    return eqx.tree_at(lambda loop: (loop.alpha, loop.beta), loop, (alpha, s * loop.beta))


def _slack(loop: MRS) -> tuple[ScalarBlock, ScalarBlock]:
    """1 - alpha, and the same with 1 in place of 0."""
    slack = 1 - loop.alpha
    return slack, jnp.where(slack > 0, slack, 1.0)


def _deviations(loop: MRS, policy: PolicyBlock) -> tuple[Array, Array]:
    """Real part and squared imaginary part of 1 - mu for the eigenvalues mu of a round at its fixed point."""
    if loop.objective.is_linear:
        return (1 - loop.alpha)[None], squared_turning(loop, policy)[None]
    eigenvalues = solve_stability(loop, policy).eigenvalues
    return 1 - jnp.real(eigenvalues), jnp.imag(eigenvalues) ** 2


def solve_critical_damping(loop: MRS) -> Damping:
    """`critical_damping` for a loop whose fields have batch axes behind; never raises, compiles nothing by itself."""
    star = solve_fixed_point(loop)
    real, turning = _deviations(loop, star.policy)
    squares = real**2 + turning
    positive = squares > 0
    each = jnp.where(positive, 2 * real / jnp.where(positive, squares, 1.0), jnp.inf)
    value = jnp.min(each, axis=0)
    slack, safe = _slack(loop)
    always = (slack > 0) & (value > 1 / safe)
    never = value <= 0
    result = choose(always, RESULTS.stable_throughout, RESULTS.successful)
    result = choose(never, RESULTS.unstable_throughout, result)
    solved = star.result == RESULTS.successful
    value = jnp.where(never | ~solved, 0.0, jnp.where(always, jnp.inf, value))
    radius = jnp.where(always | never | ~solved, jnp.inf, 1.0)
    return Damping(value, radius, None, choose(solved, result, star.result))


@eqx.filter_jit
def _critical_damping(loop: MRS) -> Damping:
    return solve_critical_damping(loop)


def critical_damping(loop: MRS, *, throw: bool = True) -> Damping:
    r"""The damping s at which the fixed point loses its stability; every smaller one makes the loop stable there.

    MRS-IPO: \(s = 2(1-\alpha)/((1-\alpha)^2 + (\beta\lambda\omega)^2)\), omega as in `stability`. From
    \(\rho_s^2 = (1 - s(1 - \alpha))^2 + (s\beta\lambda\omega)^2\). MRS-DPO: the least of \(2\,Re(1 - \mu)/|1 - \mu|^2\)
    over the eigenvalues mu of a round.

    - `throw`: raise where no fixed point was found (alpha = 1 has none); False returns it as data, with value 0.

    Returns a `Damping`. That there is no such s is a result, not an error: `RESULTS.stable_throughout` (value inf) if
    all up to 1 / (1 - alpha) are stable, `RESULTS.unstable_throughout` (value 0) if none is, which takes DPO with lam <
    1. Local: `certified_damping` is global. Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> round(float(ipodyn.critical_damping(loop).value), 6)  # 2 * 0.5 / (0.5^2 + (8 * 0.3)^2 / 3)
    0.460829
    """
    return _raised(_critical_damping(loop), throw)


def _raised(damping: Damping, throw: bool) -> Damping:
    failed = (damping.result == RESULTS.max_steps_reached) | (damping.result == RESULTS.diverging_scores)
    failed = failed | (damping.result == RESULTS.no_fixed_point) | (damping.result == RESULTS.infeasible)
    return damping.result.error_if(damping, failed) if throw else damping


def solve_fastest_damping(loop: MRS) -> Damping:
    """`fastest_damping` for a loop whose fields have batch axes behind; never raises, compiles nothing by itself."""
    star = solve_fixed_point(loop)
    real, turning = _deviations(loop, star.policy)
    squares = real**2 + turning
    _, safe = _slack(loop)

    def squared_radius(s: ScalarBlock) -> ScalarBlock:
        return jnp.max((1 - s[None] * real) ** 2 + s[None] ** 2 * turning, axis=0)

    # A maximum of parabolas is least at the bottom of one of them, where two cross, or at the end.
    bottoms = real / jnp.where(squares > 0, squares, 1.0)
    apart = squares[:, None] - squares[None]
    crossings = 2 * (real[:, None] - real[None]) / jnp.where(apart == 0, jnp.inf, apart)
    candidates = jnp.concatenate([bottoms, crossings.reshape(-1, *real.shape[1:]), (1 / safe)[None]])
    candidates = jnp.clip(candidates, 0.0, (1 / safe)[None])
    best = jnp.argmin(jax.vmap(squared_radius)(candidates), axis=0)
    value = jnp.take_along_axis(candidates, best[None], axis=0)[0]
    solved = star.result == RESULTS.successful
    result = choose(value > 0, RESULTS.successful, RESULTS.unstable_throughout)
    value = jnp.where(solved, value, 0.0)
    radius = jnp.where(solved & (value > 0), safe_sqrt(squared_radius(value)), jnp.inf)
    return Damping(value, radius, None, choose(solved, result, star.result))


@eqx.filter_jit
def _fastest_damping(loop: MRS) -> Damping:
    return solve_fastest_damping(loop)


def fastest_damping(loop: MRS, *, throw: bool = True) -> Damping:
    r"""The damping s with which the loop converges fastest near its fixed point, and its spectral radius.

    MRS-IPO: half of `critical_damping`, \(s = (1-\alpha)/((1-\alpha)^2 + (\beta\lambda\omega)^2)\), where
    \(\alpha_s = \rho_s^2 = (\kappa\lambda\omega)^2/(1 + (\kappa\lambda\omega)^2)\), kappa = beta / (1 - alpha). It may
    be above 1: then the loop itself goes slower than it could. MRS-DPO: the least of the largest \(|1 - s(1 - \mu)|\)
    over the eigenvalues mu of a round.

    - `throw`: as in `critical_damping`.

    Returns a `Damping` with its `radius`; `RESULTS.unstable_throughout` (value 0) where no damping makes the fixed
    point stable, which takes DPO with lam < 1. Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> damping = ipodyn.fastest_damping(loop)
    >>> round(float(damping.value), 6), round(float(damping.radius) ** 2, 6)  # 7.68 / 8.68
    (0.230415, 0.884793)
    """
    return _raised(_fastest_damping(loop), throw)


def solve_certified_damping(loop: MRS, rate: ScalarBlock | None, metric: str = "euclidean") -> Damping:
    """`certified_damping` for a loop whose fields have batch axes behind; never raises, compiles nothing by itself."""
    gain, _ = convergence_gains(loop, metric)
    slack, safe = _slack(loop)
    total = slack**2 + gain**2
    whole = jnp.where(total > 0, total, 1.0)
    least = gain**2 / whole  # the smallest rate on the ray, at s = slack / total, where alpha_s is the same
    if rate is None:
        value, attainable = slack / whole, slack > 0
    else:
        # The larger root of 1 - 2 s slack + s^2 total = rate, up to the end of the ray; up to its middle alpha_s rules.
        attainable = (rate >= least) & (rate < 1) & (slack > 0)
        depth = jnp.where(attainable, slack**2 - total * (1 - rate), 0.0)
        little = 1 - 16 * float(jnp.finfo(loop.P.dtype).eps)
        value = jnp.minimum(jnp.maximum((slack + safe_sqrt(depth)) / whole * little, slack / whole), 1 / safe)
    value = jnp.where(attainable, value, 0.0)
    alpha = 1 - value * slack
    found = jnp.where(attainable, jnp.maximum(alpha, alpha**2 + (value * gain) ** 2), jnp.inf)
    result = choose(attainable, RESULTS.successful, RESULTS.infeasible)
    return Damping(value, None, found, choose(slack > 0, result, RESULTS.no_fixed_point))


@eqx.filter_jit
def _certified_damping(loop: MRS, rate: Array | None, metric: str) -> Damping:
    return solve_certified_damping(loop, rate, metric)


def certified_damping(
    loop: MRS, *, rate: ScalarLike | None = None, metric: str = "euclidean", throw: bool = True
) -> Damping:
    r"""A damping s with which an MRS-IPO loop is proved to converge from every start, without changing its aim.

    `convergence_certificate` of `damped(loop, s)` is \(\max(\alpha_s, \alpha_s^2 + (sb)^2)\), below 1 for
    \(s < 2(1-\alpha)/((1-\alpha)^2 + b^2)\), b its gain. So every MRS-IPO loop with alpha < 1 can be made to converge.
    The best rate is \(b^2/((1-\alpha)^2 + b^2)\), at half that s.

    - `rate` in (0, 1): the least damped loop that is certified at this rate; None takes the best rate.
    - `metric`: "euclidean" or "best", as in `convergence_certificate`; "best" allows larger s.
    - `throw`: raise `RESULTS.infeasible` where no damping has that rate and `RESULTS.no_fixed_point` for alpha = 1;
      False returns it as data, with value 0.

    Returns a `Damping` with its `rate`; s may be above 1. It needs no fixed point. (For MRS-DPO damping makes no
    difference to whether a loop is certified.) Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> damping = ipodyn.certified_damping(loop)
    >>> round(float(damping.value), 6), round(float(damping.rate), 6)  # b = 8 * 0.3 * sqrt(3) / 2
    (0.109409, 0.945295)
    >>> bool(ipodyn.convergence_certificate(ipodyn.damped(loop, damping.value)).certified)
    True
    """
    check_ipo(loop, "whether MRS-DPO is certified does not depend on damping. Lower beta / (1 - alpha).")
    if metric not in METRICS:
        raise ValueError(f"`metric` is {metric!r}; it must be {' or '.join(map(repr, METRICS))}.")
    return _raised(_certified_damping(loop, None if rate is None else as_float(rate, loop.P), metric), throw)
