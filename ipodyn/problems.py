"""Named preference matrices whose answers are known, for tests, benchmarks and experiments.

Each builder returns P of shape (K, K). Strengths and rewards are traced and differentiable; sizes are static.
The random ones take a key first and work under `jit` and `vmap` over it: `jax.vmap(lambda key: random(key,
4))(keys)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, PRNGKeyArray

from ._numerics.types import PolicyLike, Preference, ScalarLike, as_float
from ._preferences.pairs import from_upper, pairs


def _check_size(K: int, least: int, what: str) -> None:
    """Sizes are static: a whole number, at least `least`."""
    if isinstance(K, bool) or not isinstance(K, (int, np.integer)):
        raise TypeError(f"`K` is a {type(K).__name__}: give a static whole number (static_argnames under jit).")
    if least > K:
        raise ValueError(f"`K` is {K}: {what} needs at least {least} responses.")


def _scaled(signs: np.ndarray, strength: ScalarLike) -> Preference:
    """1/2 + strength * signs."""
    strength = as_float(strength)
    return 0.5 + strength * jnp.asarray(signs, dtype=strength.dtype)


def _float_dtype(dtype: DTypeLike | None) -> np.dtype:
    return jnp.result_type(float if dtype is None else dtype)


def three_cycle(strength: ScalarLike) -> Preference:
    r"""Rock-paper-scissors, \(P = 1/2 + a\,[[0, 1, -1], [-1, 0, 1], [1, -1, 0]]\): 0 beats 1 beats 2 beats 0.

    - `strength`: a in [0, 1/2], the margin of every win; 0 is all ties.

    Known answer: with uniform reference and sampling policies every loop has the uniform fixed point, and
    MRS-IPO loses its stability there exactly when \(\alpha^2 + a^2 (\beta\lambda)^2 / 3 > 1\).

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on MRS, the three-cycle.

    >>> import ipodyn
    >>> ipodyn.problems.three_cycle(0.25).tolist()
    [[0.5, 0.75, 0.25], [0.25, 0.5, 0.75], [0.75, 0.25, 0.5]]
    """
    return cycle(3, strength)


def cycle(K: int, strength: ScalarLike) -> Preference:
    r"""The balanced cycle: each response beats the next (K - 1) / 2 of them around the circle by `strength`.

    - `K`: odd, at least 3; static. - `strength`: a in [0, 1/2].

    Known answer: the uniform fixed point of `three_cycle` for any odd K. The skew part has norm
    \(a \cot(\pi / 2K)\), so with uniform policies MRS-IPO is unstable there exactly when
    \(\alpha^2 + (\beta\lambda\,a \cot(\pi / 2K) / K)^2 > 1\). Every response is in the Smith set; none is a
    Condorcet winner.

    Raises `ValueError` for even K, which leaves opposite responses without a winner.

    >>> import ipodyn
    >>> ipodyn.problems.cycle(5, 0.5)[0].tolist()
    [0.5, 1.0, 1.0, 0.0, 0.0]
    """
    _check_size(K, 3, "a cycle")
    if K % 2 == 0:
        raise ValueError(f"`K` is {K}, even: opposite responses of a balanced cycle would tie. Use {K - 1} or {K + 1}.")
    ahead = (np.arange(K)[None, :] - np.arange(K)[:, None]) % K
    return _scaled(np.where(ahead == 0, 0, np.where(ahead <= (K - 1) // 2, 1, -1)), strength)


def two_responses(probability: ScalarLike) -> Preference:
    r"""Two responses, the first preferred with the given probability: \([[1/2, p], [1 - p, 1/2]]\).

    - `probability`: p in [0, 1].

    Known answer: for every sampling distribution with full support the score gap of the two is \(p - 1/2\)
    for IPO and \(\log(p / (1 - p))\) for DPO; \(\beta\) times the gap is what the optimum adds to the
    reference's log-odds.

    >>> import ipodyn, jax.numpy as jnp
    >>> scores = ipodyn.problems.two_responses(0.8) @ jnp.array([0.1, 0.9])
    >>> round(float(scores[0] - scores[1]), 6)
    0.3
    """
    p = as_float(probability)
    half = jnp.full_like(p, 0.5)
    return jnp.stack([jnp.stack([half, p]), jnp.stack([1 - p, half])])


def bradley_terry(rewards: PolicyLike) -> Preference:
    r"""Bradley-Terry preferences, \(P_{ij} = \sigma(r_i - r_j)\) with \(\sigma\) the logistic function.

    - `rewards`: shape (K,), in log-odds; a common constant does not matter.

    Known answer: the DPO scores are the centred rewards for every sampling distribution with full support.
    Strongly transitive in the order of the rewards, strictly where they differ.

    Source: Bradley and Terry, Biometrika 39 (1952).

    >>> import ipodyn, jax.numpy as jnp
    >>> round(float(ipodyn.problems.bradley_terry(jnp.array([jnp.log(3.0), 0.0]))[0, 1]), 6)
    0.75
    """
    rewards = as_float(rewards)
    return jax.nn.sigmoid(rewards[:, None] - rewards[None, :])


def thurstone(rewards: PolicyLike) -> Preference:
    r"""Thurstone's case V, \(P_{ij} = \Phi((r_i - r_j) / \sqrt 2)\) with \(\Phi\) the normal distribution.

    The utility of each response is its reward plus independent normal noise of variance 1, hence the root of
    2.

    - `rewards`: shape (K,), in standard deviations of that noise; a common constant does not matter.

    Known answer: strongly transitive in the order of the rewards, strictly where they differ; not
    Bradley-Terry, so the DPO optimum moves with the sampling distribution.

    Source: Thurstone, Psychological Review 34 (1927).

    >>> import ipodyn, jax.numpy as jnp
    >>> round(float(ipodyn.problems.thurstone(jnp.array([2.0**0.5, 0.0]))[0, 1]), 4)
    0.8413
    """
    rewards = as_float(rewards)
    return jax.scipy.special.ndtr((rewards[:, None] - rewards[None, :]) * np.sqrt(0.5).item())


def overshadowed_winner(K: int, strength: ScalarLike) -> Preference:
    r"""Response 0 beats all others, but only by `strength`; response 1 beats the rest by 1/2 - `strength`.

    - `K`: at least 3; static. - `strength`: the winner's margin, in (0, 1/2). The other pairs tie.

    Known answer: 0 is the Condorcet winner, yet under uniform sampling the IPO score of 1 exceeds its score
    exactly when \(\epsilon < (K - 2) / (4 (K - 1))\). Other sampling distributions mend it.

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata: no fixed
    sampling distribution puts every Condorcet winner on top.

    >>> import ipodyn
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.1)
    >>> int(ipodyn.condorcet_winner(P)), int(P.mean(axis=1).argmax())
    (0, 1)
    """
    _check_size(K, 3, "an overshadowed winner")
    strength = as_float(strength)
    row = np.broadcast_to(np.arange(K)[:, None], (K, K))
    margin = jnp.where(row == 0, strength, jnp.where(row == 1, 0.5 - strength, jnp.zeros_like(strength)))
    return from_upper(0.5 + margin[pairs(K)], K)


def random(key: PRNGKeyArray, K: int, *, dtype: DTypeLike | None = None) -> Preference:
    """Independent pairs: each P[i, j] above the diagonal uniform on [0, 1).

    - `key`: a JAX random key. - `K`: at least 2; static. - `dtype`: the default floating dtype where None.

    Known answer: a tournament without ties (almost surely), every orientation equally likely; at K = 3 a
    quarter of the matrices, at K = 4 five eighths have a majority cycle.

    >>> import ipodyn, jax
    >>> ipodyn.problems.random(jax.random.key(0), 4).shape
    (4, 4)
    """
    _check_size(K, 2, "a comparison")
    return from_upper(jax.random.uniform(key, (K, K), dtype=_float_dtype(dtype))[pairs(K)], K)


def _with_wins(P: Preference, wins: Bool[Array, "K K"]) -> Preference:
    """`P` with the winner of the pairs in `wins` (K, K; i wins against j) set, their margins kept."""
    strong = jnp.maximum(P, P.T)
    # A tie has no winner to keep: the smallest win above it.
    strong = jnp.maximum(strong, 0.5 + jnp.finfo(P.dtype).eps)
    return jnp.where(wins, strong, jnp.where(wins.T, 1 - strong, P))


def cyclic(key: PRNGKeyArray, K: int, *, dtype: DTypeLike | None = None) -> Preference:
    """Random preferences with a majority cycle: `random`, with three random responses turned into a cycle.

    - `key`: a JAX random key. - `K`: at least 3; static. - `dtype`: the default floating dtype where None.

    Known answer: `has_cycle` is true. At K = 3 all are in the Smith set; above, there may still be a
    Condorcet winner over the cycle. At K = 3 it is `random` given that it is cyclic; for larger K more evenly
    spread than that.

    >>> import ipodyn, jax
    >>> bool(ipodyn.has_cycle(ipodyn.problems.cyclic(jax.random.key(0), 4)))
    True
    """
    _check_size(K, 3, "a cycle")
    pair_key, triple_key = jax.random.split(key)
    place = jax.random.permutation(triple_key, K)  # the responses at places 0, 1, 2 form the cycle
    ahead, behind = place[:, None], place[None, :]
    wins = (ahead < 3) & (behind < 3) & ((behind - ahead) % 3 == 1)
    return _with_wins(random(pair_key, K, dtype=dtype), wins)


def with_condorcet_winner(key: PRNGKeyArray, K: int, *, dtype: DTypeLike | None = None) -> Preference:
    """Random preferences with a Condorcet winner: `random`, with all pairs of one random response won by it.

    - `key`: a JAX random key. - `K`: at least 2; static. - `dtype`: the default floating dtype where None.

    Known answer: `condorcet_winner` is not -1 and the Smith set is that response alone; the others may cycle.
    It is `random` given that there is a Condorcet winner.

    >>> import ipodyn, jax
    >>> int(ipodyn.smith_set(ipodyn.problems.with_condorcet_winner(jax.random.key(0), 5)).sum())
    1
    """
    _check_size(K, 2, "a comparison")
    pair_key, winner_key = jax.random.split(key)
    response = np.arange(K)
    winner = jax.random.randint(winner_key, (), 0, K) == response
    wins = jnp.broadcast_to(winner[:, None], (K, K)) & ~np.eye(K, dtype=bool)
    return _with_wins(random(pair_key, K, dtype=dtype), wins)


# The weight of an evenly spaced ladder in `strongly_transitive`: it keeps row gaps above rounding in float32.
_LADDER_SHARE = 0.01


def strongly_transitive(key: PRNGKeyArray, K: int, *, dtype: DTypeLike | None = None) -> Preference:
    r"""Random strictly strongly transitive preferences in a random order of the responses.

    A random matrix is sorted along its rows and down its columns, so that its skew part increases along rows
    and decreases down columns; 1 % of the ladder \(P_{ij} = 1/2 + (j - i) / (2 (K - 1))\) keeps the gaps
    between rows at 0.005 / (K - 1) at least, above float32 rounding. Then the responses are permuted. It is
    not Bradley-Terry.

    - `key`: a JAX random key. - `K`: at least 2; static. - `dtype`: the default floating dtype where None.

    Known answer: `strong_order(P).strict` is true, and IPO keeps that order under every sampling
    distribution. The IPO loop with alpha = 1 and uniform policies collapses on its top response.

    >>> import ipodyn, jax
    >>> bool(ipodyn.strong_order(ipodyn.problems.strongly_transitive(jax.random.key(0), 4)).strict)
    True
    """
    _check_size(K, 2, "an order")
    value_key, order_key = jax.random.split(key)
    dtype = _float_dtype(dtype)
    values = jax.random.uniform(value_key, (K, K), dtype=dtype)
    values = jnp.sort(-jnp.sort(-values, axis=0), axis=1)  # sorting rows leaves the columns sorted
    ladder = jnp.asarray((np.arange(K)[None, :] - np.arange(K)[:, None]) / (2 * (K - 1)), dtype=dtype)
    skew = (1 - _LADDER_SHARE) * 0.5 * (values - values.T) + _LADDER_SHARE * ladder
    order = jax.random.permutation(order_key, K)
    return 0.5 + skew[order[:, None], order[None, :]]
