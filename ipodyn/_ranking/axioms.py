"""Does a policy rank the responses as the preferences ask? One matrix and one policy at a time; batch with `jax.vmap`.

What is asked are strict inequalities between scores, for the pairs that an axiom names:

- the majority relation is read off the given values, i beats j exactly if P[i, j] > P[j, i]; a tie is beaten by nothing
  and names no pair, so it asks for nothing either way;
- a tie of the two *scores* of a named pair violates the axiom: its margin is 0, and an axiom holds where it is above 0.

No tolerance is hidden. Scores that come from rounded arithmetic can differ where they would tie exactly (P @ mu is off
by about K roundings): `atol` asks for a margin above that.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool

from .._numerics.types import BoolBlock, PolicyLike, PreferenceLike, ScalarBlock, ScalarLike, as_float
from .._preferences.structure import as_matrix, condorcet_winner, smith_set
from .criteria import Criterion, criterion_pairs


class Axiom(eqx.Module):
    """Whether an axiom holds, and by how much.

    - `holds` (): whether every inequality that the axiom asks for is met; true where it asks for none.
    - `margin` (): the least `score[i] - score[j]` over the pairs (i, j) that it names, in the unit of the scores; +inf
      where it names none, NaN where such a score is NaN (and then it does not hold).
    - `applies` (): whether the premise is met (there is a Condorcet winner; the Smith set leaves someone out; P is
      transitive). Where it is not, the axiom holds vacuously: leave such matrices out of fractions.
    """

    holds: BoolBlock
    margin: ScalarBlock
    applies: BoolBlock


def _check(P: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    P = as_matrix(P)
    scores = as_float(scores)
    if scores.shape != P.shape[:1]:
        raise ValueError(
            f"`scores` has shape {scores.shape} for `P` of shape {P.shape}: give one score for each response, (K,)."
        )
    return P, scores


def _axiom(criterion: Criterion, P: Array, scores: Array, applies: Bool[Array, ""], atol: ScalarLike) -> Axiom:
    first, second = jnp.broadcast_arrays(scores[:, None], scores[None, :])
    gap = jnp.where(first == second, 0.0, first - second)  # two responses of log-probability -inf tie
    named = criterion_pairs(P, criterion) & applies
    margin = jnp.min(jnp.where(named, gap, jnp.inf))
    margin = jnp.where(jnp.any(named & jnp.isnan(gap)), jnp.nan, margin)  # a compiled minimum may pass over NaN
    return Axiom(margin > as_float(atol, scores), margin, applies)


def condorcet_top(P: PreferenceLike, scores: PolicyLike, *, atol: ScalarLike = 0.0) -> Axiom:
    r"""Whether the Condorcet winner, the response that beats every other one, has the largest score of all.

    \(s_c > s_j\) for all \(j \ne c\), where \(P_{cj} > 1/2\) for all \(j \ne c\).

    - `P`: shape (K, K). - `scores`: shape (K,), what ranks the responses: a policy, its logits, or scores
      `objective.score(P, mu)`. Probabilities that underflow tie; their logits do not.
    - `atol`: >= 0, in the unit of the scores; the margin must exceed it.

    Returns an `Axiom`. It does not apply where there is no Condorcet winner; a response that ties with another is none.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.1)  # 0 beats all, by little
    >>> axiom = ipodyn.condorcet_top(P, ipodyn.IPO().score(P, jnp.full(3, 1 / 3)))
    >>> bool(axiom.applies), bool(axiom.holds), round(float(axiom.margin), 6)
    (True, False, -0.033333)
    """
    P, scores = _check(P, scores)
    return _axiom("condorcet", P, scores, condorcet_winner(P) >= 0, atol)


def smith_top(P: PreferenceLike, scores: PolicyLike, *, atol: ScalarLike = 0.0) -> Axiom:
    r"""Whether every member of the Smith set has a larger score than every response outside it.

    \(s_i > s_j\) for all i in the smallest set whose members beat all outsiders, and all j outside.

    - `P`, `scores`, `atol`: as in `condorcet_top`.

    Returns an `Axiom`. It does not apply where the Smith set is everyone. A response that ties with a member is a
    member (`smith_set`), so that ties can only shrink what is asked. With a Condorcet winner it is `condorcet_top`.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata;
    Smith, Econometrica 41 (1973).

    >>> import ipodyn, jax.numpy as jnp
    >>> bool(ipodyn.smith_top(ipodyn.problems.three_cycle(0.3), jnp.array([0.2, 0.5, 0.3])).applies)
    False
    """
    P, scores = _check(P, scores)
    return _axiom("smith", P, scores, ~jnp.all(smith_set(P)), atol)


def order_preserving(P: PreferenceLike, scores: PolicyLike, *, atol: ScalarLike = 0.0) -> Axiom:
    r"""Whether the scores sort the responses as a transitive P does: \(s_i > s_j\) wherever \(P_{ij} > 1/2\).

    - `P`, `scores`, `atol`: as in `condorcet_top`.

    Returns an `Axiom`. It applies where "beats or ties with" is transitive (weak stochastic transitivity), so that
    the responses stand in one order with ties; a tie asks for nothing: tied responses may be ranked either way.
    P with ties everywhere is transitive, and then nothing is asked.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.bradley_terry(jnp.array([0.0, 2.0, 1.0]))
    >>> axiom = ipodyn.order_preserving(P, jnp.array([0.2, 0.3, 0.5]))  # 1 should stand above 2
    >>> bool(axiom.holds), round(float(axiom.margin), 6)
    (False, -0.2)
    """
    P, scores = _check(P, scores)
    beats = P > P.T
    # "At least as good" is transitive exactly if its failure, "beaten", is negatively so: i over k takes i over j or
    # j over k, whatever j.
    through = beats[:, :, None] | beats[None, :, :]
    transitive = jnp.all(through | ~beats[:, None, :])
    return _axiom("order", P, scores, transitive, atol)


AXIOMS: dict[Criterion, Callable[..., Axiom]] = {
    "condorcet": condorcet_top,
    "smith": smith_top,
    "order": order_preserving,
}
