"""Direct preference optimisation (DPO): scores are a Bradley-Terry fit."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._numerics.results import RESULTS, choose
from .._numerics.types import (
    BoolBlock,
    IntBlock,
    PolicyBlock,
    PreferenceBlock,
    ScalarBlock,
)
from .bradley_terry import fit_scores, has_finite_scores, newton_step
from .objective import AbstractObjective
from .response import ScoreSolution
from .score_response import ScoreResponse
from .wins import EmpiricalScore, ridge_scores


class DPO(AbstractObjective):
    r"""Direct preference optimisation: r(mu) is the Bradley-Terry fit to P with pair weights \(\mu_i\mu_j\).

    A labelled pair costs \(-\log\sigma((h_w - h_l)/\beta)\). The scores depend on neither beta nor pi_ref. They are
    finite exactly if the comparison graph {(i, j): P[i, j] > 0} is strongly connected, always so for P inside (0, 1);
    otherwise the result is `RESULTS.diverging_scores`. Source: Rafailov et al., arXiv 2305.18290, section on
    the DPO objective; r(mu) as a Bradley-Terry fit that depends on neither beta nor pi_ref is derived here.

    - `max_steps`: damped Newton steps before giving up; a handful suffice unless P is within 1e-6 of 0 and 1.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.3)
    >>> [round(float(r), 6) + 0 for r in ipodyn.DPO().score(P, jnp.full(3, 1 / 3))]  # a symmetric cycle: a tie
    [0.0, 0.0, 0.0]
    """

    is_bradley_terry: ClassVar[bool] = True
    takes_ridge: ClassVar[bool | None] = True
    trl_loss_type: ClassVar[str | None] = "sigmoid"

    max_steps: int = eqx.field(static=True, default=60)

    def solve_score(self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock | None = None) -> ScoreSolution:
        fit = fit_scores(P, mu, guess, max_steps=self.max_steps)
        solved = choose(fit.converged, RESULTS.successful, RESULTS.max_steps_reached)
        result = choose(has_finite_scores(P, mu), solved, RESULTS.diverging_scores)
        return ScoreSolution(fit.score, result, fit.residual, fit.num_steps, fit.converged)

    def improve_score(
        self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock, tries: IntBlock
    ) -> tuple[PolicyBlock, BoolBlock, BoolBlock]:
        score, converged = newton_step(P, mu, guess)
        return score, converged, converged | (tries + 1 >= self.max_steps)

    def pair_losses(self, margin: Float[Array, "*pairs"], beta: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        return jax.nn.softplus(-margin / beta)

    def response(self, P: PreferenceBlock, *, beta: ScalarBlock, lam: ScalarBlock, pi_0: PolicyBlock) -> ScoreResponse:
        return ScoreResponse.of(self, P, beta=beta, lam=lam, pi_0=pi_0)

    def fit_wins(
        self, wins: PreferenceBlock, ridge: ScalarBlock | None, guess: PolicyBlock | None = None
    ) -> EmpiricalScore:
        assert ridge is not None
        return ridge_scores(wins, ridge, guess)
