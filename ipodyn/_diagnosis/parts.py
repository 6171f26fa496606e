"""The parts of a diagnosis. Kernels make them with the prompts last; a diagnosis has the prompts first, in NumPy."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Int

from .._numerics.results import RESULTS
from .thresholds import COLLAPSE, VISIBLE, Reals, close_from

Flags = Bool[Array | np.ndarray, "..."]

GRADES = ("unresolved", "unstable", "close", "stable")  # of a fixed point, worst first


class PreferenceSummary(eqx.Module):
    """What the preferences of M prompts are like.

    - `cyclic`, `strongly_transitive` (M,): a majority cycle; an order that holds against every opponent.
    - `cyclic_fraction` (M,): of the squared preferences, what no score explains. - `triangle` (M, 3): the responses
      (rows of P) that carry most of it, in the order i, j, k in which they go round; `curl` (M,) how far round it goes,
      at most 3/2, and `triangle_fraction` (M,) its fraction of the cyclic part. All 0 with two responses.
    """

    cyclic: Flags
    strongly_transitive: Flags
    cyclic_fraction: Reals
    triangle: Int[Array | np.ndarray, "..."]
    curl: Reals
    triangle_fraction: Reals


class EquilibriumSummary(eqx.Module):
    """The fixed points of M prompts; NaN where `result` is not successful.

    - `alpha` (M,): of the loop. - `policy` (M, K), `entropy` (M,), `drift` (M,): the fixed point, its entropy and its
      KL from the reference, nats. - `result` (M,), `residual` (M,): as `fixed_point` says. - `radius`, `omega`,
      `period` (M,): as `stability` says.
    - `cycle` (M, 3): the responses (rows of P) round which the policy is driven: the triangle with the largest
      |A_ij + A_jk + A_ki| sqrt(pi_i pi_j pi_k), in the order in which it goes round; `cycle_mass` (M,) their
      probability at the fixed point, 0 where there is no triangle.
    """

    alpha: Reals
    policy: Reals
    entropy: Reals
    drift: Reals
    result: RESULTS
    residual: Reals
    radius: Reals
    omega: Reals
    period: Reals
    cycle: Int[Array | np.ndarray, "..."]
    cycle_mass: Reals

    @property
    def solved(self) -> np.ndarray:
        """(M,) which fixed points are certified."""
        return np.asarray(self.result == RESULTS.successful)

    @property
    def diverging(self) -> np.ndarray:
        """(M,) which prompts have no finite scores, at any alpha, beta and lam."""
        return np.asarray(self.result == RESULTS.diverging_scores)

    @property
    def stable(self) -> np.ndarray:
        """(M,) which fixed points are stable: a spectral radius below 1."""
        return self.solved & (self.radius < 1)

    @property
    def unstable(self) -> np.ndarray:
        """(M,) which fixed points are not."""
        return self.solved & (self.radius >= 1)

    @property
    def close(self) -> np.ndarray:
        """(M,) which fixed points are stable, and slow for their alpha: a radius of at least 0.95 and (1 + alpha)/2."""
        return self.stable & (self.radius >= close_from(self.alpha))

    @property
    def turning(self) -> np.ndarray:
        """(M,) which are unstable, or close to it with a turn that shows before it dies: those whose period matters."""
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.asarray(self.radius) ** np.asarray(self.period)  # of a deviation, after one turn
        return (self.unstable | (self.close & (left >= VISIBLE))) & np.isfinite(self.period)

    @property
    def collapses(self) -> np.ndarray:
        """(M,) which fixed points have an entropy below 5 % of log K, as `Regime.collapses` in a rollout."""
        return self.solved & (self.entropy < COLLAPSE * math.log(self.policy.shape[-1]))

    @property
    def grade(self) -> np.ndarray:
        """(M,) a word of `GRADES`: "unresolved" (no fixed point is certified), "unstable", "close" or "stable"."""
        return np.select([~self.solved, self.unstable, self.close], GRADES[:3], GRADES[3])


class StabilityLimits(eqx.Module):
    """Where M prompts lose stability, the other two parameters as they are.

    - `alpha`, `beta`, `lam` (M,): critical values; inf where stability is never lost, 0 where there is none to lose,
      NaN where the search failed. - `result` (M, 3): of the searches for alpha, beta and lam, as `critical_alpha` says.
    """

    alpha: Reals
    beta: Reals
    lam: Reals
    result: RESULTS

    def safe(self, name: str, fraction: float) -> float:
        """The largest alpha, beta or lam (`name`) up to which this fraction of the prompts stays stable."""
        # Critical values that are not known count as unsafe.
        values = np.sort(np.nan_to_num(getattr(self, name), nan=0.0, posinf=np.inf))
        return float(values[values.size - math.ceil(fraction * values.size - 1e-9)])


class StabilityUncertainty(eqx.Module):
    """How far counts of comparisons settle the stability of M prompts, over draws of P from its posterior.

    - `counted`: whether there were counts; all is NaN if not. - `stable_probability` (M,): fraction of draws that are
      stable. - `radius_low`, `radius_high` (M,): 5 % and 95 % quantiles of the radius, inf where so many draws have no
      fixed point.
    """

    counted: bool = eqx.field(static=True)
    stable_probability: Reals
    radius_low: Reals
    radius_high: Reals


class Forecast(eqx.Module):
    """What the first rounds do from the first model (`pi_ref`), at M prompts.

    - `rounds` (R,): after how many. - `entropy`, `drift` (R, M): of the policy then, and its KL from the first model,
      nats. - `top` (R, M): its most probable response. - `moved` (R, M): whether that is another than P's own favourite
      of the first model, the top of `P pi_ref`.
    """

    rounds: np.ndarray
    entropy: Reals
    drift: Reals
    top: Int[Array | np.ndarray, "..."]
    moved: Flags
