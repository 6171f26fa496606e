r"""Counterexamples: preferences on which a fixed sampling distribution breaks a ranking axiom.

IPO and DPO rank alike: the Bradley-Terry fit r with weights \(\mu_i\mu_j\) solves \(P\mu = g(r)\) with
\(g_i(r) = \sum_k \mu_k \sigma(r_i - r_k)\), and \(g_i > g_j\) exactly if \(r_i > r_j\). As \(\sigma' \le 1/4\),
\(|r_i - r_j| \ge 4\,|(P\mu)_i - (P\mu)_j|\): what IPO gets wrong DPO gets wrong by at least four times as much.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._numerics.deprecation import leading_argument, renamed_keywords
from .._numerics.types import PolicyBlock, PolicyLike, PreferenceBlock, ScalarBlock, ScalarLike, as_float
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .axioms import AXIOMS
from .criteria import Criterion, check_criterion


class Witness(eqx.Module):
    """Preferences that put an axiom to the test.

    - `P`: shape (K, K), meets the premise of the axiom. - `scores`: shape (K,), of the objective on P.
    - `margin` (): the axiom's margin at these scores, evaluated, not predicted; below 0 the axiom is violated.
    - `pair`: shape (2,), the responses (i, j) it is built on: i should stand above j.
    - `strength` (): the least win that the premise rests on, above 1/2.
    """

    P: PreferenceBlock
    scores: PolicyBlock
    margin: ScalarBlock
    pair: Int[Array, "2 *batch"]
    strength: ScalarBlock


@leading_argument("0.3", "objective", AbstractObjective, IPO)
@renamed_keywords("0.3", axiom="criterion", share="fraction")
def witness(
    objective: AbstractObjective,
    mu: PolicyLike,
    criterion: Criterion = "condorcet",
    *,
    fraction: ScalarLike = 0.5,
) -> Witness:
    r"""Preferences on which data sampled from `mu` break an axiom, by construction: whatever mu, as long as K >= 3.

    Wins not named below tie, \(\epsilon\) = `fraction` of its limit, and IPO is violated by (1 - `fraction`) w / 2.

    - "condorcet": c beats all by \(\epsilon\), j beats all but c by \(1/2 - \epsilon\), so j scores above c.
      \(\epsilon < w / (2 (w + 1))\), w = \(1 - \mu_c - \mu_j\); c and j are the least sampled.
    - "smith": a, b, c beat all others by \(\epsilon\), c beats b and b beats a by \(\epsilon\), a beats c and j beats
      all other outsiders by \(1/2 - \epsilon\), so j scores above c. \(\epsilon < w / (2 (w + 1 + \mu_b))\),
      w = \(1 - \mu_b - \mu_c - \mu_j\), those three the least sampled. With K = 3 it is the witness of "condorcet".
    - "order": t beats i by \(1/2 - \epsilon\), t beats j, i beats j, and the three beat all others by \(\epsilon\), so
      j scores above i. \(\epsilon < w / (2 (2 w + \mu_i + \mu_j))\), w = \(\mu_t\), t the most and i, j the least
      sampled. The Condorcet winner t stays on top: only the order breaks.

    - `objective`: whose scores are reported, `IPO()` or `DPO()`; both fail on the same preferences.
    - `mu`: shape (K,), K >= 3, all entries above 0. - `fraction`: in (0, 1); near 0 the violation is largest and the
      premise weakest.

    Returns a `Witness`. Under `jit` and `vmap` too, `criterion` being static. Raises `ValueError` for K < 3 and for a
    response that is not sampled.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata: no
    fixed sampling distribution meets the axioms. The constructions and their limits are derived here.

    >>> import ipodyn, jax.numpy as jnp
    >>> example = ipodyn.witness(ipodyn.IPO(), jnp.array([0.5, 0.3, 0.2]), "condorcet")
    >>> int(ipodyn.condorcet_winner(example.P)), round(float(example.margin), 6)
    (2, -0.125)
    """
    check_criterion(criterion)
    mu = as_float(mu)
    K = mu.shape[0]
    if K < 3:
        raise ValueError(f"`mu` has shape {mu.shape}: with fewer than 3 responses every axiom holds.")
    if not isinstance(mu, Tracer) and not bool(jnp.all(mu > 0)):
        raise ValueError(f"`mu` is {np.asarray(mu).tolist()}: every response must be sampled, mu > 0.")
    least = jnp.argsort(mu)  # place 0 is sampled least
    build = _order if criterion == "order" else _smith if criterion == "smith" and K > 3 else _condorcet
    skew, pair, strength = build(mu, least, as_float(fraction, mu))
    P = 0.5 + skew
    scores = objective.score(P, mu)
    return Witness(P, scores, AXIOMS[criterion](P, scores).margin, pair, strength)


Built = tuple[Float[Array, "K K"], Int[Array, "2"], Float[Array, ""]]


def _skew(K: int, wins: list[tuple[Array, Array, Array]], like: Array) -> Float[Array, "K K"]:
    """The skew matrix with these (winners, losers, margin), masks of shape (K,); later ones overwrite earlier."""
    skew = jnp.zeros((K, K), like.dtype)
    for winners, losers, margin in wins:
        pairs = winners[:, None] & losers[None, :]
        skew = jnp.where(pairs, margin, jnp.where(pairs.T, -margin, skew))
    return skew


def _condorcet(mu: Float[Array, " K"], least: Int[Array, " K"], fraction: Float[Array, ""]) -> Built:
    K = mu.shape[0]
    response = jnp.arange(K)
    c, j = response == least[0], response == least[1]
    w = 1 - mu[least[0]] - mu[least[1]]
    eps = fraction * w / (2 * (w + 1))
    return _skew(K, [(j, ~c & ~j, 0.5 - eps), (c, ~c, eps)], mu), least[:2], eps


def _smith(mu: Float[Array, " K"], least: Int[Array, " K"], fraction: Float[Array, ""]) -> Built:
    K = mu.shape[0]
    response = jnp.arange(K)
    c, j, b, a = (response == least[place] for place in (0, 1, 2, K - 1))
    inside = a | b | c
    w = 1 - mu[least[0]] - mu[least[1]] - mu[least[2]]
    eps = fraction * w / (2 * (w + 1 + mu[least[2]]))
    wins = [(inside, ~inside, eps), (c, b, eps), (b, a, eps), (a, c, 0.5 - eps), (j, ~inside & ~j, 0.5 - eps)]
    return _skew(K, wins, mu), least[:2], eps


def _order(mu: Float[Array, " K"], least: Int[Array, " K"], fraction: Float[Array, ""]) -> Built:
    K = mu.shape[0]
    response = jnp.arange(K)
    i, j, t = (response == least[place] for place in (0, 1, K - 1))
    three = i | j | t
    w = mu[least[-1]]
    eps = fraction * w / (2 * (2 * w + mu[least[0]] + mu[least[1]]))
    return _skew(K, [(three, ~three, eps), (t, j, eps), (i, j, eps), (t, i, 0.5 - eps)], mu), least[:2], eps
