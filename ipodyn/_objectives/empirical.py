"""One round on a finite sample: n labelled pairs, and the scores that they determine.

Counts are wins, W[i, j] = how often i beat j. Kernels have their batch axes behind.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from .._numerics.linear import diagonal
from .._numerics.simplex import log_policy, softmax
from .._numerics.types import (
    Counts,
    Policy,
    PolicyBlock,
    PolicyLike,
    PreferenceBlock,
    PreferenceLike,
    ScalarBlock,
    ScalarLike,
    as_float,
)
from .objective import AbstractObjective

PAIRS_AT_ONCE = 128  # drawn together


def draw_wins_block(
    keys: Key[Array, "*batch"], P: PreferenceBlock, mu: PolicyBlock, num_pairs: ScalarBlock
) -> Float[Array, "K K *batch"]:
    """`draw_wins` with batch axes behind; `keys` has the shape of the batch.

    A pair and its winner together have chance 2 mu_i mu_j P_ij, and what remains are pairs of a response with itself:
    one uniform number decides both. (JAX's own multinomial costs as much as a thousand pairs, and seconds to compile.)
    """
    K = mu.shape[0]
    batch = mu.shape[1:]
    both = [(i, j) for i in range(K) for j in range(K) if i != j]
    rows, columns = np.array(both).T
    chances = (2 * mu[rows] * mu[columns] * P[rows, columns]).reshape(len(both), -1)
    thresholds = (jnp.cumsum(chances, axis=0) * 2.0**32).astype(jnp.uint32)
    numbers = jnp.broadcast_to(num_pairs, batch).reshape(-1).astype(mu.dtype)
    keys = keys.reshape(-1)

    def count(block: Array, below: Array) -> Array:
        def draw(key: Key[Array, ""]) -> Array:
            return jax.random.bits(jax.random.fold_in(key, block), (PAIRS_AT_ONCE,), jnp.uint32)

        bits = jax.vmap(draw, out_axes=-1)(keys)
        place = (block * PAIRS_AT_ONCE + jnp.arange(PAIRS_AT_ONCE, dtype=jnp.int32)).astype(mu.dtype)
        wanted = place[:, None] < numbers[None]
        return below + jnp.sum((bits[None] < thresholds[:, None]) & wanted[None], axis=1, dtype=jnp.int32)

    blocks = jnp.ceil(jnp.max(numbers) / PAIRS_AT_ONCE).astype(jnp.int32)
    below = jax.lax.fori_loop(jnp.int32(0), blocks, count, jnp.zeros(thresholds.shape, jnp.int32))
    drawn = jnp.diff(below, axis=0, prepend=jnp.zeros_like(below[:1])).astype(mu.dtype)
    wins = jnp.zeros((K, K, drawn.shape[1]), mu.dtype).at[rows, columns].set(drawn)
    return wins.reshape((K, K, *batch))


def check_ridge(objective: AbstractObjective, ridge: ScalarLike | None) -> None:
    """`ValueError` unless the objective fits finite samples, and has the ridge that its fit takes, or none."""
    name = type(objective).__name__
    if objective.takes_ridge is None:
        raise ValueError(f"`objective` is {name}, which has no `fit_wins`: finite samples are for IPO() and DPO().")
    if ridge is None and objective.takes_ridge:
        raise ValueError(
            f"Empirical {name} has no finite optimum where the labels of some responses all agree: give `ridge` > 0, "
            "the weight (in comparisons) of a quadratic pull of the scores to 0."
        )
    if ridge is not None and not objective.takes_ridge:
        raise ValueError(f"`ridge` goes with DPO; empirical {name} needs none.")


def draw_wins(key: PRNGKeyArray, P: PreferenceLike, mu: PolicyLike, *, num_pairs: ScalarLike) -> Float[Array, "K K"]:
    r"""Labels of `num_pairs` sampled pairs: both responses are drawn from mu, the winner by P.

    - `key`: a JAX random key; the same key gives the same labels. - `P`: shape (K, K). - `mu`: shape (K,).
    - `num_pairs`: >= 0; may be traced.

    Returns W (K, K), whole numbers: W[i, j] is how often i beat j. Pairs of a response with itself are drawn too; they
    teach nothing and are left out, so W sums to `num_pairs` less their number.

    >>> import ipodyn, jax, numpy as np
    >>> wins = ipodyn.draw_wins(jax.random.key(0), np.full((2, 2), 0.5), np.array([1.0, 0.0]), num_pairs=10)
    >>> float(wins.sum())  # all ten pairs were (0, 0)
    0.0
    """
    P = as_float(P)
    return _draw_wins(key, P, as_float(mu, P), as_float(num_pairs, P))


@jax.jit
def _draw_wins(key: PRNGKeyArray, P: Array, mu: Array, num_pairs: Array) -> Array:
    return draw_wins_block(key, P, mu, num_pairs)


def empirical_score(objective: AbstractObjective, wins: Counts, *, ridge: ScalarLike | None = None) -> Policy:
    r"""The score that labelled pairs determine: h = beta times it is what training on them adds to log pi_ref.

    - `objective`: `IPO()`: least squares on the comparison graph, \(L r = \tfrac12(\text{wins} - \text{losses})\) with
      L the Laplacian of the counts. `DPO()`: the Bradley-Terry fit with a ridge.
    - `wins`: shape (K, K), counts or weights >= 0, W[i, j] = how often i beat j; the diagonal is ignored.
    - `ridge`: for DPO only and then required, > 0, in comparisons: the fit maximises \(\sum_{ij} W_{ij}\log\sigma(r_i -
      r_j) - \tfrac{ridge}{2}|r|^2\).

    Of all solutions the one of least norm: a response that was never compared has score 0, so it keeps its
    log-probability under the reference; in each group of responses joined by comparisons the scores sum to 0. Source:
    Azar et al., arXiv 2310.12036, section on IPO (the loss); Chen et al., arXiv 2602.12180, section on finite samples.

    >>> import ipodyn, numpy as np
    >>> wins = np.array([[0, 3, 0], [1, 0, 0], [0, 0, 0]])  # 0 beat 1 three times in four; 2 was never compared
    >>> [round(float(r), 6) for r in ipodyn.empirical_score(ipodyn.IPO(), wins)]  # differ by 3/4 - 1/2
    [0.125, -0.125, 0.0]
    """
    check_ridge(objective, ridge)
    wins = as_float(wins)
    return _empirical_score(objective, wins, None if ridge is None else as_float(ridge, wins))


@eqx.filter_jit
def _empirical_score(objective: AbstractObjective, wins: Array, ridge: Array | None) -> Array:
    wins = wins - diagonal(jnp.diagonal(wins))
    return objective.fit_wins(wins, ridge).score


def empirical_optimum(
    objective: AbstractObjective,
    wins: Counts,
    pi_ref: PolicyLike,
    *,
    beta: ScalarLike = 1.0,
    ridge: ScalarLike | None = None,
) -> Policy:
    r"""The policy trained on labelled pairs: \(\mathrm{softmax}(\log\pi_{ref} + \beta\, r(W))\).

    It minimises `pair_loss` over the pairs (for DPO: plus the ridge) and tends to `objective.optimum` with an error
    of order 1 / sqrt(n). Arguments as in `empirical_score`; `pi_ref`: shape (K,).

    >>> import ipodyn, numpy as np
    >>> wins = np.array([[0, 3], [1, 0]])
    >>> policy = ipodyn.empirical_optimum(ipodyn.IPO(), wins, np.array([0.5, 0.5]), beta=4.0)
    >>> round(float(np.log(policy[0] / policy[1])), 6)  # beta * (3/4 - 1/2)
    1.0
    """
    score = empirical_score(objective, wins, ridge=ridge)
    return softmax(log_policy(as_float(pi_ref, score)) + as_float(beta, score) * score)
