"""Identity preference optimisation (IPO): scores are win rates."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.results import RESULTS, choose
from .._numerics.simplex import matvec
from .._numerics.types import (
    PolicyBlock,
    PreferenceBlock,
    ScalarBlock,
)
from .objective import AbstractObjective
from .response import LinearResponse, ScoreSolution
from .wins import EmpiricalScore, least_squares_scores


class IPO(AbstractObjective):
    r"""Identity preference optimisation: \(r(\mu) = P\mu\), the chance of beating a response drawn from mu.

    A labelled pair costs \((h_w - h_l - \beta/2)^2\). Source: Azar et al., arXiv 2310.12036, section on IPO; closed
    form: Chen et al., arXiv 2602.12180, Proposition 0.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.3)
    >>> [round(float(r), 6) for r in ipodyn.IPO().score(P, jnp.array([1.0, 0.0, 0.0]))]
    [0.5, 0.2, 0.8]
    """

    is_linear: ClassVar[bool] = True
    takes_ridge: ClassVar[bool | None] = False
    trl_loss_type: ClassVar[str | None] = "ipo"

    def solve_score(self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock | None = None) -> ScoreSolution:
        score = matvec(P, mu)
        batch = score.shape[1:]
        good = choose(jnp.ones(batch, bool), RESULTS.successful, RESULTS.successful)
        zero = jnp.zeros(batch, score.dtype)
        return ScoreSolution(score, good, zero, jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool))

    def pair_losses(self, margin: Float[Array, "*pairs"], beta: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        return (margin - beta / 2) ** 2

    def response(self, P: PreferenceBlock, *, beta: ScalarBlock, lam: ScalarBlock, pi_0: PolicyBlock) -> LinearResponse:
        # P - 1/2 in place of P: the same modulo a constant, and smaller numbers round less.
        A = P - 0.5
        return LinearResponse((beta * (1 - lam))[None] * matvec(A, pi_0), (beta * lam)[None, None] * A)

    def fit_wins(
        self, wins: PreferenceBlock, ridge: ScalarBlock | None, guess: PolicyBlock | None = None
    ) -> EmpiricalScore:
        return EmpiricalScore(least_squares_scores(wins), jnp.ones(wins.shape[2:], bool))
