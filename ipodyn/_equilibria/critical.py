r"""Critical parameters: where the spectral radius of a loop at its own fixed point first reaches 1."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._loops.mrs import MRS
from .._numerics.results import RESULTS, choose
from .._numerics.skew import safe_sqrt, skew_norm, skew_part
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, ScalarBlock, ScalarLike
from .fixed_point import solve_fixed_point
from .stability import solve_stability, squared_radius

ALPHA, BETA, LAM = range(3)  # which parameter is searched; each case of a batch has its own
CODES = {"alpha": ALPHA, "beta": BETA, "lam": LAM}
NUM_POINTS = 48  # of the scan for the first crossing
CLOSE = 0.05  # a maximum of log rho^2 on the scan is looked into if its parabola rises above minus this
PEAK_STEPS = 24
ROOT_STEPS = 60


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


class _Probe(NamedTuple):
    """log rho^2 at one value of the parameter, the fixed point there, and whether that is certified."""

    height: ScalarBlock
    policy: PolicyBlock
    solved: BoolBlock


def _squared_radius(loop: MRS, policy: PolicyBlock) -> ScalarBlock:
    return squared_radius(loop, policy) if loop.objective.is_linear else solve_stability(loop, policy).radius ** 2


def _probe(loop: MRS, policy0: PolicyBlock | None) -> _Probe:
    found = solve_fixed_point(loop, policy0)
    squared = _squared_radius(loop, found.policy)
    return _Probe(jnp.log(jnp.maximum(squared, 1e-30)), found.policy, found.result == RESULTS.successful)


SCAN, HUMP, REFINE, OVER = range(4)


class _Search(NamedTuple):
    """One search for the first crossing. Every case goes at its own pace through scan, looks at humps, refinement.

    `t` is probed next; `point` counts the scan. In the scan (t1, h1) and (t2, h2) are the last two points and their
    heights; in a hump t2 < t1 < `end` enclose its maximum; in the refinement t2 and t1 enclose the crossing.
    """

    phase: IntBlock
    t: ScalarBlock
    point: IntBlock
    t1: ScalarBlock
    h1: ScalarBlock
    t2: ScalarBlock
    h2: ScalarBlock
    end: ScalarBlock
    tries: IntBlock  # in the hump or in the refinement
    side: IntBlock  # of the crossing on which the last point lay
    crosses: BoolBlock
    starts_unstable: BoolBlock
    solved: BoolBlock
    probe: _Probe


def _after(search: _Search, new: _Probe, eps: float) -> _Search:
    """What to do next, knowing the height at `search.t`."""
    s, h = search, new.height
    last = NUM_POINTS - 1

    def place(i: IntBlock) -> ScalarBlock:
        return i.astype(h.dtype) / last

    above = h >= 0
    scanning, humping, refining = s.phase == SCAN, s.phase == HUMP, s.phase == REFINE

    # Scan: a sign change starts the refinement, a maximum between points that may rise above 0 a closer look.
    enters = above & ((scanning & (s.point > 0)) | humping)
    starts_unstable = s.starts_unstable | (scanning & above & (s.point == 0))
    rise, fall = s.h1 - s.h2, s.h1 - h
    top = s.h1 + (rise - fall) ** 2 / (8 * jnp.maximum(rise + fall, jnp.finfo(h.dtype).tiny))
    looks = scanning & ~above & (s.point > 1) & (rise >= 0) & (fall >= 0) & (top >= -CLOSE)
    gives_up = humping & ~above & (s.tries >= PEAK_STEPS)
    goes_on = (scanning & ~above & ~looks) | gives_up

    # Hump: golden section. The trial becomes the best point or a new end.
    better, right = h > s.h1, s.t > s.t1
    hump_t1, hump_h1 = jnp.where(better, s.t, s.t1), jnp.where(better, h, s.h1)
    hump_t2 = jnp.where(better & right, s.t1, jnp.where(~better & ~right, s.t, s.t2))
    hump_h2 = jnp.where(better & right, s.h1, jnp.where(~better & ~right, h, s.h2))
    hump_end = jnp.where(better & ~right, s.t1, jnp.where(~better & right, s.t, s.end))

    # Refinement: false position with halved weights (Illinois), t2 below the crossing and t1 above.
    low_t, low_h = jnp.where(above, s.t2, s.t), jnp.where(above, jnp.where(s.side > 0, s.h2 / 2, s.h2), h)
    high_t, high_h = jnp.where(above, s.t, s.t1), jnp.where(above, h, jnp.where(s.side < 0, s.h1 / 2, s.h1))
    found = refining & ((jnp.abs(h) <= 4 * eps) | (high_t - low_t <= 2 * eps) | (s.tries >= ROOT_STEPS))

    point = s.point + goes_on.astype(s.point.dtype)
    exhausted = goes_on & (point > last)
    phase = jnp.where(enters, REFINE, jnp.where(looks, HUMP, jnp.where(gives_up, SCAN, s.phase)))
    # A failed solve has no height: what follows would be worth nothing.
    phase = jnp.where(found | exhausted | starts_unstable | ~new.solved, OVER, phase)

    def pick(scan: Any, hump: Any, refine: Any) -> Any:
        return jnp.where(refining | enters, refine, jnp.where(humping | looks, hump, scan))

    # From the scan and the hump, the point below is the last one that was below 0.
    below_t = jnp.where(refining, low_t, jnp.where(humping & (s.t > s.t1), s.t1, jnp.where(humping, s.t2, s.t1)))
    below_h = jnp.where(refining, low_h, jnp.where(humping & (s.t > s.t1), s.h1, jnp.where(humping, s.h2, s.h1)))
    above_t, above_h = jnp.where(refining, high_t, s.t), jnp.where(refining, high_h, h)
    t1 = pick(jnp.where(gives_up, place(s.point), s.t), jnp.where(looks, s.t1, hump_t1), above_t)
    h1 = pick(jnp.where(gives_up, s.h1, h), jnp.where(looks, s.h1, hump_h1), above_h)
    t2 = pick(s.t1, jnp.where(looks, s.t2, hump_t2), below_t)
    h2 = pick(s.h1, jnp.where(looks, s.h2, hump_h2), below_h)
    end = jnp.where(looks, s.t, hump_end)

    golden = (3 - 5**0.5) / 2
    hump_t = jnp.where(end - t1 > t1 - t2, t1 + golden * (end - t1), t1 - golden * (t1 - t2))
    share = jnp.clip(h2 / jnp.where(h2 == h1, -1.0, h2 - h1), 0.0, 1.0)
    tries = jnp.where(enters | looks | gives_up, 0, s.tries + 1)
    # Every third step halves the bracket, whatever the function does.
    refine_t = t2 + jnp.where(tries % 3 == 2, 0.5, share) * (t1 - t2)
    t = jnp.where(phase == REFINE, refine_t, jnp.where(phase == HUMP, hump_t, place(jnp.minimum(point, last))))
    return _Search(
        phase,
        jnp.where(phase == OVER, s.t, t),
        point,
        t1,
        h1,
        t2,
        h2,
        end,
        tries,
        jnp.where(refining, jnp.where(above, 1, -1), 0),
        s.crosses | enters,
        starts_unstable,
        s.solved & new.solved,
        new,
    )


def _search(loop: MRS, which: IntBlock, span: _Range) -> _Search:
    eps = float(jnp.finfo(loop.P.dtype).eps)
    zero = jnp.zeros_like(span.low)
    count = jnp.zeros(zero.shape, jnp.int32)
    no = jnp.zeros(zero.shape, bool)
    begin = _Search(
        *(count, zero, count, zero, zero, zero, zero, zero, count, count, no, no, ~no),
        _Probe(zero, loop.pi_ref, ~no),
    )

    def step(search: _Search) -> _Search:
        # Cases that failed are over, but their lanes run on: at the start of the range, which costs the others least.
        start = jnp.where(search.solved[None], search.probe.policy, loop.pi_ref)
        value = _value(which, span, jnp.where(search.solved, search.t, 0.0))
        new = _probe(_with(loop, which, value), start)
        after = _after(search, new, eps)
        over = search.phase == OVER
        return jax.tree.map(lambda a, b: jnp.where(over[(None,) * (a.ndim - over.ndim)], a, b), search, after)

    return jax.lax.while_loop(lambda search: jnp.any(search.phase != OVER), step, begin)


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
    search = _search(loop, which, span)
    eps = float(jnp.finfo(loop.P.dtype).eps)
    residual = jnp.where(search.crosses, jnp.abs(jnp.expm1(search.probe.height / 2)), 0.0)
    # With alpha = 1 every beta is too large and so is every lam: the radius is 1 or more from the start.
    anchored = (loop.alpha < 1) | (which == ALPHA)
    always = search.starts_unstable | ~anchored
    never = ~search.crosses & ~always
    certified = (search.solved & (residual <= eps**0.6)) | ~anchored
    value = jnp.where(never, jnp.inf, jnp.where(always, 0.0, _value(which, span, search.t)))
    value = jnp.where(certified, value, jnp.nan)
    return _Found(value, residual, search.probe.policy, never, always, certified)


@_solve.def_jvp
def _solve_jvp(primals, tangents):
    """Implicit function theorem: rho^2(loop, value) = 1 stays."""
    loop, which, largest = primals
    found = _solve(loop, which, largest)
    crosses = found.certified & ~found.never & ~found.always
    own = jnp.where(which == ALPHA, loop.alpha, jnp.where(which == BETA, loop.beta, loop.lam))
    value = jnp.where(crosses, found.value, own)
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
    still = (jnp.zeros_like(found.residual), jnp.zeros_like(found.policy))
    return found, _Found(dvalue, *still, None, None, None)  # pyright: ignore[reportArgumentType]


def solve_critical(loop: MRS, which: IntBlock | int, largest: ScalarBlock | ScalarLike) -> Critical:
    """The critical values of parameters (one of `CODES`) of a loop with batch axes behind; compiles nothing itself."""
    shape = loop.alpha.shape
    ends = jnp.broadcast_to(jnp.asarray(largest, loop.P.dtype), shape)
    found = _solve(loop, jnp.broadcast_to(jnp.asarray(which, jnp.int32), shape), ends)
    result = choose(found.never, RESULTS.stable_throughout, RESULTS.successful)
    result = choose(found.always, RESULTS.unstable_throughout, result)
    result = choose(found.certified, result, RESULTS.max_steps_reached)
    return Critical(found.value, result, found.residual, found.policy)


# Which parameter it is about is data, so that one compiled program serves all three.
_critical = eqx.filter_jit(solve_critical)


def _checked(loop: MRS, largest: float, which: int, below: float, throw: bool) -> Critical:
    if not 0 < largest <= below:
        raise ValueError(f"`largest` is {largest}; it must be in (0, {below}].")
    found = _critical(loop, jnp.asarray(which, jnp.int32), jnp.asarray(largest, loop.P.dtype))
    return found.result.error_if(found, found.result == RESULTS.max_steps_reached) if throw else found


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
    r"""The share of on-policy sampling at which a loop first loses stability, in [0, 1].

    As `critical_beta`, on an even grid; `RESULTS.stable_throughout` (value inf) where even lam = 1 is stable.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=10.0, lam=1.0)
    >>> round(float(ipodyn.critical_lam(loop).value), 6)  # sqrt(3 (1 - alpha^2)) / (0.3 * 10)
    0.5
    """
    return _checked(loop, 1.0, LAM, 1.0, throw)
