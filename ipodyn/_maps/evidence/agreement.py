"""What rollout and fixed point say together: where they disagree, and which rollouts rest where they would not stay."""

import dataclasses

import numpy as np

from ..._rollouts.regimes import Regime, RegimeThresholds, settled
from ..grid import Grid
from .evidence import Cells, Code, Evidence, Patch, Request, Variable
from .regime import REGIME

DISAGREEMENT = Variable(
    "disagreement",
    "whether rollout and fixed point say different things",
    codes=(
        Code("none"),
        Code(
            "stable_but_moving",
            "the fixed point is stable, yet the rollout keeps moving (a cycle beside it)",
            "move beside a stable fixed point",
        ),
        Code(
            "unstable_but_still",
            "the rollout stands still where the slightest nudge would grow (its start keeps it there)",
            "stand still where a nudge would grow",
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Agreement(Evidence):
    """Corrects the regime of rollouts that rest on an unstable fixed point, and marks where the two disagree."""

    thresholds: RegimeThresholds

    variables = (REGIME, DISAGREEMENT)
    uses = ("radius", "residual", "rise", "growth", "regime")

    @classmethod
    def asked(cls, grid: Grid, request: Request) -> "Agreement | None":
        return cls(request.thresholds or RegimeThresholds()) if request.rollouts and request.analytic else None

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        at_rest = np.isin(found["regime"], (Regime.converges, Regime.collapses))
        unstable = (found["radius"] >= 1) & _knows_where_it_rests(patch)
        regime = np.where(unstable & at_rest, Regime.unresolved, found["regime"]).astype(np.int8)
        return {"regime": regime, "disagreement": _disagreement(found, regime, self.thresholds)}


def _knows_where_it_rests(patch: Patch) -> np.ndarray:
    """(cells, matrices): whether a rollout at rest can only be at rest on the fixed point that was solved for.

    With a linear objective there is one fixed point on each face, and a start keeps its face, unless alpha = 0.
    """
    grid, some = patch.grid, slice(patch.first, patch.stop)
    alike = ((grid.policy0[some] > 0) == (grid.pi_ref[some] > 0)).all(axis=-1)
    return grid.objective.is_linear & (alike | (np.repeat(grid.alpha, grid.beta.size) == 0)[:, None])


def _disagreement(found: Cells, regime: np.ndarray, thresholds: RegimeThresholds) -> np.ndarray:
    """1: the fixed point is stable, the rollout oscillates. 2: it stands still where it would not stay."""
    still = np.asarray(settled(found["residual"], found["rise"], thresholds))
    leaves = (found["radius"] >= 1) | (found["growth"] > 0)
    moving = (found["radius"] < 1) & (regime == Regime.oscillates)
    standing = still & leaves & (regime == Regime.unresolved)
    return np.where(moving, 1, np.where(standing, 2, 0)).astype(np.int8)
