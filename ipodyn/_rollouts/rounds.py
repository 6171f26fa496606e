"""Many rounds in one stream, left early where nothing moves any more."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._loops.loop import AbstractRound, failed, where
from .._numerics.types import BoolBlock, Policy, PolicyBlock, ScalarBlock
from . import chunk_kernel as _chunk_kernel
from .statistics import Chunking, Moments, RunningStatistics

STANDING_RISE = 1e-3  # nats that a logit may gain on the leading one in a chunk that counts as standing still


def known_policy(one_round: AbstractRound, state: Any) -> PolicyBlock:
    """The policy, NaN from the first round on whose scores were not defined."""
    policy = one_round.policy(state)
    return jnp.where(jnp.broadcast_to(failed(one_round, state), policy.shape), jnp.nan, policy)


def sum_rounds(
    one_round: AbstractRound, state: Any, length: int, save: Callable[[Policy], Any] | None = None
) -> tuple[tuple[Any, PolicyBlock, ScalarBlock], Any]:
    """`length` rounds: the state after, the sums of the policies' deviations from the first and of their squares."""
    # Sums about the first policy: near convergence the deviations are small and nothing cancels, even in float32.
    origin = one_round.policy(state)

    def body(carry: tuple[Any, PolicyBlock, ScalarBlock], _: None):
        state, total, squares = carry
        state = one_round(state)
        apart = one_round.policy(state) - origin
        saved = None if save is None else save(known_policy(one_round, state))
        return (state, total + apart, squares + jnp.sum(apart**2, axis=0)), saved

    return jax.lax.scan(body, (state, jnp.zeros_like(origin), jnp.zeros_like(origin[0])), None, length=length)


def _sum_rounds_apart(one_round: AbstractRound, state: Any, length: int) -> tuple[Any, PolicyBlock, ScalarBlock]:
    """`sum_rounds` where a round takes several steps: each trajectory starts its next as soon as its own is over.

    In step with one another, all would take the steps of the slowest in every round.
    """
    origin = one_round.policy(state)
    batch = origin.shape[1:]

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, total, squares, count, tries = carry
        following, final = one_round.attempt(state, tries)
        going = count < length
        over = final & going
        apart = jnp.where(over[None], one_round.policy(following) - origin, 0)
        state = where(going, following, state)
        total, squares = total + apart, squares + jnp.sum(apart**2, axis=0)
        return state, total, squares, count + over.astype(count.dtype), jnp.where(over, 0, tries + 1)

    zero = jnp.zeros(batch, jnp.int32)
    start = (state, jnp.zeros_like(origin), jnp.zeros_like(origin[0]), zero, zero)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[3] < length), body, start)[:3]


def _sum_rounds_fast(one_round: AbstractRound, state: Any, length: int) -> tuple[Any, PolicyBlock, ScalarBlock]:
    """`sum_rounds` for sweeps, which take no derivatives: on a GPU, in registers where that is possible."""

    def by_scan(one_round: AbstractRound, state: Any) -> tuple[Any, PolicyBlock, ScalarBlock]:
        return sum_rounds(one_round, state, length)[0]

    def in_registers(one_round: AbstractRound, state: Any) -> tuple[Any, PolicyBlock, ScalarBlock]:
        return _chunk_kernel.sum_rounds(one_round, state, length)

    if one_round.is_iterative:
        return _sum_rounds_apart(one_round, state, length)
    if not _chunk_kernel.serves(one_round, state):
        return by_scan(one_round, state)
    return jax.lax.platform_dependent(one_round, state, cuda=in_registers, default=by_scan)


def _moments(origin: PolicyBlock, total: PolicyBlock, squares: ScalarBlock, length: int) -> Moments:
    count = jnp.asarray(length, origin.dtype)
    mean = total / count
    squares = jnp.maximum(squares - count * jnp.sum(mean**2, axis=0), 0)
    return Moments(count, origin + mean, squares)


def run_chunk(
    one_round: AbstractRound, state: Any, length: int, save: Callable[[Policy], Any] | None = None
) -> tuple[Any, Moments, Any]:
    """`length` rounds: the state after, the moments of the `length` policies reached, and what `save` made of them."""
    (after, total, squares), saved = sum_rounds(one_round, state, length, save)
    return after, _moments(one_round.policy(state), total, squares, length), saved


def _stands(one_round: AbstractRound, before: Any, after: Any, moments: Moments) -> BoolBlock:
    """Whether a whole chunk of rounds moved nothing that could still matter.

    No probability by more than a few roundings (1e-9 in float64), neither from end to end nor in between (a cycle
    whose period divides the chunk ends where it began), no logit towards the leading one (near a vertex the policy
    stands still while a response is on its way back), and nothing else that the state holds.
    """
    policy = one_round.policy(after)
    tolerance = max(1e-9, 2 * float(jnp.finfo(policy.dtype).eps))
    moved = jnp.max(jnp.abs(policy - one_round.policy(before)), axis=0)
    risen = jnp.max(one_round.logits(after) - one_round.logits(before), axis=0)  # the leading logit is 0 in both
    still = (moved <= tolerance) & (moments.variance() <= tolerance**2) & (risen <= STANDING_RISE)
    return still & one_round.stands(before, after, tolerance)


def run(
    one_round: AbstractRound, state: Any, plan: Chunking, save: Callable[[Policy], Any] | None = None
) -> tuple[RunningStatistics, Any]:
    """All rounds of the plan."""
    progress = RunningStatistics.begin(state, one_round.policy(state))
    pieces = []
    if plan.odd:
        state, moments, saved = run_chunk(one_round, state, plan.odd, save)
        progress = progress.extend(state, moments, (jnp.asarray(False), jnp.asarray(False)))
        pieces.append(saved)

    def body(progress: RunningStatistics, opens: tuple[Array, Array]) -> tuple[RunningStatistics, Any]:
        state, moments, saved = run_chunk(one_round, progress.state, plan.chunk, save)
        return progress.extend(state, moments, opens), saved

    progress, saved = jax.lax.scan(body, progress, plan.opens())
    pieces.append(jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), saved))
    return progress, jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


def run_until_standing(
    one_round: AbstractRound, state: Any, plan: Chunking, unstable: BoolBlock | None = None
) -> RunningStatistics:
    """All rounds of the plan, without computing those after which nothing moves any more.

    A trajectory that stood still for a chunk keeps its policy, and its remaining sums are added as what they are; a
    block whose trajectories all stand is left. What a trajectory gets does not depend on its block. `unstable` marks
    loops whose fixed point is known to be unstable: one that starts on it stands still only until rounding moves it.
    """

    def run_fast(state: Any, length: int) -> tuple[Any, Moments]:
        after, total, squares = _sum_rounds_fast(one_round, state, length)
        return after, _moments(one_round.policy(state), total, squares, length)

    progress = RunningStatistics.begin(state, one_round.policy(state))
    may_stand = jnp.ones(one_round.policy(state).shape[1:], bool) if unstable is None else ~unstable
    if plan.odd:
        state, moments = run_fast(state, plan.odd)
        progress = progress.extend(state, moments, (jnp.asarray(False), jnp.asarray(False)))

    def stay(progress: RunningStatistics, standing: BoolBlock) -> tuple[Any, Moments, BoolBlock]:
        policy = one_round.policy(progress.state)
        count = jnp.asarray(plan.chunk, policy.dtype)
        return progress.state, Moments(count, policy, jnp.zeros_like(policy[0])), standing

    def go(progress: RunningStatistics, standing: BoolBlock) -> tuple[Any, Moments, BoolBlock]:
        before = progress.state
        after, moments = run_fast(before, plan.chunk)
        state, still, _ = stay(progress, standing)
        mean, squares = where(standing, (still.mean, still.squares), (moments.mean, moments.squares))
        return (
            where(standing, state, after),
            Moments(still.count, mean, squares),
            standing | (_stands(one_round, before, after, moments) & may_stand),
        )

    def body(
        carry: tuple[RunningStatistics, BoolBlock], opens: tuple[Array, Array]
    ) -> tuple[tuple[RunningStatistics, BoolBlock], None]:
        progress, standing = carry
        state, moments, standing = jax.lax.cond(jnp.all(standing), stay, go, progress, standing)
        return (progress.extend(state, moments, opens), standing), None

    standing = jnp.zeros(one_round.policy(state).shape[1:], bool)
    (progress, _), _ = jax.lax.scan(body, (progress, standing), plan.opens())
    return progress
