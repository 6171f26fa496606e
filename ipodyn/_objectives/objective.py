"""Preference objectives, each a score map: what a policy is pulled towards by data sampled from `mu`."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._numerics.results import RESULTS, throw_unless_successful
from .._numerics.simplex import log_policy, softmax
from .._numerics.types import (
    BoolBlock,
    IntBlock,
    Logits,
    Policy,
    PolicyBlock,
    PolicyLike,
    PreferenceBlock,
    PreferenceLike,
    Scalar,
    ScalarBlock,
    ScalarLike,
    as_float,
)
from .response import AbstractResponse, ScoreSolution
from .wins import EmpiricalScore


class Optimum(eqx.Module):
    """A one-shot optimum: the policy, whether the solve succeeded, the evidence, and the steps it took."""

    policy: PolicyBlock
    result: RESULTS
    residual: ScalarBlock
    num_steps: IntBlock


def prepare(P: ArrayLike, *policies: ArrayLike) -> tuple[Array, ...]:
    P = as_float(P)
    arrays = [jnp.asarray(x, dtype=P.dtype) for x in policies]
    for x in arrays:
        if x.shape[:1] != P.shape[1:2] or P.shape[:1] != P.shape[1:2]:
            raise ValueError(
                f"`P` has shape {P.shape} but a policy or logits of shape {x.shape} came with it; "
                "for K responses give (K, K) and (K,)."
            )
    return P, *arrays


def log_ratio(logits: Logits, pi_ref: Policy, mu: Policy) -> tuple[Logits, Float[Array, "K K"]]:
    """h = log pi - log pi_ref up to a constant (only differences are ever used), and the weights mu_i mu_j.

    A response that the reference excludes has no log-ratio: its pairs weigh nothing.
    """
    known = pi_ref > 0
    h = jnp.where(known, logits - jnp.log(jnp.where(known, pi_ref, 1.0)), 0.0)
    mu = jnp.where(known, mu, 0.0)
    return h, mu[:, None] * mu[None, :]


class AbstractObjective(eqx.Module):
    """What preference data are trained with, as a score map r(mu) over K responses.

    **For developers.** Subclass and give `solve_score`, `pair_losses` and `response` (return
    `ScoreResponse.of(self, ...)` unless the score is linear in mu). Keep batch axes behind the response axes, never
    return NaN for a valid P, say in the result when no finite score exists, and make the score differentiable in P
    and mu by its defining equations, not by unrolling. Then `score`, `loss`, `optimum`, `MRS`, `rollout`,
    `fixed_point` and `stability_map` work.

    - `is_linear`: whether the score is the win rate, r(mu) = P mu up to a constant. Loops then have the theory of a
      skew game: one fixed point for alpha < 1, the spectrum in closed form, a contraction bound.
    - `is_bradley_terry`: whether the score is the Bradley-Terry fit, for which a bound on its sensitivity is proved.
    - `takes_ridge`: give it with `fit_wins`, for loops on finite samples: whether the fit needs a ridge, as labels that
      agree have no finite optimum. None: there is no `fit_wins`.
    - `trl_loss_type`: what TRL calls the loss; None where it has none.

    Of `pair_losses`, which should depend on `margin / beta` up to a factor, noise and gradients are derived.
    """

    is_linear: ClassVar[bool] = False
    is_bradley_terry: ClassVar[bool] = False
    takes_ridge: ClassVar[bool | None] = None
    trl_loss_type: ClassVar[str | None] = None

    @abc.abstractmethod
    def solve_score(self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock | None = None) -> ScoreSolution:
        """The score map with its evidence. Never raises; `guess` only speeds it up."""

    def improve_score(
        self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock, tries: IntBlock
    ) -> tuple[PolicyBlock, BoolBlock, BoolBlock]:
        """One step of `solve_score`: the score, whether it converged, and whether there will be no further step.

        `tries` steps were taken before. In a batch every loop then takes the steps that it needs, not those of the
        slowest. By default all of `solve_score` is one step.
        """
        solution = self.solve_score(P, mu, guess)
        return solution.score, solution.converged, jnp.ones(mu.shape[1:], bool)

    @abc.abstractmethod
    def pair_losses(self, margin: Float[Array, "*pairs"], beta: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        """Loss of labelled pairs with `margin = h_winner - h_loser`, where h = log pi - log pi_ref."""

    @abc.abstractmethod
    def response(
        self, P: PreferenceBlock, *, beta: ScalarBlock, lam: ScalarBlock, pi_0: PolicyBlock
    ) -> AbstractResponse:
        """What one round of a loop adds to the logits, prepared for many rounds."""

    def fit_wins(
        self, wins: PreferenceBlock, ridge: ScalarBlock | None, guess: PolicyBlock | None = None
    ) -> EmpiricalScore:
        """The score that counts of wins W[i, j], i over j, determine: of all minimisers the one of least norm.

        `ridge`, in comparisons, is None unless `takes_ridge`; `guess` only speeds it up.
        """
        raise ValueError(f"`objective` is {type(self).__name__}, which has no `fit_wins`.")

    def score(self, P: PreferenceLike, mu: PolicyLike, *, throw: bool = True) -> Policy:
        r"""The score map \(r(\mu)\), up to an additive constant: the optimum is softmax(log pi_ref + beta r(mu)).

        - `P`: shape (K, K), P[i, j] = Pr(i beats j). - `mu`: shape (K,), the sampling distribution.
        - `throw`: raise where no finite score exists (DPO only); False returns NaN there.

        `IPO`: r = P mu. `DPO`: the Bradley-Terry fit with pair weights mu_i mu_j, centred. Source: Chen et
        al., arXiv 2602.12180, Proposition 0, and Rafailov et al., arXiv 2305.18290, section on the DPO objective.

        >>> import ipodyn, jax.numpy as jnp
        >>> P = ipodyn.problems.bradley_terry(jnp.array([1.0, 0.0, -1.0]))
        >>> [round(float(r), 6) for r in ipodyn.DPO().score(P, jnp.array([0.7, 0.2, 0.1]))]
        [1.0, 0.0, -1.0]
        """
        P, mu = prepare(P, mu)
        solution = _solve_score(self, P, mu)
        if throw:
            return throw_unless_successful(solution.score, solution.result)
        return jnp.where(solution.result == RESULTS.successful, solution.score, jnp.nan)

    def loss(
        self,
        logits: PolicyLike,
        P: PreferenceLike,
        mu: PolicyLike,
        pi_ref: PolicyLike,
        *,
        beta: ScalarLike = 1.0,
    ) -> Scalar:
        r"""Population loss of the policy softmax(logits): the expected `pair_loss` of one labelled pair.

        \(2 \sum_{ij} \mu_i \mu_j P_{ij}\, \ell(h_i - h_j)\) with h = log pi - log pi_ref: both responses are drawn
        from mu, the winner by P. (The factor 2 is there because either of the two can win.) Pairs with a response that
        pi_ref excludes are left out.

        - `logits`, `mu`, `pi_ref`: shape (K,). - `P`: shape (K, K). - `beta` > 0: larger = stronger preference
          signal; TRL's `beta` is `1 / beta`.

        >>> import ipodyn, jax.numpy as jnp
        >>> P, half = jnp.full((2, 2), 0.5), jnp.full(2, 0.5)
        >>> float(ipodyn.IPO().loss(jnp.zeros(2), P, half, half, beta=2.0))  # (0 - beta / 2)^2
        1.0
        """
        P, logits, mu, pi_ref = prepare(P, logits, mu, pi_ref)
        h, weights = log_ratio(logits, pi_ref, mu)
        losses = self.pair_losses(h[:, None] - h[None, :], jnp.broadcast_to(as_float(beta, P), P.shape))
        return 2 * jnp.sum(weights * P * losses)

    def solve(
        self,
        P: PreferenceLike,
        mu: PolicyLike,
        pi_ref: PolicyLike,
        *,
        beta: ScalarLike = 1.0,
        throw: bool = True,
    ) -> Optimum:
        r"""The minimiser of `loss` with its evidence: \(\pi^* = \mathrm{softmax}(\log\pi_{ref} + \beta\, r(\mu))\).

        Where mu samples a response that pi_ref excludes it is the limit of the minimisers as pi_ref tends to it; `loss`
        leaves such pairs out.

        Arguments as in `loss`. With `throw=False` a failure is data: `result` says what happened and the policy is
        NaN. `residual` is the largest violation of the equations that define the score.

        >>> import ipodyn, jax.numpy as jnp
        >>> third = jnp.full(3, 1 / 3)
        >>> decided = jnp.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
        >>> optimum = ipodyn.DPO().solve(decided, third, third, beta=1.0, throw=False)
        >>> bool(optimum.result == ipodyn.RESULTS.diverging_scores)
        True
        """
        P, mu, pi_ref = prepare(P, mu, pi_ref)
        solution = _solve_score(self, P, mu)
        ok = solution.result == RESULTS.successful
        score = jnp.where(ok, solution.score, 0.0)
        policy = softmax(log_policy(pi_ref) + as_float(beta, P) * score)
        policy = throw_unless_successful(policy, solution.result) if throw else jnp.where(ok, policy, jnp.nan)
        return Optimum(policy, solution.result, solution.residual, solution.num_steps)

    def optimum(
        self,
        P: PreferenceLike,
        mu: PolicyLike,
        pi_ref: PolicyLike,
        *,
        beta: ScalarLike = 1.0,
        throw: bool = True,
    ) -> Policy:
        r"""The policy that minimises `loss`: \(\pi^* = \mathrm{softmax}(\log\pi_{ref} + \beta\, r(\mu))\).

        Closed form for `IPO`; Newton with the implicit derivative for `DPO`. Differentiable in P, mu, pi_ref, beta
        (in P along skew directions, which keep P + P.T = 1). Arguments and failures as in `solve`.

        >>> import ipodyn, jax.numpy as jnp
        >>> P = jnp.array([[0.5, 0.75], [0.25, 0.5]])
        >>> half = jnp.full(2, 0.5)
        >>> policy = ipodyn.IPO().optimum(P, half, half, beta=4.0)
        >>> round(float(jnp.log(policy[0] / policy[1])), 6)  # beta * ((P mu)_0 - (P mu)_1) = 4 * 0.25
        1.0
        """
        return self.solve(P, mu, pi_ref, beta=beta, throw=throw).policy


@eqx.filter_jit
def _solve_score(objective: AbstractObjective, P: PreferenceBlock, mu: PolicyBlock) -> ScoreSolution:
    """Compiled once: without it every call outside `jit` would compile its loops anew."""
    return objective.solve_score(P, mu)
