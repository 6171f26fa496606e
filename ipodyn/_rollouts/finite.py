"""Loops on finite samples: n labelled pairs a round, and statistics that phases do not blur."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._loops.loop import start_policy
from .._loops.mrs import MRS
from .._loops.normal_form import Round
from .._loops.sampled_response import Keys, finite_round
from .._numerics.deprecation import moved_argument, renamed_keywords
from .._numerics.randomness import RandomKey, is_key, random_key
from .._numerics.results import RESULTS
from .._numerics.simplex import entropy
from .._numerics.types import Policy, PolicyBlock, ScalarLike, VectorLike, as_float
from .._objectives.empirical import check_ridge
from .rounds import run
from .statistics import Chunking


class Spread(NamedTuple):
    """A statistic of many trajectories: its mean over them and the standard error of that mean."""

    mean: Array
    error: Array


class FiniteOrbit(eqx.Module):
    """What loops on finite samples did, one entry for each trajectory. Statistics run over rounds 1..num_steps.

    - `final` (..., K): the last policy. - `mean` (..., K): its average over the rounds.
    - `variance` (...): time-averaged variance about that mean, the sum over responses k of Var_t(pi_t[k]).
    - `window_variance` (...): the same over the last window of rounds.
    - `entropy` (...): of `final`, in nats. - `saved` (..., num_steps, ...): outputs of `save`, or None.
    - `result`: `RESULTS.max_steps_reached` if a ridge fit did not converge.

    Trajectories of an oscillating loop differ in phase: an average of policies over them is smooth while each of them
    turns. So average what is taken within a trajectory: `across("variance")`.
    """

    final: Array
    mean: Array
    variance: Array
    window_variance: Array
    entropy: Array
    saved: Any
    result: RESULTS

    def across(self, name: str) -> Spread:
        """Mean over trajectories (the last batch axis) of `variance`, `window_variance` or `entropy`, and its error."""
        if name not in ("variance", "window_variance", "entropy"):
            raise ValueError(f"{name!r} is no statistic of a trajectory; use variance, window_variance or entropy.")
        values = jnp.asarray(getattr(self, name))
        number = values.shape[-1] if values.ndim else 0
        if number < 2:
            raise ValueError(f"`{name}` has shape {values.shape}; a spread needs at least 2 trajectories.")
        return Spread(jnp.mean(values, axis=-1), jnp.std(values, axis=-1, ddof=1) / number**0.5)


def variance_of_average(paths: Float[ArrayLike, "trajectories rounds K"]) -> Array:
    """What averaging policies over trajectories leaves of their variance in time: phases cancel, so it may be nothing.

    - `paths`: shape (trajectories, rounds, K). For contrast with the mean of the variances of the trajectories.

    Source: Chen et al., arXiv 2602.12180, section on finite samples.

    >>> import numpy as np
    >>> t = np.arange(40)
    >>> turning = np.stack([0.5 + 0.1 * np.cos(2 * np.pi * (t / 40 + phase / 8)) for phase in range(8)])
    >>> paths = np.stack([turning, 1 - turning], axis=-1)
    >>> float(variance_of_average(paths)) < 1e-12 < float(paths.var(axis=1).sum(axis=-1).mean())
    True
    """
    average = jnp.mean(as_float(paths), axis=0)
    return jnp.sum(jnp.var(average, axis=0))


def save_policies(paths: bool) -> Callable[[PolicyBlock], Any] | None:
    """What `paths`, the old spelling of `save`, asked for: all policies, or nothing."""
    return jnp.asarray if paths else None


def one_orbit(
    one_round: Round, policy0: PolicyBlock, plan: Chunking, save: Callable[[PolicyBlock], Any] | None
) -> FiniteOrbit:
    progress, saved = run(one_round, one_round.start(policy0), plan, save)
    final = one_round.policy(progress.state)
    return FiniteOrbit(
        final,
        progress.moments.mean,
        progress.moments.variance(),
        progress.window.variance(),
        entropy(final),
        saved,
        one_round.result(progress.state),
    )


@eqx.filter_jit
def _finite_rollout(
    loop: MRS,
    key: Keys,
    policy0: Array,
    num_pairs: Array,
    ridge: Array | None,
    plan: Chunking,
    save: Callable[[PolicyBlock], Any] | None,
) -> FiniteOrbit:
    return one_orbit(finite_round(loop, key, num_pairs, ridge), policy0, plan, save)


@moved_argument("0.3", "key", 1, is_key)
@renamed_keywords("0.3", paths=("save", save_policies))
def finite_rollout(
    loop: MRS,
    policy0: VectorLike | None = None,
    *,
    key: RandomKey,
    num_pairs: ScalarLike,
    num_steps: int = 3000,
    save: Callable[[Policy], Any] | None = None,
    window: int | None = None,
    ridge: ScalarLike | None = None,
) -> FiniteOrbit:
    r"""Run a loop in which every round trains on `num_pairs` labelled pairs: one trajectory of a Markov chain.

    \(\pi_{t+1} = \mathrm{softmax}(\alpha\log\pi_t + (1-\alpha)\log\pi_{ref} + \beta\, r(W_t))\), with \(W_t\) the
    labels of pairs drawn from \(\mu_t\otimes\mu_t\) (`draw_wins`) and r the `empirical_score` of the loop's objective.
    As `num_pairs` grows it tends to `rollout`.

    - `policy0`: shape (K,); None starts at `loop.pi_0`. - `key`: a JAX random key, or a number to make one from; many
      trajectories by `jax.vmap` over keys, or `finite_sweep`. - `num_pairs` > 0: may be traced.
    - `num_steps`, `save`, `window`: as in `rollout`; `save=jnp.asarray` keeps the policies themselves.
    - `ridge`: required for DPO, see `empirical_score`.

    Returns a `FiniteOrbit`. Source: Chen et al., arXiv 2602.12180, section on finite samples.

    >>> import ipodyn, jax
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=1.0, lam=1.0)
    >>> orbit = ipodyn.finite_rollout(loop, key=jax.random.key(0), num_pairs=100, num_steps=20)
    >>> orbit.final.shape, bool(orbit.variance > 0)  # sampling noise keeps it moving
    ((3,), True)
    """
    check_ridge(loop.objective, ridge)
    policy = start_policy(loop, None if policy0 is None else jnp.asarray(policy0))
    plan = Chunking.of(num_steps, window)
    ridge = None if ridge is None else as_float(ridge, loop.P)
    return _finite_rollout(loop, random_key(key), policy, as_float(num_pairs, loop.P), ridge, plan, save)
