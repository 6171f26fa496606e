"""The response of a round that sees n labelled pairs instead of P."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from .._numerics.results import RESULTS, choose
from .._numerics.simplex import mixture
from .._numerics.types import BoolBlock, PolicyBlock, PreferenceBlock, ScalarBlock
from .._objectives.empirical import draw_wins_block
from .._objectives.objective import AbstractObjective
from .._objectives.response import AbstractResponse
from .mrs import MRS
from .normal_form import Round

Keys: TypeAlias = Key[Array, "*batch"]


class _Memory(NamedTuple):
    """What a sampled round hands to the next: its key, the last score (a warm start), whether all fits converged."""

    key: Keys
    score: PolicyBlock
    converged: BoolBlock


class SampledResponse(AbstractResponse):
    """`beta * r(W)`, with W the labels of `num_pairs` pairs drawn anew in every round."""

    objective: AbstractObjective
    P: PreferenceBlock
    beta: ScalarBlock
    lam: ScalarBlock
    pi_0: PolicyBlock
    num_pairs: ScalarBlock
    ridge: ScalarBlock | None
    key: Keys

    def init(self) -> _Memory:
        return _Memory(self.key, jnp.zeros_like(self.pi_0), jnp.ones(self.pi_0.shape[1:], bool))

    def __call__(self, policy: PolicyBlock, memory: _Memory) -> tuple[PolicyBlock, _Memory]:
        keys = memory.key.reshape(-1)
        following, now = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        mu = mixture(self.lam, policy, self.pi_0)
        wins = draw_wins_block(now.reshape(memory.key.shape), self.P, mu, self.num_pairs)
        fit = self.objective.fit_wins(wins, self.ridge, memory.score)
        after = _Memory(following.reshape(memory.key.shape), fit.score, memory.converged & fit.converged)
        return self.beta[None] * fit.score, after

    def result(self, memory: _Memory) -> RESULTS:
        return choose(memory.converged, RESULTS.successful, RESULTS.max_steps_reached)


def finite_round(loop: MRS, key: Keys, num_pairs: ScalarBlock, ridge: ScalarBlock | None) -> Round:
    population = loop.round()
    response = SampledResponse(loop.objective, loop.P, loop.beta, loop.lam, loop.pi_0, num_pairs, ridge, key)
    return Round(population.alpha, population.drive, response)
