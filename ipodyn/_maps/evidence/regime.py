"""The regime of a cell, and what the fixed point alone predicts of it."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..._rollouts.regimes import Regime, RegimeThresholds
from ..grid import Grid
from .evidence import Cells, Code, Evidence, Patch, Request, Variable

REGIME = Variable("regime", "regime by evidence", codes=tuple(Code(regime.name) for regime in Regime))


def threshold_attributes(thresholds: RegimeThresholds, dtype: np.dtype) -> dict[str, Any]:
    """The thresholds of regimes as attributes of a map, those that depend on its dtype as they are in use."""
    known = {**dataclasses.asdict(thresholds), "residual": thresholds.residual_for(dtype)}
    return {f"threshold_{name}": value for name, value in known.items()}


@dataclasses.dataclass(frozen=True)
class PredictedRegime(Evidence):
    """The regime of a map without rollouts: stable fixed points attract from nearby, around unstable ones it turns."""

    thresholds: RegimeThresholds

    variables = (REGIME,)
    uses = ("radius", "fixed_point_entropy")

    @classmethod
    def asked(cls, grid: Grid, request: Request) -> "PredictedRegime | None":
        return None if request.rollouts else cls(request.thresholds or RegimeThresholds())

    def attributes(self, grid: Grid) -> dict[str, Any]:
        return {"regime_from": "fixed point", **threshold_attributes(self.thresholds, grid.P.dtype)}

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        radius, K = found["radius"], patch.grid.P.shape[-1]
        collapsed = found["fixed_point_entropy"] < self.thresholds.collapse_fraction * math.log(K)
        code = np.where(radius < 1, np.where(collapsed, Regime.collapses, Regime.converges), Regime.oscillates)
        return {"regime": np.where(np.isnan(radius), Regime.unresolved, code).astype(np.int8)}
