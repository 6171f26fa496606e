"""Preference matrices known by their counts: simultaneous intervals, and samplers for the worst case inside them."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._numerics.types import Preference, PreferenceLike, ScalarLike, as_float
from .._preferences.structure import smith_set
from .criteria import Criterion, Pairs, check_criterion, crossing
from .sampler import Excess, Sampler, design_by, excess, requested_floor

LARGEST_SMITH = 10  # responses: the possible Smith sets are enumerated


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
    across = crossing(sets)
    dominant = jnp.all((upper > 0.5)[None] | ~across, axis=(1, 2))
    if criterion == "condorcet":
        return dominant
    # Minimal for some matrix exactly if it is when all that is open inside is a tie.
    decided = jnp.where(lower > 0.5, 1.0, jnp.where(upper < 0.5, 0.0, 0.5)).astype(lower.dtype)
    inner = jnp.where(across, 1.0, jnp.where(across.swapaxes(1, 2), 0.0, decided[None]))
    return dominant & jnp.all(jax.vmap(smith_set)(inner) == sets, axis=1)


def robust_pairs(lower: Preference, upper: Preference, criterion: str) -> tuple[Pairs, Bool[Array, " sets"]]:
    """The pairs that the criterion names for some matrix in the box, and its `possible_tops` (of an order, none)."""
    check_criterion(criterion)
    K = lower.shape[0]
    if criterion == "order":
        return (upper > 0.5) & ~np.eye(K, dtype=bool), jnp.zeros(0, bool)
    tops = possible_tops(lower, upper, criterion)
    return jnp.any(tops[:, None, None] & crossing(subsets(K, criterion)), axis=0), tops


def robust_excess(lower: Preference, upper: Preference, criterion: str) -> tuple[Excess, Pairs]:
    """Margins in the worst case over the box, and the pairs that the criterion names for some matrix in the box.

    The margin of a pair counts only the matrices that name it. Where two sets could be on top that both hold the pair,
    each coefficient is its own worst case: safe, and no larger than the true worst case.
    """
    pairs, tops = robust_pairs(lower, upper, criterion)
    K = lower.shape[0]
    if criterion == "order":
        coefficients = excess(lower, upper)
        own = np.eye(K, dtype=bool)[:, None, :] | np.eye(K, dtype=bool)[None, :, :]  # k = i or k = j
        return jnp.where(own, jnp.maximum(coefficients, 0.0), coefficients), pairs
    across = crossing(subsets(K, criterion))
    lows = jnp.where(across, jnp.maximum(lower, 0.5)[None], lower[None])
    highs = jnp.where(across.swapaxes(1, 2), jnp.minimum(upper, 0.5)[None], upper[None])
    named = across & tops[:, None, None]
    worst = jnp.min(jnp.where(named[..., None], jax.vmap(excess)(lows, highs), jnp.inf), axis=0)
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
    >>> intervals = ipodyn.preference_intervals(np.array([[0, 70, 80], [30, 0, 50], [20, 50, 0]]))
    >>> bool(ipodyn.robust_sampler(intervals.lower, intervals.upper, "condorcet").margin > 0)
    True
    """
    lower, upper = as_float(lower), as_float(upper, lower)
    wanted = requested_floor(floor, lower)
    coefficients, pairs = robust_excess(lower, upper, criterion)
    return design_by(method, coefficients, pairs, wanted, as_float(smoothing, lower), throw=throw)
