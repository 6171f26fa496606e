"""What the fixed point of a loop says: whether it attracts, how fast the loop turns about it, how far it collapsed."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Int

from ..._engine.blocks import CHEAP_BLOCKS_PER_CALL
from ..._equilibria.equilibrium import equilibrium
from ..._numerics.simplex import entropy
from ..grid import Grid, Tile
from .evidence import Boundary, Cells, Evidence, Panel, Patch, Request, Variable

_UNLESS_ROLLED_OUT = ("variance", "entropy")


@dataclasses.dataclass(frozen=True)
class FixedPoints(Evidence):
    """The fixed point of every loop and the spectrum of a round there; NaN where there is none."""

    variables = (
        Variable(
            "radius",
            "spectral radius at the fixed point; below 1 it is locally stable",
            averaged=True,
            largest=True,
            panel=Panel("spectral radius", "radius; stable below 1", unless=_UNLESS_ROLLED_OUT),
            boundary=Boundary("exact boundary: spectral radius = 1, {median}", ("the first matrix to lose stability",)),
        ),
        Variable("omega", "largest rotation rate, in units of beta * lam"),
        Variable("period", "rounds of one turn of the leading mode", "round"),
        Variable(
            "fixed_point_entropy",
            "entropy of the fixed point",
            "nat",
            averaged=True,
            panel=Panel("entropy of the fixed point", "nats", unless=_UNLESS_ROLLED_OUT),
        ),
        Variable("fixed_point_residual", "largest change of a probability in one round from the fixed point"),
    )

    @classmethod
    def asked(cls, grid: Grid, request: Request) -> "FixedPoints | None":
        return cls() if request.analytic else None

    @property
    def rounds(self) -> int:
        return 1

    def cells(self, tile: Tile, index: Int[Array, " S"], given: None = None) -> dict[str, Float[Array, " S"]]:
        loop, _ = tile.loops(index)
        found = equilibrium(loop)
        star, local = found.star, found.stability
        values = (local.radius, local.omega, local.period, entropy(star.policy), star.residual)
        return {variable.name: found.known(x) for variable, x in zip(self.variables, values, strict=True)}

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        K = patch.grid.P.shape[-1]
        return patch.run(type(self).cells, self, blocks_per_call=CHEAP_BLOCKS_PER_CALL, one_cpu=K > 4)
