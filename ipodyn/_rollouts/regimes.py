"""Regimes: what a finished rollout is evidence for."""

import dataclasses
import enum
import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int

from .._numerics.deprecation import renamed_fields
from .._numerics.results import RESULTS
from .rollout import Orbit


class Regime(enum.IntEnum):
    """What a loop was seen to do. The order is that of the codes in a stability map."""

    converges = 0
    oscillates = 1
    collapses = 2
    unresolved = 3


@renamed_fields("0.3", collapse_share="collapse_fraction", drift_share="drift_ratio")
@dataclasses.dataclass(frozen=True)
class RegimeThresholds:
    """Where evidence counts; recorded with every stability map.

    - `residual`: a loop has converged when one more round changes no probability by more; None is 1e-8 in float64
      and a hundred roundings (1.2e-5) in float32.
    - `rise`: and when no logit gains more than this on the leading response in that round. Close to a vertex
      probabilities can stand still while a response is on its way back.
    - `collapse_fraction`: converged with entropy below this fraction of log K is a collapse.
    - `sustained_ratio`, `smallest_variance`: not converged, with a variance over the last window at least this fraction
      of that over the window before, and above the floor, is an oscillation.
    - `decay`: but not if, at its pace since the window halfway, the logarithm of the variance falls by more than this
      over as many rounds as were run: then it may be a transient longer than the run. Where the fixed point is known to
      be stable, nor by more than half of what its radius predicts, nor if that is less than half of this. A fixed point
      known to be unstable makes all this superfluous.
    - `drift_ratio`: but only if the means of the two windows differ, squared, by less than this multiple of that
      variance: otherwise the policy is on its way somewhere, or turns too slowly for the window.
    """

    residual: float | None = None
    rise: float = 1e-3
    collapse_fraction: float = 0.05
    sustained_ratio: float = 0.9
    smallest_variance: float = 1e-6
    decay: float = 0.2
    drift_ratio: float = 1.0

    def residual_for(self, dtype: jnp.dtype) -> float:
        """The residual tolerance in use for this dtype."""
        return max(1e-8, 100 * float(jnp.finfo(dtype).eps)) if self.residual is None else self.residual


def settled(residual: ArrayLike, rise: ArrayLike, thresholds: RegimeThresholds) -> Array:
    """Whether a loop stands still, by the change of the policy and of the logits in one round."""
    residual, rise = jnp.asarray(residual), jnp.asarray(rise)
    return (residual <= thresholds.residual_for(residual.dtype)) & (rise <= thresholds.rise)


def at_rest(residual: Array, rise: Array, growth: Array, thresholds: RegimeThresholds) -> Array:
    """Whether a loop stands still where it would stay: not where a nudge grows, as at an unstable fixed point."""
    return settled(residual, rise, thresholds) & (growth <= 0)


def _lasts(orbit: Orbit, thresholds: RegimeThresholds, radius: ArrayLike | None) -> Array:
    """Whether a motion is more than a transient.

    Close to the onset of oscillation a motion dies out so slowly that two windows look alike: as rho^(2 t) where it is
    small, as 1 / t where it is large: by 10 % between the last two of ten windows. A cycle keeps its variance.
    """
    sustained = orbit.window_variance >= thresholds.sustained_ratio * orbit.previous_variance
    fall = orbit.decay * orbit.rounds
    if radius is None:
        return sustained & (fall <= thresholds.decay)
    radius = jnp.asarray(radius, orbit.decay.dtype)
    predicted = -2 * jnp.log(jnp.maximum(radius, jnp.finfo(radius.dtype).tiny)) * orbit.rounds
    told = (fall <= predicted / 2) & (predicted >= thresholds.decay / 2)
    return sustained & ((radius >= 1) | ((fall <= thresholds.decay) & (jnp.isnan(radius) | told)))


def classify(
    orbit: Orbit, thresholds: RegimeThresholds | None = None, *, radius: ArrayLike | None = None
) -> Int[Array, "*batch"]:
    r"""The regime of a finished rollout, by evidence, as the code of a `Regime`.

    *converges*: one more round changes nothing (see `RegimeThresholds`), and a nudge of the policy does not grow
    (`Orbit.growth`): standing still on an unstable fixed point, where a symmetry or the choice of the start put the
    loop, is no convergence. A nudge that neither grows nor shrinks (ties at alpha = 1) is no objection. *collapses*:
    converged with entropy below `collapse_fraction` of log K. *oscillates*: not converged, and the variance of the last
    window is sustained, more than by a motion that dies out slowly. Else, and wherever the scores were not defined,
    *unresolved*.

    - `radius`: shape (), the spectral radius at the loop's fixed point where it is known, NaN or None where not, inf
      where nothing can attract (alpha = 1): it tells a slow transient from a cycle, as `RegimeThresholds` says.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.5), alpha=0.95, beta=3.0, lam=1.0)
    >>> orbit = ipodyn.rollout(loop, [0.5, 0.3, 0.2], num_steps=1000)
    >>> ipodyn.Regime(int(ipodyn.classify(orbit))).name
    'oscillates'
    """
    thresholds = RegimeThresholds() if thresholds is None else thresholds
    K = orbit.final.shape[0]
    if orbit.final.shape[1:] != orbit.variance.shape:
        raise ValueError(
            f"`orbit.final` has shape {orbit.final.shape}; for a batch of orbits use `jax.vmap(classify)`."
        )
    still = at_rest(orbit.residual, orbit.rise, orbit.growth, thresholds)
    collapsed = still & (orbit.entropy < thresholds.collapse_fraction * math.log(K))
    moving = (
        _lasts(orbit, thresholds, radius)
        & (orbit.window_variance > thresholds.smallest_variance)
        & (orbit.window_shift <= thresholds.drift_ratio * orbit.window_variance)
    )
    code = jnp.where(still, Regime.converges, jnp.where(moving, Regime.oscillates, Regime.unresolved))
    code = jnp.where(collapsed, Regime.collapses, code)
    return jnp.where(orbit.result == RESULTS.successful, code, Regime.unresolved)
