"""Dynamics of preference optimisation: where iterated IPO and DPO converge, oscillate or collapse."""

import importlib.metadata as _metadata

from . import data as data
from . import plot as plot
from . import problems as problems
from . import recipes as recipes
from ._boundary import stability_boundary as stability_boundary
from ._cpu import configure_cpu as configure_cpu
from ._critical import Critical as Critical
from ._critical import critical_alpha as critical_alpha
from ._critical import critical_beta as critical_beta
from ._critical import critical_lam as critical_lam
from ._fixed_point import FixedPoint as FixedPoint
from ._fixed_point import fixed_point as fixed_point
from ._gradient_optimum import gradient_optimum as gradient_optimum
from ._loop import MRS as MRS
from ._objectives import DPO as DPO
from ._objectives import IPO as IPO
from ._objectives import AbstractObjective as AbstractObjective
from ._objectives import Optimum as Optimum
from ._objectives import ipo_game_value as ipo_game_value
from ._objectives import ipo_regression_loss as ipo_regression_loss
from ._objectives import pair_loss as pair_loss
from ._preferences import check_alpha as check_alpha
from ._preferences import check_beta as check_beta
from ._preferences import check_lam as check_lam
from ._preferences import check_policy as check_policy
from ._preferences import check_positive as check_positive
from ._preferences import check_preference as check_preference
from ._preferences import check_unit_interval as check_unit_interval
from ._regimes import Regime as Regime
from ._regimes import RegimeThresholds as RegimeThresholds
from ._regimes import classify as classify
from ._results import RESULTS as RESULTS
from ._rollout import Orbit as Orbit
from ._rollout import rollout as rollout
from ._safe_region import SafeRegion as SafeRegion
from ._safe_region import safe_region as safe_region
from ._simplex import entropy as entropy
from ._simplex import kl_divergence as kl_divergence
from ._stability import Stability as Stability
from ._stability import contraction_bound as contraction_bound
from ._stability import stability as stability
from ._stability_map import stability_map as stability_map
from ._structure import StrongOrder as StrongOrder
from ._structure import Transitivity as Transitivity
from ._structure import condorcet_winner as condorcet_winner
from ._structure import has_cycle as has_cycle
from ._structure import smith_set as smith_set
from ._structure import strong_order as strong_order
from ._structure import transitivity as transitivity
from ._structure import weak_condorcet_winners as weak_condorcet_winners
from ._sweep import sweep as sweep
from ._tune import Tuned as Tuned
from ._tune import tune as tune

__version__ = _metadata.version("ipodyn")
