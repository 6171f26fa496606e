r"""Loops under an estimated P: what is known of it when each pair was compared a few times."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ._empirical import Counts
from ._engine import Devices
from ._fixed_point import solve_fixed_point
from ._loop import MRS
from ._objectives import IPO, AbstractObjective
from ._preferences import check_positive
from ._regimes import Regime, RegimeThresholds, classify
from ._results import RESULTS
from ._stability import solve_stability
from ._sweep import sweep
from ._types import PolicyLike, ScalarLike, VectorLike, as_float


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


class RegimeProbabilities(eqx.Module):
    """What a loop does under an uncertain P, as shares of its draws.

    - `probability` (4,), `error` (4,): of each `Regime` in rollouts, and its standard error (of the number of draws).
    - `stable` (): share of draws whose fixed point is stable. - `radius` (draws,): spectral radius at the fixed points,
      NaN where there is none. - `regime` (draws,): codes of `Regime`.
    """

    probability: Float[Array, " regimes"]
    error: Float[Array, " regimes"]
    stable: Array
    radius: Float[Array, " draws"]
    regime: Array


@eqx.filter_jit
def _radii(loops: MRS) -> Array:
    star = solve_fixed_point(loops)
    return jnp.where(star.result == RESULTS.successful, solve_stability(loops, star.policy).radius, jnp.nan)


def regime_probabilities(
    P: Float[ArrayLike, "draws K K"],
    *,
    alpha: ScalarLike,
    beta: ScalarLike,
    lam: ScalarLike,
    pi_ref: PolicyLike | None = None,
    pi_0: PolicyLike | None = None,
    policy0: VectorLike | None = None,
    objective: AbstractObjective | None = None,
    num_steps: int = 3000,
    thresholds: RegimeThresholds | None = None,
    devices: Devices | None = None,
) -> RegimeProbabilities:
    r"""How probable each regime of a loop is, when P is known only by draws: rollouts and fixed points of every draw.

    - `P`: shape (draws, K, K), from `posterior_preferences` or `bootstrap_preferences`, or any ensemble. - `policy0`:
      shape (K,), where rollouts start; None starts beside `pi_0`, as `sweep` does. Other arguments as in `MRS` and
      `rollout`.

    Returns a `RegimeProbabilities`. Source: Chen et al., arXiv 2602.12180, finite samples; regimes as in `classify`.

    >>> import ipodyn, jax, numpy as np
    >>> wins = 10 * np.array([[0, 8, 2], [2, 0, 8], [8, 2, 0]])  # rock-paper-scissors, each pair compared 100 times
    >>> draws = ipodyn.posterior_preferences(jax.random.key(0), wins, num_draws=64)
    >>> found = ipodyn.regime_probabilities(draws, alpha=0.9, beta=4.0, lam=1.0, policy0=[0.5, 0.3, 0.2], num_steps=500)
    >>> bool(found.probability[ipodyn.Regime.oscillates] > 0.9)
    True
    """
    P = as_float(P)
    if P.ndim != 3 or P.shape[1] != P.shape[2]:
        raise ValueError(f"`P` has shape {P.shape}; give (draws, K, K).")

    def loop(P: Array) -> MRS:
        return MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0, objective=objective)

    loops = jax.vmap(loop)(P)
    start = None if policy0 is None else np.asarray(policy0, P.dtype)
    orbits = sweep(loops, start, num_steps=num_steps, devices=devices)
    thresholds = RegimeThresholds() if thresholds is None else thresholds
    radius = _radii(jax.vmap(loop, out_axes=-1)(P))
    known = radius
    if objective is None or isinstance(objective, IPO):  # with alpha = 1 no point inside the simplex attracts
        known = jnp.where(jnp.asarray(alpha) < 1, radius, jnp.inf)
    regime = jax.vmap(lambda orbit, radius: classify(orbit, thresholds, radius=radius))(orbits, known)
    draws = P.shape[0]
    codes = jnp.asarray([int(code) for code in Regime], regime.dtype)
    probability = jnp.mean((regime[:, None] == codes[None]).astype(P.dtype), axis=0)
    return RegimeProbabilities(
        probability,
        jnp.sqrt(probability * (1 - probability) / draws),
        jnp.mean((radius < 1).astype(P.dtype)),
        radius,
        regime,
    )
