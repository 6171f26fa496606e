"""The response of an objective whose scores are solved for, with a memory from round to round."""

from typing import ClassVar

import jax.numpy as jnp

from .._numerics.results import RESULTS, choose
from .._numerics.simplex import mixture
from .._numerics.types import (
    BoolBlock,
    IntBlock,
    PolicyBlock,
    PreferenceBlock,
    ScalarBlock,
)
from .objective import AbstractObjective
from .response import AbstractResponse


class ScoreResponse(AbstractResponse):
    """The response of any objective: it solves for the score in every round, warm-started from the last.

    Its memory is the last score and whether every solve so far converged. `first` is the score under uniform data and
    `inside` says whether scores exist at all policies inside the simplex.
    """

    is_iterative: ClassVar[bool] = True

    objective: "AbstractObjective"
    P: PreferenceBlock
    beta: ScalarBlock
    lam: ScalarBlock
    pi_0: PolicyBlock
    first: PolicyBlock
    inside: RESULTS

    @classmethod
    def of(
        cls,
        objective: "AbstractObjective",
        P: PreferenceBlock,
        *,
        beta: ScalarBlock,
        lam: ScalarBlock,
        pi_0: PolicyBlock,
    ) -> "ScoreResponse":
        uniform = jnp.full_like(pi_0, 1 / pi_0.shape[0])
        solution = objective.solve_score(P, uniform)
        # Where no score exists ties stand in: their rounds mean nothing, as `inside` says, and keep nobody waiting.
        unsolvable = solution.result == RESULTS.diverging_scores
        P = jnp.where(unsolvable[None, None], 0.5, P)
        first = jnp.where(unsolvable[None], 0.0, solution.score)
        return cls(objective, P, beta, lam, pi_0, first, solution.result)

    def init(self) -> tuple[PolicyBlock, BoolBlock]:
        return self.first, jnp.ones(self.first.shape[1:], bool)

    def _mu(self, policy: PolicyBlock) -> PolicyBlock:
        return mixture(self.lam, policy, self.pi_0)

    def __call__(
        self, policy: PolicyBlock, memory: tuple[PolicyBlock, BoolBlock]
    ) -> tuple[PolicyBlock, tuple[PolicyBlock, BoolBlock]]:
        guess, converged = memory
        solution = self.objective.solve_score(self.P, self._mu(policy), guess)
        return self.beta[None] * solution.score, (solution.score, converged & solution.converged)

    def attempt(
        self, policy: PolicyBlock, memory: tuple[PolicyBlock, BoolBlock], tries: IntBlock
    ) -> tuple[PolicyBlock, tuple[PolicyBlock, BoolBlock], BoolBlock]:
        guess, converged = memory
        score, solved, final = self.objective.improve_score(self.P, self._mu(policy), guess, tries)
        return self.beta[None] * score, (score, converged & (solved | ~final)), final

    def result(self, memory: tuple[PolicyBlock, BoolBlock]) -> RESULTS:
        # Scores that exist inside the simplex diverge on its faces if P has entries 0 and 1, and a loop can get there:
        # probabilities underflow.
        deterministic = jnp.any((self.P <= 0) | (self.P >= 1), axis=(0, 1))
        lost = choose(deterministic, RESULTS.diverging_scores, RESULTS.max_steps_reached)
        return choose((self.inside == RESULTS.successful) & ~memory[1], lost, self.inside)
