r"""Draws of P given counts, independent over pairs: \(P_{ij} \sim \mathrm{Beta}(W_{ij} + a, W_{ji} + a)\)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._numerics.checks import check_positive
from .._numerics.randomness import RandomKey, host_seed
from .._numerics.types import Counts, ScalarLike, as_float
from .pairs import both_ways, from_upper


def _one_table(wins: Counts) -> Float[Array, "K K"]:
    wins = as_float(wins)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise ValueError(f"`wins` has shape {wins.shape}; give (K, K), and `jax.vmap` many.")
    return wins


def posterior_parameters(
    wins: Float[Array | np.ndarray, "*n K K"], prior: ScalarLike
) -> tuple[Float[Array | np.ndarray, "*n pairs"], Float[Array | np.ndarray, "*n pairs"]]:
    r"""The two parameters of the Beta distribution of \(P_{ij}\), i < j, given counts and pseudo-wins of each side."""
    won, lost = both_ways(wins)
    return won + prior, lost + prior


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
    wins = _one_table(wins)
    a, b = posterior_parameters(wins, as_float(prior, wins))
    return from_upper(jax.random.beta(key, a, b, (num_draws, a.size), dtype=wins.dtype), wins.shape[0])


def posterior_of_prompts(
    key: RandomKey, prompts: np.ndarray, wins: Float[np.ndarray, "n K K"], *, num_draws: int, prior: float
) -> Float[np.ndarray, "n draws pairs"]:
    """Draws as of `posterior_preferences` for many prompts: of the pairs i < j, each prompt from a stream of its own.

    - `prompts` (n,): their places in the set, which with the key alone decide what is drawn. - `wins`: their counts.

    By NumPy on the host: compiling JAX's sampler takes longer than all that a diagnosis does with the draws.
    """
    word = np.random.SeedSequence(host_seed(key)).generate_state(1, np.uint64)[0]
    bits = np.random.Philox(key=np.array([word, 0], np.uint64))
    generator, state = np.random.Generator(bits), bits.state
    a, b = posterior_parameters(wins, prior)
    upper = np.empty((len(prompts), num_draws, a.shape[-1]))
    for row, prompt in enumerate(prompts.tolist()):
        state["state"]["key"][1] = prompt  # a new stream, from its start; making a generator takes ten times as long
        bits.state = state
        upper[row] = generator.beta(a[row], b[row], upper.shape[1:])
    return upper


def bootstrap_preferences(key: PRNGKeyArray, wins: Counts, *, num_draws: int = 256) -> Float[Array, "draws K K"]:
    r"""Bootstrap draws of P, every pair's comparisons drawn again: \(B(N_{ij}, W_{ij}/N_{ij})/N_{ij}\).

    - `wins`: shape (K, K), counts >= 0; a pair that was never compared stays 1/2. A pair that one side always won does
      not vary: where counts are small `posterior_preferences` is the honest one.
    """
    wins = _one_table(wins)
    won, lost = both_ways(wins)
    number = won + lost
    frequency = jnp.where(number > 0, won / jnp.maximum(number, 1.0), 0.5)
    drawn = jax.random.binomial(key, number, frequency, (num_draws, number.size), dtype=wins.dtype)
    upper = jnp.where((number > 0)[None], drawn / jnp.maximum(number, 1.0)[None], 0.5)
    return from_upper(upper, wins.shape[0])
