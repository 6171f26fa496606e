"""What a preference matrix says of its responses: winners, cycles, orders, degrees of transitivity.

One matrix (K, K) at a time; batch with `jax.vmap`. Comparisons are exact on the given values: no tolerance is
hidden here, so round a matrix first where noise should count as a tie. "i beats j" is P[i, j] > P[j, i],
which for complementary P is P[i, j] > 1/2, and stays asymmetric when the two entries carry rounding errors.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from .._numerics.types import PreferenceLike, as_float


def as_matrix(P: ArrayLike) -> Array:
    """`P` as a floating (K, K) array, or a `ValueError` with its shape."""
    array = as_float(P)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise ValueError(
            f"`P` has shape {array.shape}: give one matrix (K, K); for several use jax.vmap, as in "
            "jax.vmap(ipodyn.smith_set)(P)."
        )
    return array


def condorcet_winner(P: PreferenceLike) -> Int[Array, ""]:
    r"""The response that beats every other one, \(P_{ij} > 1/2\) for all \(j \ne i\), or -1 where there is
    none.

    - `P`: shape (K, K). A tie with anyone disqualifies; see `weak_condorcet_winners`.

    Source: Condorcet (1785); Brandt, Conitzer, Endriss, Lang and Procaccia, *Handbook of Computational Social
    Choice* (2016), ch. 2.

    >>> import ipodyn, jax.numpy as jnp
    >>> int(ipodyn.condorcet_winner(jnp.array([[0.5, 0.4], [0.6, 0.5]])))
    1
    >>> int(ipodyn.condorcet_winner(ipodyn.problems.three_cycle(0.3)))
    -1
    """
    P = as_matrix(P)
    beats_all = jnp.all((P > P.T) | jnp.eye(P.shape[0], dtype=bool), axis=1)
    return jnp.where(jnp.any(beats_all), jnp.argmax(beats_all), -1)


def weak_condorcet_winners(P: PreferenceLike) -> Bool[Array, " K"]:
    r"""The responses that nobody beats, \(P_{ij} \ge 1/2\) for all j, as a mask; possibly none.

    - `P`: shape (K, K).

    >>> import ipodyn, jax.numpy as jnp
    >>> ipodyn.weak_condorcet_winners(jnp.full((2, 2), 0.5)).tolist()
    [True, True]
    """
    P = as_matrix(P)
    return ~jnp.any(P.T > P, axis=1)


def smith_set(P: PreferenceLike) -> Bool[Array, " K"]:
    r"""The smallest non-empty set whose members all beat (strictly) every outsider, as a mask.

    - `P`: shape (K, K). A tie does not count as beating, so a response that ties with a member is a member.

    Also called the top cycle or GETCHA. It is {i} exactly if i is the Condorcet winner. Cost O(K^2): a set of
    n responses beats all K - n others exactly if its Copeland scores (a win 2, a tie 1) sum to the largest
    possible, n (n - 1) + 2 n (K - n), and every such set is a prefix of the ranking by these scores.

    Source: Smith, *Aggregation of preferences with variable electorate*, Econometrica 41 (1973); the sums are
    Landau's condition (1953) for tournaments, which ties do not change.

    >>> import ipodyn
    >>> ipodyn.smith_set(ipodyn.problems.three_cycle(0.3)).tolist()
    [True, True, True]
    """
    P = as_matrix(P)
    return smith_mask(P > P.T)


def smith_mask(beats: Bool[Array | np.ndarray, "K K *batch"]) -> Any:
    """(K, *batch): the Smith set of a majority relation; a NumPy array of a NumPy array."""
    xp: Any = beats.__array_namespace__()
    K = beats.shape[0]
    score = beats.sum(axis=1) - beats.sum(axis=0) + (K - 1)  # 2 for a win, 1 for a tie with another
    prefix = score[None] >= score[:, None]  # row i: the responses that score at least as much as i
    size = prefix.sum(axis=1)
    total = xp.where(prefix, score[None], 0).sum(axis=1)
    dominant = total == size * (size - 1) + 2 * size * (K - size)
    # The full set is always dominant, so the maximum exists; the highest threshold is the smallest prefix.
    return score >= xp.where(dominant, score, -1).max(axis=0)


def has_cycle(P: PreferenceLike) -> Bool[Array, ""]:
    r"""Whether the strict majority relation has a directed cycle, i beats j beats ... beats i.

    - `P`: shape (K, K). Ties are no edges, so a "cycle" through a tie does not count.

    >>> import ipodyn
    >>> bool(ipodyn.has_cycle(ipodyn.problems.three_cycle(0.3)))
    True
    """
    P = as_matrix(P)
    beats = P > P.T
    # Take away, layer by layer, what no remaining response beats; K layers exhaust any acyclic relation.
    remaining = jnp.any(beats, axis=0)
    for _ in range(P.shape[0] - 1):
        remaining = jnp.any(beats & remaining[:, None], axis=0)
    return jnp.any(remaining)


class StrongOrder(eqx.Module):
    """The answer of `strong_order`.

    - `order`: shape (K,), the responses best first. Where no order exists, they are sorted by row sum
      instead.
    - `holds`: whether `order` is a strong order.
    - `strict`: whether it is strictly strong; then it is the only one.
    """

    order: Int[Array, " K"]
    holds: Bool[Array, ""]
    strict: Bool[Array, ""]


def strong_order(P: PreferenceLike) -> StrongOrder:
    r"""The order under which P is strongly transitive: \(P_{ik} \ge P_{jk}\) for all k whenever i ranks above
    j.

    - `P`: shape (K, K). Responses with equal rows stand in the order of their indices.

    Returns a `StrongOrder`: `.order` (K,) best first, `.holds`, and `.strict` for > in place of >=. Exactly
    for strictly strongly transitive P does the IPO optimum (uniform reference) keep one order under every
    sampling distribution.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, strong transitivity.

    >>> import ipodyn, jax.numpy as jnp
    >>> answer = ipodyn.strong_order(ipodyn.problems.bradley_terry(jnp.array([0.0, 2.0, 1.0])))
    >>> answer.order.tolist(), bool(answer.holds), bool(answer.strict)
    ([1, 2, 0], True, True)
    """
    P = as_matrix(P)
    K = P.shape[0]
    # Row dominance is transitive, so an order exists iff any two rows are comparable; then the number of rows
    # dominated sorts them, as row sums do (dominance orders sums, equal sums mean equal rows), but exactly.
    dominates = jnp.all(P[:, None, :] >= P[None, :, :], axis=2)
    strictly = jnp.all(P[:, None, :] > P[None, :, :], axis=2)
    holds = jnp.all(dominates | dominates.T)
    strict = jnp.all(strictly | strictly.T | jnp.eye(K, dtype=bool))
    key = jnp.where(holds, jnp.sum(dominates, axis=1).astype(P.dtype), jnp.sum(P, axis=1))
    return StrongOrder(order=jnp.argsort(-key), holds=holds, strict=strict)


class Transitivity(eqx.Module):
    """Degrees of transitivity of one matrix; each margin is >= 0 exactly where its degree holds.

    - `weak_margin`, `moderate_margin`, `strong_margin`: probabilities; the least excess over all chains
      (`transitivity`), +inf where there is none (K = 2).
    - `row_order`: strong transitivity by an order of the rows, `strong_order(P).holds`.
    - `linear_residual`: the largest |P[i, j] - 1/2 - (u_i - u_j)| in probability, u the row means of P: 0
      exactly for linear utility models.
    - `bradley_terry_residual`: the largest |log(P[i, j] / P[j, i]) - (r_i - r_j)| in log-odds, r the row
      means of the log-odds: 0 up to rounding exactly for Bradley-Terry P; +inf where some P[i, j] is 0.
    """

    weak_margin: Float[Array, "*batch"]
    moderate_margin: Float[Array, "*batch"]
    strong_margin: Float[Array, "*batch"]
    row_order: Bool[Array, "*batch"]
    linear_residual: Float[Array, "*batch"]
    bradley_terry_residual: Float[Array, "*batch"]

    @property
    def weak(self) -> Bool[Array, "*batch"]:
        """Weak stochastic transitivity: P[i, k] >= 1/2 on every chain."""
        return self.weak_margin >= 0

    @property
    def moderate(self) -> Bool[Array, "*batch"]:
        """Moderate stochastic transitivity: P[i, k] >= min(P[i, j], P[j, k]) on every chain."""
        return self.moderate_margin >= 0

    @property
    def strong(self) -> Bool[Array, "*batch"]:
        """Strong stochastic transitivity: P[i, k] >= max(P[i, j], P[j, k]) on every chain."""
        return self.strong_margin >= 0


def _additive_residual(skew: Float[Array, "K K"]) -> Float[Array, ""]:
    """The largest |S_ij - (s_i - s_j)| with s the row means, the least-squares potential of a skew matrix."""
    potential = jnp.mean(skew, axis=1)
    # Entries tie (for K = 3 all do). The derivative is that of one of them: a maximum shares it among those that are
    # equal bit for bit, which is more than compilers promise of a number that they compute twice.
    sizes = jnp.abs(skew - (potential[:, None] - potential[None, :])).ravel()
    return sizes[jnp.argmax(sizes)]


def transitivity(P: PreferenceLike) -> Transitivity:
    r"""How transitive P is: weak, moderate, strong, by an order of the rows, linear, Bradley-Terry.

    The three stochastic degrees ask of every chain of distinct responses, \(P_{ij} \ge 1/2\) and
    \(P_{jk} \ge 1/2\), that \(P_{ik}\) be at least 1/2 (weak), \(\min(P_{ij}, P_{jk})\) (moderate) or
    \(\max(P_{ij}, P_{jk})\) (strong). Bradley-Terry P is strong, strong is moderate, moderate is weak.

    Strong in this sense implies `row_order`, the strong transitivity of Chen et al. (arXiv 2602.12180), and
    without ties the two are the same. Where responses with different rows tie at 1/2 they are not: the chain
    condition reads a tie both ways and asks for equal rows, so that `row_order` may hold where even weak fails.

    - `P`: shape (K, K). Memory O(K^3).

    Returns a `Transitivity` with margins, residuals and `.weak`, `.moderate`, `.strong`.

    Source: Fishburn, *Binary choice probabilities: on the varieties of stochastic transitivity*, J. Math.
    Psychology 10 (1973).

    >>> import ipodyn, jax.numpy as jnp
    >>> degrees = ipodyn.transitivity(ipodyn.problems.bradley_terry(jnp.array([0.0, 2.0, 1.0])))
    >>> bool(degrees.strong), float(degrees.bradley_terry_residual) < 1e-12
    (True, True)
    """
    P = as_matrix(P)
    K = P.shape[0]
    at_least = P >= P.T
    apart = ~jnp.eye(K, dtype=bool)
    edge = at_least & apart
    chain = edge[:, :, None] & edge[None, :, :] & apart[:, None, :]  # axes i, j, k
    first = jnp.broadcast_to(P[:, :, None], (K, K, K))
    second = jnp.broadcast_to(P[None, :, :], (K, K, K))
    whole = jnp.broadcast_to(P[:, None, :], (K, K, K))

    def least(excess: Float[Array, "K K K"]) -> Float[Array, ""]:
        return jnp.min(jnp.where(chain, excess, jnp.inf))

    positive = jnp.all(P > 0)
    logs = jnp.log(jnp.where(positive, P, 0.5))
    return Transitivity(
        weak_margin=least(0.5 * (whole - jnp.swapaxes(whole, 0, 2))),  # P[i, k] - 1/2 by both entries
        moderate_margin=least(whole - jnp.minimum(first, second)),
        strong_margin=least(whole - jnp.maximum(first, second)),
        row_order=strong_order(P).holds,
        linear_residual=_additive_residual(0.5 * (P - P.T)),
        bradley_terry_residual=jnp.where(positive, _additive_residual(logs - logs.T), jnp.inf),
    )
