"""What a loop is: a round on a state, seen as a policy; everything else in the library asks for no more."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from .._numerics.checks import check_policy
from .._numerics.results import RESULTS
from .._numerics.simplex import softmax
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, as_float
from .tangent import state_jacobian


def known(x: Any) -> bool:
    """Whether the value is there to look at (not traced by jit, vmap or grad)."""
    return not isinstance(x, Tracer)


def where(condition: BoolBlock, yes: Any, no: Any) -> Any:
    """Choose between two trees, element by element of the batch axes, which stand behind."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape((1,) * (a.ndim - condition.ndim) + condition.shape), a, b)

    return jax.tree.map(pick, yes, no)


class AbstractRound(eqx.Module):
    """A loop made ready for many rounds: what does not change from round to round is computed once.

    Responses first, batch axes behind. Loops without one of their own get `Steps`.
    """

    @property
    def is_iterative(self) -> bool:
        """Whether a round takes several steps, of which trajectories side by side may need different numbers."""
        return False

    @abc.abstractmethod
    def start(self, policy: PolicyBlock) -> Any:
        """The state from which a run starts at `policy`."""

    @abc.abstractmethod
    def __call__(self, state: Any) -> Any:
        """The state after one round."""

    @abc.abstractmethod
    def logits(self, state: Any) -> PolicyBlock:
        """Logits of the policy that the state stands for, maximum 0."""

    @abc.abstractmethod
    def policy(self, state: Any) -> PolicyBlock:
        """The policy that the state stands for."""

    def result(self, state: Any) -> RESULTS:
        """Whether the scores were defined in all rounds so far, for each batch element."""
        return RESULTS.successful

    def jacobian(self, state: Any) -> Float[Array, "*batch n n"]:
        """The Jacobian of one round at a state, over the whole of it less the gauge; batch axes in front."""
        return state_jacobian(self, state, self.policy(state).shape[0])

    def attempt(self, state: Any, tries: IntBlock) -> tuple[Any, BoolBlock]:
        """The round as far as one step takes it: the state, and whether the round is over."""
        return self(state), jnp.ones(tries.shape, bool)

    def stands(self, before: Any, after: Any, tolerance: float) -> BoolBlock:
        """Whether what the state holds beside its policy stands still too, so that nothing is yet to come."""
        return jnp.ones(self.policy(after).shape[1:], bool)


class AbstractLoop(eqx.Module):
    r"""A loop of iterated alignment: \(s_{t+1} = G(s_t)\), with a policy \(\pi(s)\) that the state stands for.

    Calling it runs one round from rest, (K,) -> (K,).

    **For developers.** Subclass with array fields, one of them `pi_0`, the policy from which runs start by default,
    and give three methods, for a single loop without batch axes:

    - `start(policy)`: the state whose policy is `policy`, (K,); any pytree of arrays.
    - `step(state)`: the state after one round. End in a normalisation; let every swept parameter be an array field.
    - `logits(state)`: (K,), of the policy that the state stands for, up to a constant.

    Then `rollout`, `classify`, `sweep` and `stability` work, under `jit`, `vmap` and `grad`. Where a state at rest is
    another than the one that a run starts from, override `rest(policy)`. Floating-point leaves of the state whose
    first axis has length K are taken as logits or policies: their sum is a matter of gauge, and no eigenvalue belongs
    to it. Let the state hold nothing that follows from the rest of it (the policy beside its logits), else eigenvalues
    0 appear. It may hold the number of the round, as an integer: such a loop is never taken to have settled early.
    A loop with a faster description of many rounds overrides `round()`, as `MRS` does.

    >>> import ipodyn, jax, jax.numpy as jnp
    >>> class Damped(ipodyn.AbstractLoop):  # half a step of MRS
    ...     whole: ipodyn.MRS
    ...     pi_0: jax.Array
    ...     def start(self, policy):
    ...         return jnp.log(policy)
    ...     def step(self, state):
    ...         return jax.nn.log_softmax((state + jnp.log(self.whole(jax.nn.softmax(state)))) / 2)
    ...     def logits(self, state):
    ...         return state
    >>> P = ipodyn.problems.three_cycle(0.5)
    >>> loop = Damped(ipodyn.MRS(P, alpha=0.5, beta=3.5, lam=1.0), jnp.array([0.5, 0.3, 0.2]))
    >>> [round(float(p), 4) for p in ipodyn.rollout(loop, num_steps=500).final]
    [0.3333, 0.3333, 0.3333]
    >>> bool(ipodyn.stability(loop.whole, jnp.ones(3) / 3).stable), bool(ipodyn.stability(loop, jnp.ones(3) / 3).stable)
    (False, True)
    """

    pi_0: eqx.AbstractVar[PolicyBlock]

    @abc.abstractmethod
    def start(self, policy: PolicyBlock) -> Any:
        """The state from which a run starts at `policy`."""

    @abc.abstractmethod
    def step(self, state: Any) -> Any:
        """The state after one round."""

    @abc.abstractmethod
    def logits(self, state: Any) -> PolicyBlock:
        """Logits of the policy that the state stands for, up to a constant."""

    def rest(self, policy: PolicyBlock) -> Any:
        """The state of a loop that has long stood still at `policy`."""
        return self.start(policy)

    def round(self) -> AbstractRound:
        """The loop made ready for many rounds."""
        return Steps(self)

    def check_start(self, policy: PolicyBlock, name: str) -> None:
        """`ValueError` that calls it `name` if no run can start at a policy, whose values are known."""

    def __call__(self, policy: Float[ArrayLike, "K *batch"]) -> PolicyBlock:
        """One round: the policy trained on the data that `policy` samples; NaN where no finite scores exist."""
        return _next_policy(self, as_policy(self, policy, "policy"))


class Steps(AbstractRound):
    """The rounds of any loop, one `step` after the other."""

    loop: AbstractLoop

    def start(self, policy: PolicyBlock) -> Any:
        return self.loop.start(policy)

    def __call__(self, state: Any) -> Any:
        return self.loop.step(state)

    def logits(self, state: Any) -> PolicyBlock:
        logits = self.loop.logits(state)
        return logits - jnp.max(logits, axis=0, keepdims=True)

    def policy(self, state: Any) -> PolicyBlock:
        return softmax(self.loop.logits(state))

    def stands(self, before: Any, after: Any, tolerance: float) -> BoolBlock:
        still = jnp.asarray(True)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            floating = jnp.issubdtype(a.dtype, jnp.floating)
            still = still & (jnp.all(jnp.abs(b - a) <= tolerance) if floating else jnp.all(a == b))
        return still


class SideBySide(AbstractRound):
    """The rounds of many loops of one kind: every array of `loops` has the batch axis last, and so has the state."""

    loops: AbstractLoop

    def _each(self, method: str, *arguments: Any) -> Any:
        def one(loop: AbstractLoop, *arguments: Any) -> Any:
            return getattr(loop.round(), method)(*arguments)

        return eqx.filter_vmap(one, in_axes=eqx.if_array(-1), out_axes=eqx.if_array(-1))(self.loops, *arguments)

    def start(self, policy: PolicyBlock) -> Any:
        return self._each("start", policy)

    def __call__(self, state: Any) -> Any:
        return self._each("__call__", state)

    def logits(self, state: Any) -> PolicyBlock:
        return self._each("logits", state)

    def policy(self, state: Any) -> PolicyBlock:
        return self._each("policy", state)

    def result(self, state: Any) -> RESULTS:
        return self._each("result", state)

    def jacobian(self, state: Any) -> Float[Array, "*batch n n"]:
        def one(loop: AbstractLoop, state: Any) -> Array:
            return loop.round().jacobian(state)

        return eqx.filter_vmap(one, in_axes=eqx.if_array(-1))(self.loops, state)

    def stands(self, before: Any, after: Any, tolerance: float) -> BoolBlock:
        def one(loop: AbstractLoop, before: Any, after: Any) -> Array:
            return loop.round().stands(before, after, tolerance)

        return eqx.filter_vmap(one, in_axes=eqx.if_array(-1))(self.loops, before, after)


def failed(one_round: AbstractRound, state: Any) -> BoolBlock:
    """Whether the scores were not defined in some round so far."""
    return one_round.result(state) != RESULTS.successful


@eqx.filter_jit
def _next_policy(loop: AbstractLoop, policy: PolicyBlock) -> PolicyBlock:
    one_round = loop.round()
    state = one_round(one_round.start(policy))
    after = one_round.policy(state)
    return jnp.where(jnp.broadcast_to(failed(one_round, state), after.shape), jnp.nan, after)


def as_policy(loop: AbstractLoop, policy: Float[ArrayLike, "..."], name: str) -> Array:
    policy = as_float(policy, loop.pi_0)
    if policy.shape != loop.pi_0.shape:
        raise ValueError(f"`{name}` has shape {policy.shape}; this loop takes {loop.pi_0.shape}.")
    return policy


def start_policy(loop: AbstractLoop, policy0: Float[ArrayLike, "K *batch"] | None) -> Array:
    """`policy0` checked against the loop, or its off-policy sampler."""
    name = "pi_0" if policy0 is None else "policy0"
    policy = loop.pi_0 if policy0 is None else as_policy(loop, policy0, name)
    if policy.ndim == 1 and known(policy):
        check_policy(policy, policy.shape[0], name=name)
        loop.check_start(policy, name)
    return policy
