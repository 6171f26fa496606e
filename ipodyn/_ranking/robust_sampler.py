"""Preference matrices known by their counts: simultaneous intervals, and samplers for the worst case inside them."""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ._sampler import (
    CRITERIA,
    Criterion,
    Excess,
    Pairs,
    Sampler,
    design_by,
    excess,
    host_value,
    requested_floor,
)
from ._structure import smith_set
from ._types import Preference, PreferenceLike, ScalarLike, as_float

BISECTIONS = 60
LARGEST_SMITH = 10  # responses: the possible Smith sets are enumerated


class PreferenceIntervals(eqx.Module):
    r"""A box of complementary preference matrices, lower <= P <= upper with lower + upper.T = 1 and diagonals 1/2.

    - `lower`, `upper`, `estimate`: shape (K, K). - `confidence` (): that the whole of P lies in the box.
    """

    lower: Preference
    upper: Preference
    estimate: Preference
    confidence: Float[Array, ""]


@jax.custom_jvp
def _clopper_pearson(wins: Preference, losses: Preference, tail: Float[Array, ""]) -> Preference:
    """The lower limit: p with Pr(at least that many wins | p) = tail, by bisection; 0 where there is no win."""

    def halve(_, ends: tuple[Preference, Preference]) -> tuple[Preference, Preference]:
        low, high = ends
        middle = 0.5 * (low + high)
        beyond = jax.scipy.special.betainc(jnp.maximum(wins, 1.0), losses + 1, middle) > tail
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(wins), jnp.ones_like(wins)))
    return jnp.where(wins > 0, low, 0.0)


@functools.partial(_clopper_pearson.defjvp, symbolic_zeros=True)
def _clopper_pearson_jvp(primals, tangents):
    """Implicit function theorem: dp = dtail / density of the beta distribution at p; none in the counts."""
    wins, losses, tail = primals
    if not all(isinstance(change, SymbolicZero) for change in tangents[:2]):
        raise ValueError(
            "`wins` has no derivative: Clopper-Pearson limits are defined for whole numbers. Differentiate in "
            "`confidence`, or in `lower` and `upper` themselves."
        )
    low = _clopper_pearson(wins, losses, tail)
    known = (low > 0) & (low < 1)
    p, a, b = jnp.where(known, low, 0.5), jnp.maximum(wins, 1.0), losses + 1
    log_density = (a - 1) * jnp.log(p) + (b - 1) * jnp.log1p(-p) - jax.scipy.special.betaln(a, b)
    return low, jnp.where(known, tangents[2] * jnp.exp(-log_density), 0.0)


def preference_intervals(
    wins: Float[ArrayLike, "K K"] | Int[ArrayLike, "K K"], *, confidence: ScalarLike = 0.95, simultaneous: bool = True
) -> PreferenceIntervals:
    r"""Clopper-Pearson intervals for P from counts: exact for any number of comparisons, never too narrow.

    The lower limit of \(P_{ij}\) is the p at which at least the observed number of wins has probability
    \(a / 2\), \(1 - a\) the confidence of one interval; upper limits are complements of lower ones.

    - `wins`: shape (K, K), wins[i, j] how often i beat j in comparisons whose number did not depend on their outcomes
      (else see `SequentialDesign`); a tie is to be given to either side by a fair coin. The diagonal is ignored.
    - `confidence`: in (0, 1). - `simultaneous`: that of all pairs together, a = (1 - confidence) / (K (K - 1) / 2) by
      Bonferroni; False for each pair by itself.

    Returns a `PreferenceIntervals`; a pair never compared has the interval [0, 1] and the estimate 1/2. The limits are
    differentiable in `confidence`; differentiating them in `wins`, whole numbers, raises `ValueError`.

    Source: Clopper and Pearson, Biometrika 26 (1934).

    >>> import ipodyn, numpy as np
    >>> found = ipodyn.preference_intervals(np.array([[0, 8], [2, 0]]))
    >>> [round(float(x), 4) for x in (found.lower[0, 1], found.upper[0, 1])]
    [0.4439, 0.9748]
    """
    wins = as_float(wins)
    K = wins.shape[0]
    known = host_value(confidence)
    if known is not None and not 0 < known < 1:
        raise ValueError(f"`confidence` is {known}; it must be in (0, 1).")
    confidence = as_float(confidence, wins)
    apart = ~np.eye(K, dtype=bool)
    wins = jnp.where(apart, wins, 0.0)
    tail = (1 - confidence) / 2 / (K * (K - 1) / 2 if simultaneous else 1)
    lower = jnp.where(apart, _limits(wins, wins.T, tail), 0.5)
    total = wins + wins.T
    estimate = jnp.where(total > 0, wins / jnp.where(total > 0, total, 1.0), 0.5)
    return PreferenceIntervals(lower, 1 - lower.T, estimate, confidence)


_limits = jax.jit(_clopper_pearson)


def subsets(K: int, criterion: str) -> np.ndarray:
    """The sets that may have to stay on top, (sets, K) bool: single responses, or all proper subsets."""
    if criterion == "condorcet":
        return np.eye(K, dtype=bool)
    if K > LARGEST_SMITH:
        raise ValueError(f"`criterion` 'smith' tries all subsets of the responses: K is {K}, at most {LARGEST_SMITH}.")
    codes = np.arange(1, 2**K - 1)
    return (codes[:, None] >> np.arange(K)[None]) % 2 == 1


def possible_tops(lower: Preference, upper: Preference, criterion: str) -> Bool[Array, " sets"]:
    """Which of `subsets` is the Condorcet winner (the Smith set) of some matrix in the box."""
    sets = subsets(lower.shape[0], criterion)
    crossing = sets[:, :, None] & ~sets[:, None, :]
    dominant = jnp.all((upper > 0.5)[None] | ~crossing, axis=(1, 2))
    if criterion == "condorcet":
        return dominant
    # Minimal for some matrix exactly if it is when all that is open inside is a tie.
    sure = jnp.where(lower > 0.5, 1.0, jnp.where(upper < 0.5, 0.0, 0.5)).astype(lower.dtype)
    inner = jnp.where(crossing, 1.0, jnp.where(crossing.swapaxes(1, 2), 0.0, sure[None]))
    return dominant & jnp.all(jax.vmap(smith_set)(inner) == sets, axis=1)


def robust_excess(lower: Preference, upper: Preference, criterion: str) -> tuple[Excess, Pairs]:
    """Margins in the worst case over the box, and the pairs that the criterion names for some matrix in the box.

    The margin of a pair counts only the matrices that name it. Where two sets could be on top that both hold the pair,
    each coefficient is its own worst case: safe, and no larger than the true worst case.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` is {criterion!r}; it must be one of {', '.join(CRITERIA)}.")
    K = lower.shape[0]
    if criterion == "order":
        coefficients, pairs = excess(lower, upper), (upper > 0.5) & ~np.eye(K, dtype=bool)
        own = np.eye(K, dtype=bool)[:, None, :] | np.eye(K, dtype=bool)[None, :, :]  # k = i or k = j
        return jnp.where(own, jnp.maximum(coefficients, 0.0), coefficients), pairs
    sets = subsets(K, criterion)
    crossing = sets[:, :, None] & ~sets[:, None, :]
    possible = possible_tops(lower, upper, criterion)
    lows = jnp.where(crossing, jnp.maximum(lower, 0.5)[None], lower[None])
    highs = jnp.where(crossing.swapaxes(1, 2), jnp.minimum(upper, 0.5)[None], upper[None])
    named = crossing & possible[:, None, None]
    worst = jnp.min(jnp.where(named[..., None], jax.vmap(excess)(lows, highs), jnp.inf), axis=0)
    pairs = jnp.any(named, axis=0)
    return jnp.where(pairs[..., None], worst, 0.0), pairs


def robust_sampler(
    lower: PreferenceLike,
    upper: PreferenceLike,
    criterion: Criterion = "smith",
    *,
    floor: ScalarLike | None = None,
    method: Literal["jax", "highs"] = "jax",
    smoothing: ScalarLike = 0.0,
    throw: bool = True,
) -> Sampler:
    r"""The sampling distribution with the largest margin in the worst case over all P with `lower` <= P <= `upper`.

    The worst case of \((P\mu)_i - (P\mu)_j\) is linear in \(\mu \ge 0\),
    \(\sum_k \mu_k (L_{ik} - U_{jk})\), the entry that both rows share, \(P_{ij} = 1 - P_{ji}\), taken once: still a
    linear programme. Which pairs have to be in order depends on P too. The criterion is met for every matrix of the
    box: a response that might be the Condorcet winner must be on top for all matrices where it is, and so on. A
    positive `margin` therefore certifies the criterion for P at the confidence with which P is in the box.

    - `lower`, `upper`: shape (K, K), of `preference_intervals`; lower + upper.T = 1, diagonals 1/2.
    - `criterion`, `floor`, `method`, `smoothing`, `throw`: as in `design_sampler`; "smith" for K <= 10. `vacuous`
      means that no matrix of the box has a pair to put in order.

    Returns a `Sampler` whose `margin`, `bound` and `certificate` speak of the worst case; `RESULTS.unattainable` says
    that these intervals certify no sampler, not that there is none for P: compare more.

    >>> import ipodyn, numpy as np
    >>> found = ipodyn.preference_intervals(np.array([[0, 70, 80], [30, 0, 50], [20, 50, 0]]))
    >>> bool(ipodyn.robust_sampler(found.lower, found.upper, "condorcet").margin > 0)
    True
    """
    lower, upper = as_float(lower), as_float(upper, lower)
    wanted = requested_floor(floor, lower)
    coefficients, pairs = robust_excess(lower, upper, criterion)
    return design_by(method, coefficients, pairs, wanted, as_float(smoothing, lower), throw=throw)
