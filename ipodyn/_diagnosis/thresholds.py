"""From where on a prompt counts as at risk, and what a recommendation keeps clear of: said in words from here too."""

import numpy as np
from jaxtyping import Array, Float

from .._rollouts.regimes import RegimeThresholds

Reals = Float[Array | np.ndarray, "..."]

CLOSE = 0.95  # a spectral radius from here on is close to the boundary, if alpha alone does not bring it there
COLLAPSE = RegimeThresholds().collapse_fraction  # of log K: a fixed point of less entropy is a collapse, as in rollouts
SPREAD = 0.1  # of log K: an entropy from here on has a margin to a collapse
ENOUGH = 0.95  # of the prompts must settle with both margins where a setting is recommended
VISIBLE = 0.05  # of a deviation must be left after one turn for the loop to be said to turn


def close_from(alpha: Reals | float) -> Reals:
    """The spectral radius from which on a stable loop is close to the boundary: 0.95, or half way from alpha to 1.

    The radius is alpha at least, so that a reference that follows the policy closely is no sign of instability.
    """
    return np.asarray(np.maximum(CLOSE, (1 + np.asarray(alpha)) / 2))
