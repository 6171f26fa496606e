"""Preference objectives, each a score map: what a policy is pulled towards by data sampled from `mu`."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._bradley_terry import fit_scores, has_finite_scores, newton_step
from ._results import RESULTS, choose, throw_unless_successful
from ._simplex import log_policy, matvec, softmax
from ._types import (
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


class ScoreSolution(NamedTuple):
    """A score with its evidence: `residual` is the largest violation of the equations that define it.

    `converged` is the solver's own word; `result` knows besides whether a finite score exists, which costs more.
    """

    score: PolicyBlock
    result: RESULTS
    residual: ScalarBlock
    num_steps: IntBlock
    converged: BoolBlock


class Optimum(eqx.Module):
    """A one-shot optimum: the policy, whether the solve succeeded, the evidence, and the steps it took."""

    policy: PolicyBlock
    result: RESULTS
    residual: ScalarBlock
    num_steps: IntBlock


class AbstractResponse(eqx.Module):
    """How much one round adds to the logits, `beta * r(lam * pi + (1 - lam) * pi_0)` up to a constant.

    It carries everything that does not change between rounds; `memory` is what one round hands to the next (a warm
    start), None where there is nothing to remember. `is_iterative` says that it is found in several steps, one of which
    `attempt` takes.
    """

    is_iterative: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self) -> Any:
        """The memory before the first round."""

    @abc.abstractmethod
    def __call__(self, policy: PolicyBlock, memory: Any) -> tuple[PolicyBlock, Any]:
        """The increment of the logits under `policy`, and the memory for the next round."""

    @abc.abstractmethod
    def result(self, memory: Any) -> RESULTS:
        """Whether the increments were defined in every round up to `memory`."""

    def attempt(self, policy: PolicyBlock, memory: Any, tries: IntBlock) -> tuple[PolicyBlock, Any, BoolBlock]:
        """A part of `__call__`, for iterative responses: as `__call__`, and whether the increment is the final one.

        If not, the round is to be tried again with the memory returned; `tries` counts how often it was before.
        """
        increment, memory = self(policy, memory)
        return increment, memory, jnp.ones(policy.shape[1:], bool)


class LinearResponse(AbstractResponse):
    """`drive + gain @ pi`: the response of a score that is linear in mu."""

    drive: PolicyBlock
    gain: PreferenceBlock

    def init(self) -> None:
        return None

    def __call__(self, policy: PolicyBlock, memory: None) -> tuple[PolicyBlock, None]:
        return self.drive + matvec(self.gain, policy), None

    def result(self, memory: None) -> RESULTS:
        return choose(jnp.ones(self.drive.shape[1:], bool), RESULTS.successful, RESULTS.successful)


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
        hopeless = solution.result == RESULTS.diverging_scores
        P = jnp.where(hopeless[None, None], 0.5, P)
        first = jnp.where(hopeless[None], 0.0, solution.score)
        return cls(objective, P, beta, lam, pi_0, first, solution.result)

    def init(self) -> tuple[PolicyBlock, BoolBlock]:
        return self.first, jnp.ones(self.first.shape[1:], bool)

    def _mu(self, policy: PolicyBlock) -> PolicyBlock:
        return self.lam[None] * policy + (1 - self.lam)[None] * self.pi_0

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
        score, found, final = self.objective.improve_score(self.P, self._mu(policy), guess, tries)
        return self.beta[None] * score, (score, converged & (found | ~final)), final

    def result(self, memory: tuple[PolicyBlock, BoolBlock]) -> RESULTS:
        # Scores that exist inside the simplex diverge on its faces if P has entries 0 and 1, and a loop can get there:
        # probabilities underflow.
        sure = jnp.any((self.P <= 0) | (self.P >= 1), axis=(0, 1))
        lost = choose(sure, RESULTS.diverging_scores, RESULTS.max_steps_reached)
        return choose((self.inside == RESULTS.successful) & ~memory[1], lost, self.inside)


def _prepare(P: ArrayLike, *policies: ArrayLike) -> tuple[Array, ...]:
    P = as_float(P)
    arrays = [jnp.asarray(x, dtype=P.dtype) for x in policies]
    for x in arrays:
        if x.shape[:1] != P.shape[1:2] or P.shape[:1] != P.shape[1:2]:
            raise ValueError(
                f"`P` has shape {P.shape} but a policy or logits of shape {x.shape} came with it; "
                "for K responses give (K, K) and (K,)."
            )
    return P, *arrays


def _log_ratio(logits: Logits, pi_ref: Policy, mu: Policy) -> tuple[Logits, Float[Array, "K K"]]:
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
    """

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

    def score(self, P: PreferenceLike, mu: PolicyLike, *, throw: bool = True) -> Policy:
        r"""The score map \(r(\mu)\), up to an additive constant: the optimum is softmax(log pi_ref + beta r(mu)).

        - `P`: shape (K, K), P[i, j] = Pr(i beats j). - `mu`: shape (K,), the sampling distribution.
        - `throw`: raise where no finite score exists (DPO only); False returns NaN there.

        `IPO`: r = P mu. `DPO`: the Bradley-Terry fit with pair weights mu_i mu_j, centred. Source: theory of Chen,
        He, Jordan, Yao, arXiv 2602.12180, Proposition 0, and Rafailov et al., arXiv 2305.18290.

        >>> import ipodyn, jax.numpy as jnp
        >>> P = ipodyn.problems.bradley_terry(jnp.array([1.0, 0.0, -1.0]))
        >>> [round(float(r), 6) for r in ipodyn.DPO().score(P, jnp.array([0.7, 0.2, 0.1]))]
        [1.0, 0.0, -1.0]
        """
        P, mu = _prepare(P, mu)
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
        P, logits, mu, pi_ref = _prepare(P, logits, mu, pi_ref)
        h, weights = _log_ratio(logits, pi_ref, mu)
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
        >>> sure = jnp.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
        >>> found = ipodyn.DPO().solve(sure, third, third, beta=1.0, throw=False)
        >>> bool(found.result == ipodyn.RESULTS.diverging_scores)
        True
        """
        P, mu, pi_ref = _prepare(P, mu, pi_ref)
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


class IPO(AbstractObjective):
    r"""Identity preference optimisation: \(r(\mu) = P\mu\), the chance of beating a response drawn from mu.

    A labelled pair costs \((h_w - h_l - \beta/2)^2\). Source: Azar et al., arXiv 2310.12036; closed form: Chen et
    al., arXiv 2602.12180, Proposition 0.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.3)
    >>> [round(float(r), 6) for r in ipodyn.IPO().score(P, jnp.array([1.0, 0.0, 0.0]))]
    [0.5, 0.2, 0.8]
    """

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


class DPO(AbstractObjective):
    r"""Direct preference optimisation: r(mu) is the Bradley-Terry fit to P with pair weights \(\mu_i\mu_j\).

    A labelled pair costs \(-\log\sigma((h_w - h_l)/\beta)\). The scores depend on neither beta nor pi_ref. They are
    finite exactly if the comparison graph {(i, j): P[i, j] > 0} is strongly connected, always so for P inside (0, 1);
    otherwise the result is `RESULTS.diverging_scores`. Source: Rafailov et al., arXiv 2305.18290.

    - `max_steps`: damped Newton steps before giving up; a handful suffice unless P is within 1e-6 of 0 and 1.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.3)
    >>> [round(float(r), 6) + 0 for r in ipodyn.DPO().score(P, jnp.full(3, 1 / 3))]  # a symmetric cycle: a tie
    [0.0, 0.0, 0.0]
    """

    max_steps: int = eqx.field(static=True, default=60)

    def solve_score(self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock | None = None) -> ScoreSolution:
        fit = fit_scores(P, mu, guess, max_steps=self.max_steps)
        solved = choose(fit.converged, RESULTS.successful, RESULTS.max_steps_reached)
        result = choose(has_finite_scores(P, mu), solved, RESULTS.diverging_scores)
        return ScoreSolution(fit.score, result, fit.residual, fit.num_steps, fit.converged)

    def improve_score(
        self, P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock, tries: IntBlock
    ) -> tuple[PolicyBlock, BoolBlock, BoolBlock]:
        score, found = newton_step(P, mu, guess)
        return score, found, found | (tries + 1 >= self.max_steps)

    def pair_losses(self, margin: Float[Array, "*pairs"], beta: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        return jax.nn.softplus(-margin / beta)

    def response(self, P: PreferenceBlock, *, beta: ScalarBlock, lam: ScalarBlock, pi_0: PolicyBlock) -> ScoreResponse:
        return ScoreResponse.of(self, P, beta=beta, lam=lam, pi_0=pi_0)
