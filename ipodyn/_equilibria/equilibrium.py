"""The fixed point of a loop together with its spectrum."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._loops.mrs import MRS
from .._numerics.results import RESULTS
from .._numerics.types import BoolBlock, PolicyBlock, ScalarBlock
from .._objectives.objective import AbstractObjective
from .fixed_point import FixedPoint, solve_fixed_point
from .stability import MRSStability, solve_stability


class Equilibrium(eqx.Module):
    """Where a loop stands still, and whether it stays; numbers of unsolved cases mean nothing until `known` masks them.

    - `star`: the fixed point. - `stability`: of one round there.
    """

    star: FixedPoint
    stability: MRSStability

    @property
    def solved(self) -> BoolBlock:
        return self.star.result == RESULTS.successful

    def known(self, x: Array) -> Array:
        """`x` (*batch), NaN where the fixed point was not certified."""
        return jnp.where(self.solved, x, jnp.nan)

    @property
    def radius(self) -> ScalarBlock:
        return self.known(self.stability.radius)


def equilibrium(loop: MRS, policy0: PolicyBlock | None = None) -> Equilibrium:
    """The equilibrium of a loop whose fields have batch axes behind; never raises, compiles nothing by itself."""
    star = solve_fixed_point(loop, policy0)
    return Equilibrium(star, solve_stability(loop, star.policy))


def attracting_radius(objective: AbstractObjective, alpha: ScalarBlock, radius: ScalarBlock) -> ScalarBlock:
    """The radius as `classify` takes it: inf for linear objectives at alpha = 1, where nothing interior attracts."""
    return jnp.where(alpha < 1, radius, jnp.inf) if objective.is_linear else radius
