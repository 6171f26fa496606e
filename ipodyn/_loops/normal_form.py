"""The normal form of a round whose scores are a response to the policy, and the state that it carries."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._numerics.results import RESULTS
from .._numerics.simplex import EXCLUDED, LOG_ZERO, log_policy
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, ScalarBlock
from .._objectives.response import AbstractResponse
from .loop import AbstractRound, where


class State(eqx.Module):
    """What a rollout carries: logits whose maximum is 0, their softmax, and the memory of the response."""

    logits: PolicyBlock
    policy: PolicyBlock
    memory: Any


class Round(AbstractRound):
    """The normal form `z' = alpha z + drive + response(softmax(z))`, responses first, batch axes behind."""

    alpha: ScalarBlock
    drive: PolicyBlock
    response: AbstractResponse

    @property
    def is_iterative(self) -> bool:
        return self.response.is_iterative

    def start(self, policy: PolicyBlock) -> State:
        return State(log_policy(policy), policy, self.response.init())

    def __call__(self, state: State) -> State:
        return self._move(state, *self.response(state.policy, state.memory))

    def logits(self, state: State) -> PolicyBlock:
        return state.logits

    def policy(self, state: State) -> PolicyBlock:
        return state.policy

    def result(self, state: State) -> RESULTS:
        return self.response.result(state.memory)

    def attempt(self, state: State, tries: IntBlock) -> tuple[State, BoolBlock]:
        """The round as far as one step of the response takes it: the state, and whether the round is over."""
        increment, memory, final = self.response.attempt(state.policy, state.memory, tries)
        moved = self._move(state, increment, memory)
        return where(final, moved, State(state.logits, state.policy, memory)), final

    def unnormalised(self, logits: PolicyBlock, increment: PolicyBlock) -> PolicyBlock:
        """`alpha z + drive + increment`, the logits after a round up to a constant."""
        return self.alpha[None] * logits + self.drive + increment

    def _move(self, state: State, increment: PolicyBlock, memory: Any) -> State:
        logits = self.unnormalised(state.logits, increment)
        logits = logits - jnp.max(logits, axis=0, keepdims=True)
        # 0^alpha = 0: an excluded response stays excluded, where alpha^t * LOG_ZERO would bring it back in time.
        logits = jnp.where(logits < EXCLUDED, LOG_ZERO, logits)
        weights = jnp.exp(logits)
        return State(logits, weights / jnp.sum(weights, axis=0, keepdims=True), memory)
