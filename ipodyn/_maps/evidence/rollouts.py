"""What a rollout shows: how a loop moves, where it ends, and the regime by that."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._equilibria.equilibrium import attracting_radius
from ..._rollouts.regimes import RegimeThresholds, classify
from ..._rollouts.rollout import finish
from ..._rollouts.rounds import run_until_standing
from ..._rollouts.statistics import Chunking
from ..grid import Grid, Tile
from .evidence import Cells, Evidence, Panel, Patch, Request, Variable
from .regime import REGIME, threshold_attributes


@dataclasses.dataclass(frozen=True)
class Rollouts(Evidence):
    """Every loop rolled out from its start. Where the radius is known, those that settle are left early."""

    plan: Chunking
    thresholds: RegimeThresholds

    variables = (
        Variable(
            "variance",
            "time-averaged variance of the policy, summed over responses, rounds 1..num_steps",
            averaged=True,
            largest=True,
            panel=Panel("variance over time", "Σₖ Varₜ π[k]"),
        ),
        Variable("entropy", "entropy of the final policy", "nat", averaged=True, panel=Panel("final entropy", "nats")),
        Variable("residual", "largest change of a probability in one more round"),
        Variable("rise", "fastest gain of a logit on the leading response in one more round", "nat"),
        Variable("growth", "log of what a round multiplies a nudge of a policy at rest by; above 0 it would not stay"),
        Variable("window_variance", "variance of the policy over the last window of rounds, summed over responses"),
        Variable("decay", "fall of the log of that variance per round, since the window halfway"),
        REGIME,
    )
    uses = ("radius",)

    @classmethod
    def asked(cls, grid: Grid, request: Request) -> "Rollouts | None":
        if not request.rollouts:
            return None
        return cls(Chunking.of(request.num_steps, request.window), request.thresholds or RegimeThresholds())

    @property
    def rounds(self) -> int:
        return self.plan.odd + self.plan.chunk * self.plan.num_chunks

    def attributes(self, grid: Grid) -> dict[str, Any]:
        run = {"num_steps": self.rounds, "window": self.plan.window, "start": grid.start}
        return {"regime_from": "rollout", **run, **threshold_attributes(self.thresholds, grid.P.dtype)}

    def cells(self, tile: Tile, index: Int[Array, " S"], given: Float[Array, " S"]) -> dict[str, Array]:
        """`given` is the radius, NaN where it is not known."""
        loop, policy0 = tile.loops(index)
        one_round = loop.round()
        orbit = finish(one_round, run_until_standing(one_round, one_round.start(policy0), self.plan, given >= 1))
        radius = attracting_radius(loop.objective, loop.alpha, given)
        regime = classify(orbit, self.thresholds, radius=radius).astype(jnp.int8)
        shown = (variable.name for variable in self.variables if variable is not REGIME)
        return {name: getattr(orbit, name) for name in shown} | {REGIME.name: regime}

    def compute(self, patch: Patch, found: Cells) -> dict[str, np.ndarray]:
        if "radius" not in found:
            return patch.run(type(self).cells, self, given=np.full(patch.shape, np.nan, patch.grid.P.dtype))
        # Slow matrices next to slow ones: blocks then end together, and more of them end early.
        order = np.argsort(self._expected_rounds(found["radius"]).mean(axis=0), kind="stable")
        return patch.run(type(self).cells, self, given=found["radius"], order=order)

    def _expected_rounds(self, radius: np.ndarray) -> np.ndarray:
        """Rounds until a loop stands still, by its rate of convergence: deviations shrink to 1e-9."""
        rate = -np.log(np.clip(radius, 1e-9, 1.0))
        return np.where(radius < 1, np.minimum(20 / np.maximum(rate, 20 / self.rounds), self.rounds), self.rounds)
