"""Loops under an estimated P: what is known of it when each pair was compared a few times."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._engine.blocks import Devices
from .._equilibria.equilibrium import attracting_radius, equilibrium
from .._loops.mrs import MRS
from .._maps.sweep import sweep
from .._numerics.results import RESULTS
from .._numerics.types import PolicyLike, ScalarLike, VectorLike, as_float
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .._rollouts.regimes import Regime, RegimeThresholds, classify


class RegimeProbabilities(eqx.Module):
    """What a loop does under an uncertain P, as fractions of its draws.

    - `probability` (4,), `error` (4,): of each `Regime` in rollouts, and its standard error (of the number of draws).
    - `stable` (): fraction of draws whose fixed point is stable. - `radius` (draws,): spectral radius at the fixed
      points, NaN where `result` (draws,) of the fixed point is not successful. - `regime` (draws,): codes of `Regime`.
    """

    probability: Float[Array, " regimes"]
    error: Float[Array, " regimes"]
    stable: Array
    radius: Float[Array, " draws"]
    regime: Array
    result: RESULTS


@eqx.filter_jit
def _radii(loops: MRS) -> tuple[Array, RESULTS]:
    at_rest = equilibrium(loops)
    return at_rest.radius, at_rest.star.result


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

    Returns a `RegimeProbabilities`. Source: derived here; regimes as in `classify`.

    >>> import ipodyn, jax, numpy as np
    >>> wins = 10 * np.array([[0, 8, 2], [2, 0, 8], [8, 2, 0]])  # rock-paper-scissors, each pair compared 100 times
    >>> draws = ipodyn.posterior_preferences(jax.random.key(0), wins, num_draws=64)
    >>> regimes = ipodyn.regime_probabilities(
    ...     draws, alpha=0.9, beta=4.0, lam=1.0, policy0=[0.5, 0.3, 0.2], num_steps=500
    ... )
    >>> bool(regimes.probability[ipodyn.Regime.oscillates] > 0.9)
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
    radius, result = _radii(jax.vmap(loop, out_axes=-1)(P))
    known = attracting_radius(IPO() if objective is None else objective, jnp.full_like(radius, alpha), radius)
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
        result,
    )
