r"""Critical parameters: where the spectral radius of a loop at its own fixed point first reaches 1."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._loops.mrs import MRS
from .._numerics.results import RESULTS, choose
from .._numerics.skew import safe_sqrt, skew_norm, skew_part
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, ScalarBlock, ScalarLike
from .first_crossing import first_crossing
from .fixed_point import solve_fixed_point
from .stability import solve_stability, squared_radius

ALPHA, BETA, LAM = range(3)  # which parameter is searched; each case of a batch has its own
CODES = {"alpha": ALPHA, "beta": BETA, "lam": LAM}


class Critical(eqx.Module):
    """What `critical_beta`, `critical_alpha` and `critical_lam` found.

    - `value` (): the parameter at which the radius first reaches 1, from the stable side, if `result` is successful;
      inf for `RESULTS.stable_throughout`, 0 for `RESULTS.unstable_throughout`, NaN if a solve failed.
    - `residual` (): |radius - 1| there, 0 where there is no crossing. - `policy` (K,): the fixed point there, or at the
      last value that was looked at.
    """

    value: ScalarBlock
    result: RESULTS
    residual: ScalarBlock
    policy: PolicyBlock


class _Range(NamedTuple):
    """Values of the parameter that have to be searched, lowest to highest; empty where `low >= high`."""

    low: ScalarBlock
    high: ScalarBlock


def _with(loop: MRS, which: IntBlock, value: ScalarBlock) -> MRS:
    """The loop with its parameter `which` replaced."""

    def put(code: int, own: ScalarBlock) -> ScalarBlock:
        return jnp.where(which == code, value, own)

    fields = (put(ALPHA, loop.alpha), put(BETA, loop.beta), put(LAM, loop.lam))
    return eqx.tree_at(lambda loop: (loop.alpha, loop.beta, loop.lam), loop, fields)


def _value(which: IntBlock, span: _Range, t: ScalarBlock) -> ScalarBlock:
    """The parameter at t in [0, 1]: geometric in beta and in 1 - alpha, linear in lam."""
    geometric = span.low * jnp.exp(t * jnp.log(span.high / jnp.where(which == BETA, span.low, 1.0)))
    towards_one = -jnp.expm1(t * jnp.log1p(-jnp.where(which == ALPHA, span.high, 0.0)))
    linear = span.low + t * (span.high - span.low)
    return jnp.where(which == BETA, geometric, jnp.where(which == ALPHA, towards_one, linear))


def _search_range(loop: MRS, which: IntBlock, largest: ScalarBlock) -> _Range:
    """Instability of MRS-IPO needs beta lam ||A|| / 2 >= sqrt(1 - alpha^2), because omega <= ||A|| / 2."""
    if loop.objective.is_linear:
        reach = jnp.where(which == BETA, loop.lam, loop.beta) * skew_norm(skew_part(loop.P)) / 2
        # A thousandth lower, so that the scan starts on the stable side in spite of rounding.
        least = 0.999 * safe_sqrt(1 - loop.alpha**2) / jnp.where(reach > 0, reach, 1.0)
        low = jnp.where(reach > 0, jnp.minimum(least, largest), largest)
    else:
        low = jnp.where(which == BETA, 1e-3, jnp.zeros_like(largest))
    return _Range(jnp.where(which == ALPHA, 0.0, low), largest)


def _squared_radius(loop: MRS, policy: PolicyBlock) -> ScalarBlock:
    return squared_radius(loop, policy) if loop.objective.is_linear else solve_stability(loop, policy).radius ** 2


class _Found(NamedTuple):
    value: ScalarBlock
    residual: ScalarBlock
    policy: PolicyBlock
    never: BoolBlock
    always: BoolBlock
    certified: BoolBlock


@eqx.filter_custom_jvp
def _solve(loop: MRS, which: IntBlock, largest: ScalarBlock) -> _Found:
    span = _search_range(loop, which, largest)

    def height(t: ScalarBlock, policy: PolicyBlock) -> tuple[ScalarBlock, PolicyBlock, BoolBlock]:
        """log rho^2, from the fixed point at a neighbouring value."""
        at_value = _with(loop, which, _value(which, span, t))
        star = solve_fixed_point(at_value, policy)
        squared = _squared_radius(at_value, star.policy)
        return jnp.log(jnp.maximum(squared, 1e-30)), star.policy, star.result == RESULTS.successful

    search = first_crossing(height, loop.pi_ref, jnp.zeros_like(span.low))
    eps = float(jnp.finfo(loop.P.dtype).eps)
    residual = jnp.where(search.crosses, jnp.abs(jnp.expm1(search.height / 2)), 0.0)
    # With alpha = 1 every beta is too large and so is every lam: the radius is 1 or more from the start.
    anchored = (loop.alpha < 1) | (which == ALPHA)
    always = search.starts_above | ~anchored
    never = ~search.crosses & ~always
    certified = (search.exists & (residual <= eps**0.6)) | ~anchored
    value = jnp.where(never, jnp.inf, jnp.where(always, 0.0, _value(which, span, search.t)))
    value = jnp.where(certified, value, jnp.nan)
    return _Found(value, residual, search.carry, never, always, certified)


@_solve.def_jvp
def _solve_jvp(primals, tangents):
    """Implicit function theorem: rho^2(loop, value) = 1 stays."""
    loop, which, largest = primals
    solution = _solve(loop, which, largest)
    crosses = solution.certified & ~solution.never & ~solution.always
    own = jnp.where(which == ALPHA, loop.alpha, jnp.where(which == BETA, loop.beta, loop.lam))
    value = jnp.where(crosses, solution.value, own)
    fields, rest = eqx.partition(loop, eqx.is_inexact_array)
    zeros = jax.tree.map(jnp.zeros_like, fields)
    given = jax.tree.map(lambda x, dx: x if dx is None else dx, zeros, tangents[0], is_leaf=lambda x: x is None)

    def squared(fields: MRS, value: ScalarBlock) -> ScalarBlock:
        at_value = _with(eqx.combine(fields, rest), which, value)
        return _squared_radius(at_value, solve_fixed_point(at_value).policy)

    _, linear = jax.linearize(squared, fields, value)
    slope = linear(zeros, jnp.ones_like(value))
    usable = crosses & (slope != 0)
    dvalue = jnp.where(usable, -linear(given, jnp.zeros_like(value)) / jnp.where(usable, slope, 1.0), 0.0)
    still = (jnp.zeros_like(solution.residual), jnp.zeros_like(solution.policy))
    return solution, _Found(dvalue, *still, None, None, None)  # pyright: ignore[reportArgumentType]


def solve_critical(loop: MRS, which: IntBlock | int, largest: ScalarBlock | ScalarLike) -> Critical:
    """The critical values of parameters (one of `CODES`) of a loop with batch axes behind; compiles nothing itself."""
    shape = loop.alpha.shape
    ends = jnp.broadcast_to(jnp.asarray(largest, loop.P.dtype), shape)
    solution = _solve(loop, jnp.broadcast_to(jnp.asarray(which, jnp.int32), shape), ends)
    result = choose(solution.never, RESULTS.stable_throughout, RESULTS.successful)
    result = choose(solution.always, RESULTS.unstable_throughout, result)
    result = choose(solution.certified, result, RESULTS.max_steps_reached)
    return Critical(solution.value, result, solution.residual, solution.policy)


# Which parameter it is about is data, so that one compiled program serves all three.
_critical = eqx.filter_jit(solve_critical)


def _checked(loop: MRS, largest: float, which: int, below: float, throw: bool) -> Critical:
    if not 0 < largest <= below:
        raise ValueError(f"`largest` is {largest}; it must be in (0, {below}].")
    critical = _critical(loop, jnp.asarray(which, jnp.int32), jnp.asarray(largest, loop.P.dtype))
    return critical.result.error_if(critical, critical.result == RESULTS.max_steps_reached) if throw else critical


def critical_beta(loop: MRS, *, largest: float = 1e4, throw: bool = True) -> Critical:
    r"""The beta at which a loop first loses stability: \(\rho(\beta) = 1\) with the fixed point moving along.

    For MRS-IPO, \(\alpha^2 + (\beta\lambda\,\omega(\pi^*(\beta)))^2 = 1\). The radius need not grow with beta: omega
    shrinks as the fixed point nears a face, so a loop may become stable again; this is the first crossing from the
    stable side. The search is a scan (geometric, 48 values, from the smallest beta at which instability is possible
    to `largest`; maxima near 1 are looked into) and then false position. Two crossings closer together than the scan
    resolves, with no maximum that it notices, would be missed.

    - `loop`: its own `beta` is not used. - `largest`: end of the search.
    - `throw`: raise where a fixed point could not be certified; False returns it as data.

    Returns a `Critical`; that there is no crossing is a result, not an error: `RESULTS.stable_throughout` up to
    `largest` (value inf), `RESULTS.unstable_throughout` from 0 on (value 0; alpha = 1). Differentiable by the implicit
    function theorem in all fields but `beta`, with derivative 0 where nothing crosses. Source: derived here,
    from the spectrum that `stability` states.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=1.0)
    >>> round(float(ipodyn.critical_beta(loop).value), 6)  # sqrt(3 (1 - alpha^2)) / 0.3
    5.0
    """
    return _checked(loop, largest, BETA, float("inf"), throw)


def critical_alpha(loop: MRS, *, largest: float = 0.9999, throw: bool = True) -> Critical:
    r"""The alpha at which a loop first loses stability as the reference follows the policy more closely.

    As `critical_beta`, from alpha = 0 to `largest` (geometric in 1 - alpha); `RESULTS.unstable_throughout` (value 0)
    where the loop is unstable at alpha = 0 already, though it may be stable further up.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=5.0, lam=1.0)
    >>> round(float(ipodyn.critical_alpha(loop).value), 6)  # sqrt(1 - (0.3 * 5)^2 / 3)
    0.5
    """
    return _checked(loop, largest, ALPHA, 1 - 1e-6, throw)


def critical_lam(loop: MRS, *, throw: bool = True) -> Critical:
    r"""The fraction of on-policy samples at which a loop first loses stability, in [0, 1].

    As `critical_beta`, on an even grid; `RESULTS.stable_throughout` (value inf) where even lam = 1 is stable.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=10.0, lam=1.0)
    >>> round(float(ipodyn.critical_lam(loop).value), 6)  # sqrt(3 (1 - alpha^2)) / (0.3 * 10)
    0.5
    """
    return _checked(loop, 1.0, LAM, 1.0, throw)
