r"""What skewed sampling does to a one-shot optimum: gaps between logits, entropy and top mass as mu moves.

For IPO a logit gap changes by \(\beta \sum_k (P_{ik} - P_{jk})(\mu'_k - \mu_k)\), so which gaps grow is a matter of
the rows of P. Not all can: with \(\delta = \mu' - \mu\) and the skew part A of P, \(\delta^\top A\,\delta = 0\), which,
summed by parts along any order of the responses, reads

    sum over cuts m of (mass moved up across the cut) * (change of the gap across the cut) = 0.

If mass moves up across every cut, some neighbours come closer unless no gap changes at all; what can grow freely are
the gaps across which no mass moves.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._numerics.deprecation import leading_argument, renamed_attribute
from .._numerics.results import RESULTS, throw_unless_successful
from .._numerics.simplex import entropy, log_policy, softmax
from .._numerics.types import PolicyBlock, PolicyLike, PreferenceBlock, PreferenceLike, ScalarLike, as_float
from .._preferences.structure import as_matrix, strong_order
from .ipo import IPO
from .objective import AbstractObjective, prepare
from .response import ScoreSolution

Ranking = Int[ArrayLike, " K"]


def _tolerance(atol: ScalarLike | None, x: Array) -> Array:
    """Sums over K terms of size 1 that are zero by mathematics come out this large."""
    return as_float(8 * x.shape[0] * float(jnp.finfo(x.dtype).eps) if atol is None else atol, x)


class RowGaps(eqx.Module):
    """The answer of `row_gap_monotone`.

    - `order`: shape (K,), the responses best first, by `strong_order`.
    - `drop`: shape (K, K), for i above j the least fall of P[i, k] - P[j, k] from an opponent k to the next weaker one,
      as a probability; below 0 the gap widens there. +inf for other pairs.
    - `pairs`: shape (K, K), for which i above j the gap never widens towards weaker opponents; False for other pairs.
    - `holds` (): whether that is so for all pairs, and P is strongly transitive.
    """

    order: Int[Array, " K"]
    drop: PreferenceBlock
    pairs: Bool[Array, "K K"]
    holds: Bool[Array, ""]


def _above(order: Int[Array, " K"]) -> Bool[Array, "K K"]:
    """Whether i stands above j."""
    rank = jnp.argsort(order)
    return rank[:, None] < rank[None, :]


def row_gap_monotone(P: PreferenceLike, *, atol: ScalarLike | None = None) -> RowGaps:
    r"""For which pairs the row gap \(k \mapsto P_{ik} - P_{jk}\) is larger against stronger opponents k.

    For such a pair, i above j, moving the sampling distribution up the order (`dominates`) can only enlarge the IPO
    logit gap of i over j: skewed sampling sharpens it.

    - `P`: shape (K, K). - `atol`: how much a gap may widen and still count as constant; None is 8 K roundings.

    Returns a `RowGaps`. It holds for all pairs only for linear preferences \(P_{ij} = 1/2 + u_i - u_j\), where all gaps
    are constant: the fall of the gap of (i, j) from k to l is minus that of (k, l) from i to j.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, concentration; here pair by
    pair.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.bradley_terry(jnp.array([2.0, 1.0, 0.0]))
    >>> ipodyn.row_gap_monotone(P).pairs.tolist()  # 0 over 1 falls, 1 over 2 widens against the weaker
    [[False, True, False], [False, False, False], [False, False, False]]
    """
    P = as_matrix(P)
    ranked = strong_order(P)
    rows = P[:, ranked.order]
    gaps = rows[:, None, :] - rows[None, :, :]
    above = _above(ranked.order)
    drop = jnp.where(above, jnp.min(gaps[..., :-1] - gaps[..., 1:], axis=2, initial=jnp.inf), jnp.inf)
    pairs = above & (drop >= -_tolerance(atol, P))
    return RowGaps(ranked.order, drop, pairs, jnp.all(pairs | ~above) & ranked.holds)


def dominates(
    mu_prime: PolicyLike, mu: PolicyLike, order: Ranking, *, atol: ScalarLike | None = None
) -> Bool[Array, ""]:
    r"""Whether `mu_prime` stands above `mu` by first-order stochastic dominance along `order`.

    Of every number m of top responses it holds at least as much mass: \(\sum_{a \le m} \mu'_{o_a} \ge \sum_{a \le m}
    \mu_{o_a}\).

    - `mu_prime`, `mu`: shape (K,). - `order`: shape (K,), the responses best first.
    - `atol`: how much less mass still counts as equal; None is 8 K roundings. A distribution dominates itself.

    >>> import ipodyn, jax.numpy as jnp
    >>> bool(ipodyn.dominates(jnp.array([0.6, 0.2, 0.2]), jnp.array([0.4, 0.4, 0.2]), jnp.arange(3)))
    True
    """
    mu_prime = as_float(mu_prime)
    return jnp.all(_crossing(mu_prime, as_float(mu, mu_prime), jnp.asarray(order)) >= -_tolerance(atol, mu_prime))


def _crossing(mu_prime: PolicyBlock, mu: PolicyBlock, order: Int[Array, " K"]) -> Float[Array, "K-1"]:
    return jnp.cumsum((mu_prime - mu)[order])[:-1]


class ConcentrationCondition(eqx.Module):
    """The answer of `concentration_condition`.

    - `order`: shape (K,), best first. - `gain`: shape (K, K), for i above j how much the score gap of i over j grows;
      0 for other pairs. - `violations`: shape (K, K), the pairs i above j whose gap shrinks.
    - `holds` (): whether no gap shrinks. - `margin` (): the least gain.
    - `crossing`: shape (K - 1,), the mass moved up across each cut of the order; negative where it moves down.
    """

    order: Int[Array, " K"]
    gain: PreferenceBlock
    violations: Bool[Array, "K K"]
    holds: Bool[Array, ""]
    margin: Float[Array, ""]
    crossing: Float[Array, "K-1"]


def concentration_condition(
    P: PreferenceLike,
    mu: PolicyLike,
    mu_prime: PolicyLike,
    *,
    order: Ranking | None = None,
    atol: ScalarLike | None = None,
) -> ConcentrationCondition:
    r"""Whether sampling from mu' in place of mu enlarges every IPO gap.

    \(\sum_k (P_{ik} - P_{jk})(\mu'_k - \mu_k) \ge 0\) for all i above j. Times beta it is the change of the logit gap.
    Where it holds and the optimum at mu is sorted by `order`, the optimum at mu' majorises it: less entropy, more mass
    on the top responses, however many.

    - `P`: shape (K, K). - `mu`, `mu_prime`: shape (K,). - `order`: shape (K,), best first; None is that of
      `strong_order(P)`. - `atol`: how much a gap may shrink and still count as constant; None is 8 K roundings.

    Returns a `ConcentrationCondition`, violations included. The gains of neighbours obey
    \(\sum_m \mathrm{crossing}_m\, \mathrm{gain}_m = 0\): where mass moves up across every cut, it holds only
    if no gap changes.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, concentration. The identity is
    derived here: \(\delta^\top A\,\delta = 0\) for \(\delta = \mu' - \mu\), summed by parts.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = jnp.array([[0.5, 0.6, 0.9], [0.4, 0.5, 0.6], [0.1, 0.4, 0.5]])
    >>> condition = ipodyn.concentration_condition(P, jnp.array([0.3, 0.4, 0.3]), jnp.array([0.5, 0.2, 0.3]))
    >>> bool(condition.holds), [round(float(g), 6) + 0 for g in (condition.gain[0, 1], condition.gain[1, 2])]
    (True, [0.0, 0.04])
    """
    P, mu, mu_prime = prepare(as_matrix(P), mu, mu_prime)
    order = strong_order(P).order if order is None else jnp.asarray(order)
    moved = (P - 0.5) @ (mu_prime - mu)
    above = _above(order)
    gain = jnp.where(above, moved[:, None] - moved[None, :], 0.0)
    violations = above & (gain < -_tolerance(atol, P))
    margin = jnp.min(jnp.where(above, gain, jnp.inf))
    return ConcentrationCondition(order, gain, violations, ~jnp.any(violations), margin, _crossing(mu_prime, mu, order))


class Concentration(eqx.Module):
    """Optima along a path of sampling distributions, n of them, the ends included.

    - `weight`: shape (n,), of mu', from 0 to 1. - `mu`, `policy`: shape (n, K). - `order`: shape (K,), best first.
    - `gap`: shape (n, K - 1), the logit gaps of neighbours in `order`. - `entropy`: shape (n,), nats.
    - `top`: shape (n,), the largest probability. - `result`: shape (n,), whether the optimum exists; NaN where not.
    """

    weight: Float[Array, " n"]
    mu: Float[Array, "n K"]
    policy: Float[Array, "n K"]
    order: Int[Array, " K"]
    gap: Float[Array, "n K-1"]
    entropy: Float[Array, " n"]
    top: Float[Array, " n"]
    result: RESULTS

    share = renamed_attribute("share", "weight", "0.3")


@eqx.filter_jit
def _scores(objective: AbstractObjective, P: PreferenceBlock, mu: Float[Array, "K n"]) -> ScoreSolution:
    return objective.solve_score(jnp.broadcast_to(P[:, :, None], (*P.shape, mu.shape[1])), mu)


@leading_argument("0.3", "objective", AbstractObjective, IPO)
def concentration(
    objective: AbstractObjective,
    P: PreferenceLike,
    mu: PolicyLike,
    mu_prime: PolicyLike,
    *,
    num: int = 33,
    beta: ScalarLike = 1.0,
    pi_ref: PolicyLike | None = None,
    order: Ranking | None = None,
    throw: bool = True,
) -> Concentration:
    r"""Logit gaps, entropy and top mass of the optimum as the data move from mu to mu', \(\mu_s = (1-s)\mu + s\mu'\).

    - `objective`: `IPO()` or `DPO()`. - `P`: shape (K, K). - `mu`, `mu_prime`: shape (K,).
    - `num`: points on the path, static, at least 2. - `beta` > 0. - `pi_ref`: shape (K,), None is uniform.
    - `order`: shape (K,), best first; None is that of `strong_order(P)`, by row sums where P has none.
    - `throw`: raise where no finite score exists (DPO only); False returns NaN there.

    Returns a `Concentration`. For IPO every gap is linear in s (`concentration_condition` has its slope); for DPO
    nothing moves if P is Bradley-Terry.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = jnp.array([[0.5, 0.6, 0.9], [0.4, 0.5, 0.6], [0.1, 0.4, 0.5]])
    >>> mu, mu_prime = jnp.array([0.3, 0.4, 0.3]), jnp.array([0.5, 0.2, 0.3])
    >>> path = ipodyn.concentration(ipodyn.IPO(), P, mu, mu_prime, num=3, beta=10.0)
    >>> [[round(float(gap), 6) for gap in gaps] for gaps in path.gap]
    [[1.6, 1.6], [1.6, 1.8], [1.6, 2.0]]
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 2:
        raise ValueError(f"`num` is {num!r}; a path has at least 2 points.")
    P, mu, mu_prime = prepare(as_matrix(P), mu, mu_prime)
    pi_ref = jnp.full_like(mu, 1 / mu.shape[0]) if pi_ref is None else prepare(P, pi_ref)[1]
    order = strong_order(P).order if order is None else jnp.asarray(order)
    weight = jnp.linspace(0, 1, num, dtype=P.dtype)
    path = (1 - weight)[None, :] * mu[:, None] + weight[None, :] * mu_prime[:, None]
    solution = _scores(objective, P, path)
    score = jnp.where((solution.result == RESULTS.successful)[None], solution.score, jnp.nan)
    if throw:
        score = throw_unless_successful(score, solution.result)
    logits = log_policy(pi_ref)[:, None] + as_float(beta, P) * score
    policy = softmax(logits)
    ranked = logits[order]
    return Concentration(
        weight=weight,
        mu=path.T,
        policy=policy.T,
        order=order,
        gap=(ranked[:-1] - ranked[1:]).T,
        entropy=jnp.where(jnp.isnan(policy[0]), jnp.nan, entropy(policy)),
        top=jnp.max(policy, axis=0),
        result=solution.result,
    )
