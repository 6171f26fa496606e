"""From where on a prompt counts as at risk, and what a recommendation keeps clear of: said in words from here too."""

from .._rollouts.regimes import RegimeThresholds

CLOSE = 0.95  # a spectral radius from here on is close to the boundary; below, there is a margin to it
COLLAPSE = RegimeThresholds().collapse_fraction  # of log K: a fixed point of less entropy is a collapse, as in rollouts
SPREAD = 0.1  # of log K: an entropy from here on has a margin to a collapse
ENOUGH = 0.95  # of the prompts must settle with both margins where a setting is recommended
