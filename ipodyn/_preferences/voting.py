"""Where voting rules would rank the responses: context for what a policy does with the same preferences."""

import importlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._numerics.checks import HostArray, check_preference
from .._numerics.linear import transitive_closure
from .._numerics.types import PreferenceLike
from .structure import as_matrix


def borda_scores(P: PreferenceLike) -> Float[Array, " K"]:
    r"""The chance to beat another response drawn uniformly, \(\frac{1}{K-1}\sum_{j\ne i} P_{ij}\), in [0, 1].

    - `P`: shape (K, K), K >= 2.

    The IPO score under uniform sampling is the same up to an increasing affine map, and the DPO score ranks as it does:
    one-shot training on uniformly drawn pairs ranks by Borda, ties included.

    Source: Brandt et al., *Handbook of Computational Social Choice* (2016), ch. 2.

    >>> import ipodyn
    >>> [round(float(score), 6) for score in ipodyn.borda_scores(ipodyn.problems.overshadowed_winner(3, 0.1))]
    [0.6, 0.65, 0.25]
    """
    P = as_matrix(P)
    K = P.shape[0]
    # By margins: scores that tie exactly stay tied where P and its transpose carry different roundings.
    return 0.5 + 0.5 * jnp.sum(P - P.T, axis=1) / max(K - 1, 1)


def copeland_scores(P: PreferenceLike) -> Int[Array, " K"]:
    r"""Wins less losses, \(\#\{j : P_{ij} > 1/2\} - \#\{j : P_{ij} < 1/2\}\), in [1 - K, K - 1]; a tie counts nothing.

    - `P`: shape (K, K).

    Every member of the Smith set scores more than every response outside it.

    Source: Copeland (1951); Brandt et al., *Handbook of Computational Social Choice* (2016), ch. 3.

    >>> import ipodyn
    >>> ipodyn.copeland_scores(ipodyn.problems.overshadowed_winner(4, 0.1)).tolist()
    [3, 1, -2, -2]
    """
    P = as_matrix(P)
    return jnp.sum(P > P.T, axis=1) - jnp.sum(P < P.T, axis=1)


def schwartz_set(P: PreferenceLike) -> Bool[Array, " K"]:
    r"""The union of the smallest non-empty sets that no outsider beats, as a mask.

    - `P`: shape (K, K). A tie does not count as a defeat: it can only make this set smaller than the Smith set.

    i is a member exactly if it reaches, by a chain of wins, everyone who so reaches i. It lies inside the Smith set and
    equals it where there are no ties. Also called GOCHA.

    Source: Schwartz, *The Logic of Collective Choice* (1986), ch. 6.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = jnp.array([[0.5, 0.7, 0.5], [0.3, 0.5, 0.5], [0.5, 0.5, 0.5]])  # 0 beats 1, both tie with 2
    >>> ipodyn.schwartz_set(P).tolist(), ipodyn.smith_set(P).tolist()
    ([True, False, True], [True, True, True])
    """
    P = as_matrix(P)
    reach = transitive_closure(P > P.T)
    return ~jnp.any(reach.T & ~reach, axis=1)


def maximal_lottery(P: HostArray) -> np.ndarray:
    r"""The lottery that no response beats on average, \(\sum_i p_i P_{ij} \ge 1/2\) for all j, of largest entropy.

    An optimal mixed strategy of the symmetric zero-sum game P - 1/2. There is always one; where there are several they
    form a polytope, in which the entropy \(-\sum_i p_i \log p_i\) has exactly one maximiser. A Condorcet winner gets
    everything; nothing goes to responses outside the Schwartz set of a P without ties.

    - `P`: shape (K, K), values, not traced: it runs on the host, one linear programme and a few Newton steps.

    Returns shape (K,), float64, correct to about 1e-9 where the choice of its support is clear by more than that.
    Raises `ValueError` for an invalid P, and `ImportError` without scipy.

    Source: Fishburn, *Probabilistic social choice based on simple voting comparisons*, Rev. Economic Studies 51 (1984);
    strict complementarity: Goldman and Tucker (1956).

    >>> import ipodyn
    >>> ipodyn.maximal_lottery(ipodyn.problems.three_cycle(0.3)).round(6).tolist()
    [0.333333, 0.333333, 0.333333]
    """
    P = check_preference(P)
    if P.ndim != 2:
        raise ValueError(f"`P` has shape {P.shape}: give one matrix (K, K).")
    P = P.astype(np.float64)
    game = (P - P.T) / 2
    size = np.abs(game).max()
    if size == 0:
        return np.full(len(P), 1 / len(P))
    game = game / size
    inside = _support(game)
    lottery = np.zeros(len(P))
    lottery[inside] = _most_even(game, inside)
    return lottery


def _support(game: np.ndarray) -> np.ndarray:
    """The responses that some maximal lottery uses, as a mask.

    The strictly complementary solution: of each response either the weight or its expected loss is above 0.
    """
    try:
        linprog = importlib.import_module("scipy.optimize").linprog
    except ImportError as error:
        raise ImportError("`ipodyn.maximal_lottery` needs scipy: pip install 'ipodyn[lp]'") from error
    K = len(game)
    # Variables p and t: t as large as possible with p >= 0, (p game)_j >= 0 and p_j + (p game)_j >= t.
    cost = np.concatenate([np.zeros(K), [-1.0]])
    rows = np.block([[-game.T, np.zeros((K, 1))], [-np.eye(K) - game.T, np.ones((K, 1))]])
    total = np.concatenate([np.ones(K), [0.0]])[None]
    solved = linprog(cost, rows, np.zeros(2 * K), total, [1.0], [(0, None)] * K + [(None, None)], method="highs-ds")
    if solved.status != 0:
        raise RuntimeError(f"the linear programme of the maximal lottery failed: {solved.message}")
    lottery = solved.x[:K]
    return lottery > lottery @ game


def _most_even(game: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The largest entropy over p on the responses `inside` with p game >= 0.

    The dual: p = softmax(G y) with G the rows `inside`, where y minimises logsumexp(G y), free on the columns `inside`
    (p game is 0 there) and >= 0 on the others. Projected Newton steps (Bertsekas, SIAM J. Control 20, 1982).
    """
    G = game[inside]
    y = np.zeros(len(game))
    project = lambda y: np.where(inside, y, np.maximum(y, 0))  # noqa: E731

    def dual(y: np.ndarray) -> tuple[float, np.ndarray]:
        logits = G @ y
        weight = np.exp(logits - logits.max())
        return float(logits.max() + np.log(weight.sum())), weight / weight.sum()

    def violation(y: np.ndarray, slope: np.ndarray) -> float:
        return float(np.abs(np.where(inside, slope, y - np.maximum(y - slope, 0))).max())

    value, p = dual(y)
    for _ in range(200):
        slope = p @ G
        miss = violation(y, slope)
        if miss <= 1e-15:
            break
        held = ~inside & (y <= 1e-9) & (slope > 0)
        free = G[:, ~held]
        curvature = (free.T * p) @ free  # of sum(exp(G y)), over that sum: its range holds the slope
        step = np.zeros_like(y)
        step[~held] = -np.linalg.lstsq(curvature, slope[~held], rcond=1e-13)[0]
        step[held] = -slope[held]
        length = 1.0
        while length > 1e-12:
            trial = project(y + length * step)
            new_value, new_p = dual(trial)
            # Near the end the value stands still to rounding, and the slope says whether a step is good.
            if new_value <= value + 1e-4 * float(slope @ (trial - y)) or violation(trial, new_p @ G) < miss / 2:
                break
            length /= 2
        else:
            break
        y, value, p = trial, new_value, new_p
    miss = np.where(inside, np.abs(p @ G), np.maximum(-(p @ G), 0)).max()
    if miss > 1e-9:
        raise RuntimeError(f"the most even maximal lottery was not found: an expected loss of {miss:.1e} is left")
    return p
