"""What the contraction condition proves: convergence from every start, where its bound is below 1."""

import dataclasses

import numpy as np

from ..._equilibria.stability import contraction_rate
from ..grid import Grid
from .evidence import Boundary, Cells, Evidence, Patch, Request, Variable


@dataclasses.dataclass(frozen=True)
class ContractionBound(Evidence):
    """The bound of Chen et al., arXiv 2602.12180, contraction condition of MRS-IPO, for linear objectives."""

    variables = (
        Variable(
            "contraction_bound",
            "alpha + beta * lam / 2 * ||P - 1/2||_2; below 1 it certifies global convergence",
            certifies="certified",
            boundary=Boundary(
                "contraction bound = 1, {median} (convergence proved below)",
                ("the first and the last matrix to lose that proof",) * 2,
            ),
        ),
    )

    @classmethod
    def asked(cls, grid: Grid, request: Request) -> "ContractionBound | None":
        return cls() if grid.objective.is_linear else None

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        grid = patch.grid
        norms = np.linalg.norm(grid.P[patch.first : patch.stop] - 0.5, ord=2, axis=(1, 2))
        bound = contraction_rate(grid.alpha[:, None, None], grid.beta[:, None], grid.lam, norms)
        return {"contraction_bound": bound.astype(grid.P.dtype).reshape(patch.shape)}
