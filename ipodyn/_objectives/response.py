"""Responses: what one round adds to the logits, as a function of the policy."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from .._numerics.results import RESULTS, choose
from .._numerics.simplex import matvec
from .._numerics.types import (
    BoolBlock,
    IntBlock,
    PolicyBlock,
    PreferenceBlock,
    ScalarBlock,
)


class ScoreSolution(eqx.Module):
    """A score with its evidence: `residual` is the largest violation of the equations that define it.

    `converged` is the solver's own word; `result` knows besides whether a finite score exists, which costs more.
    """

    score: PolicyBlock
    result: RESULTS
    residual: ScalarBlock
    num_steps: IntBlock
    converged: BoolBlock


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
