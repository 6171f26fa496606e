"""Intervals that hold the true preferences, from counts."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float, Int

from .._numerics.checks import host_value
from .._numerics.types import Preference, ScalarLike, as_float

BISECTIONS = 60


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
    >>> intervals = ipodyn.preference_intervals(np.array([[0, 8], [2, 0]]))
    >>> [round(float(x), 4) for x in (intervals.lower[0, 1], intervals.upper[0, 1])]
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
