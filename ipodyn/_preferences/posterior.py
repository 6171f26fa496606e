"""Draws of P given counts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._numerics.checks import check_positive
from .._numerics.types import Counts, ScalarLike, as_float


def _upper(wins: Array) -> tuple[np.ndarray, np.ndarray, Array, Array]:
    """The pairs i < j, and how often i won and j won."""
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise ValueError(f"`wins` has shape {wins.shape}; give (K, K), and `jax.vmap` many.")
    rows, columns = np.triu_indices(wins.shape[0], 1)
    return rows, columns, wins[rows, columns], wins[columns, rows]


def _matrices(upper: Array, K: int, rows: np.ndarray, columns: np.ndarray) -> Array:
    """(draws, K, K) from (draws, pairs), with exact complements."""
    P = jnp.full((upper.shape[0], K, K), 0.5, upper.dtype)
    return P.at[:, rows, columns].set(upper).at[:, columns, rows].set(1 - upper)


def posterior_preferences(
    key: PRNGKeyArray, wins: Counts, *, num_draws: int = 256, prior: ScalarLike = 1.0
) -> Float[Array, "draws K K"]:
    r"""Draws of P given counts, independent over pairs: \(P_{ij} \sim \mathrm{Beta}(W_{ij} + a, W_{ji} + a)\).

    - `wins`: shape (K, K), counts or weights >= 0 (a tie is half a win for both). - `prior` a > 0: pseudo-wins for each
      side; 1 is uniform, 1/2 Jeffreys. A pair that was never compared is drawn from the prior.

    >>> import ipodyn, jax, numpy as np
    >>> draws = ipodyn.posterior_preferences(jax.random.key(0), np.array([[0, 80], [20, 0]]), num_draws=500)
    >>> bool(abs(draws[:, 0, 1].mean() - 81 / 102) < 0.01)
    True
    """
    check_positive(np.asarray(prior), "prior", "it is a number of pseudo-wins")
    wins = as_float(wins)
    rows, columns, won, lost = _upper(wins)
    prior = as_float(prior, wins)
    upper = jax.random.beta(key, won + prior, lost + prior, (num_draws, rows.size), dtype=wins.dtype)
    return _matrices(upper, wins.shape[0], rows, columns)


def bootstrap_preferences(key: PRNGKeyArray, wins: Counts, *, num_draws: int = 256) -> Float[Array, "draws K K"]:
    r"""Bootstrap draws of shares of wins, every pair's comparisons drawn again: \(B(N_{ij}, W_{ij}/N_{ij})/N_{ij}\).

    - `wins`: shape (K, K), counts >= 0; a pair that was never compared stays 1/2. A pair that one side always won does
      not vary: where counts are small `posterior_preferences` is the honest one.
    """
    wins = as_float(wins)
    rows, columns, won, lost = _upper(wins)
    number = won + lost
    share = jnp.where(number > 0, won / jnp.maximum(number, 1.0), 0.5)
    drawn = jax.random.binomial(key, number, share, (num_draws, rows.size), dtype=wins.dtype)
    upper = jnp.where((number > 0)[None], drawn / jnp.maximum(number, 1.0)[None], 0.5)
    return _matrices(upper, wins.shape[0], rows, columns)
