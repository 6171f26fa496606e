"""Rollouts: many rounds of a loop, with statistics in a stream and nothing stored per round unless asked."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from . import _chunk_kernel
from ._growth import growth
from ._loop import MRS, Round, State, start_policy, where
from ._results import RESULTS
from ._simplex import entropy
from ._types import BoolBlock, Policy, PolicyBlock, ScalarBlock, VectorLike

CHUNK = 64  # rounds whose sums are taken about one policy, before they are merged in
STANDING_RISE = 1e-3  # nats that a logit may gain on the leading one in a chunk that counts as standing still


class Moments(eqx.Module):
    """Mean and sum of squared deviations of `count` policies; merged exactly, whatever the order (Chan et al.)."""

    count: Array
    mean: PolicyBlock
    squares: ScalarBlock

    @classmethod
    def empty(cls, like: PolicyBlock) -> "Moments":
        return cls(jnp.zeros((), like.dtype), jnp.zeros_like(like), jnp.zeros_like(like[0]))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        apart = other.mean - self.mean
        mean = self.mean + share * apart
        squares = self.squares + other.squares + self.count * share * jnp.sum(apart**2, axis=0)
        return Moments(count, mean, squares)

    def variance(self) -> ScalarBlock:
        return self.squares / jnp.maximum(self.count, 1)


def known_policy(one_round: Round, state: State) -> PolicyBlock:
    """The policy, NaN from the first round on whose scores were not defined."""
    failed = one_round.response.result(state.memory) != RESULTS.successful
    return jnp.where(jnp.broadcast_to(failed, state.policy.shape), jnp.nan, state.policy)


def sum_rounds(
    one_round: Round, state: State, length: int, save: Callable[[Policy], Any] | None = None
) -> tuple[tuple[State, PolicyBlock, ScalarBlock], Any]:
    """`length` rounds: the state after, the sums of the policies' deviations from the first and of their squares."""
    # Sums about the first policy: near convergence the deviations are small and nothing cancels, even in float32.
    origin = state.policy

    def body(carry: tuple[State, PolicyBlock, ScalarBlock], _: None):
        state, total, squares = carry
        state = one_round(state)
        apart = state.policy - origin
        saved = None if save is None else save(known_policy(one_round, state))
        return (state, total + apart, squares + jnp.sum(apart**2, axis=0)), saved

    return jax.lax.scan(body, (state, jnp.zeros_like(origin), jnp.zeros_like(origin[0])), None, length=length)


def _sum_rounds_apart(one_round: Round, state: State, length: int) -> tuple[State, PolicyBlock, ScalarBlock]:
    """`sum_rounds` where a round takes several steps: each trajectory starts its next as soon as its own is over.

    In step with one another, all would take the steps of the slowest in every round.
    """
    origin = state.policy
    batch = origin.shape[1:]

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, total, squares, count, tries = carry
        following, final = one_round.attempt(state, tries)
        going = count < length
        over = final & going
        apart = jnp.where(over[None], following.policy - origin, 0)
        state = where(going, following, state)
        total, squares = total + apart, squares + jnp.sum(apart**2, axis=0)
        return state, total, squares, count + over.astype(count.dtype), jnp.where(over, 0, tries + 1)

    zero = jnp.zeros(batch, jnp.int32)
    start = (state, jnp.zeros_like(origin), jnp.zeros_like(origin[0]), zero, zero)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[3] < length), body, start)[:3]


def _sum_rounds_fast(one_round: Round, state: State, length: int) -> tuple[State, PolicyBlock, ScalarBlock]:
    """`sum_rounds` for sweeps, which take no derivatives: on a GPU, in registers where that is possible."""

    def by_scan(one_round: Round, state: State) -> tuple[State, PolicyBlock, ScalarBlock]:
        return sum_rounds(one_round, state, length)[0]

    def in_registers(one_round: Round, state: State) -> tuple[State, PolicyBlock, ScalarBlock]:
        return _chunk_kernel.sum_rounds(one_round, state, length)

    if one_round.response.is_iterative:
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
    one_round: Round, state: State, length: int, save: Callable[[Policy], Any] | None = None
) -> tuple[State, Moments, Any]:
    """`length` rounds: the state after, the moments of the `length` policies reached, and what `save` made of them."""
    (after, total, squares), saved = sum_rounds(one_round, state, length, save)
    return after, _moments(state.policy, total, squares, length), saved


@dataclasses.dataclass(frozen=True)
class Plan:
    """How `num_steps` rounds are cut: one odd piece first, then equal chunks; a window is a whole number of chunks."""

    odd: int
    chunk: int
    num_chunks: int
    chunks_per_window: int

    @classmethod
    def of(cls, num_steps: int, window: int | None) -> "Plan":
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"`num_steps` is {num_steps!r}; it must be a whole number of rounds, at least 1.")
        if window is None:
            window = max(1, num_steps // 10)
        if not 1 <= window <= num_steps:
            raise ValueError(f"`window` is {window}; it must be between 1 and `num_steps` = {num_steps} rounds.")
        per_window = -(-window // CHUNK)
        chunk = window // per_window  # a window is rounded down to whole chunks
        return cls(num_steps % chunk, chunk, num_steps // chunk, per_window)

    @property
    def window(self) -> int:
        return self.chunk * self.chunks_per_window

    def opens(self) -> tuple[Bool[Array, " chunks"], Bool[Array, " chunks"]]:
        """Which chunks open a window, and which of them do so in the first half of the run.

        Windows are counted from the end, so that the last one is whole.
        """
        chunks = jnp.arange(self.num_chunks)
        opens = (chunks - self.num_chunks) % self.chunks_per_window == 0
        return opens, opens & (2 * chunks <= self.num_chunks)


class Progress(eqx.Module):
    """What is known after some rounds: the state and moments.

    Those of all rounds, of the running and the previous window, and of the last window of the first half of the run.
    """

    state: State
    moments: Moments
    window: Moments
    previous: Moments
    halfway: Moments

    @classmethod
    def begin(cls, state: State) -> "Progress":
        empty = Moments.empty(state.policy)
        return cls(state, empty, empty, empty, empty)

    def extend(self, state: State, chunk: Moments, opens: tuple[Array, Array]) -> "Progress":
        """Add a chunk; `opens`: whether it opens a window, so the running one becomes the previous, and that early."""
        new_window, early = opens
        empty = Moments.empty(state.policy)

        def choose(condition: Array, a: Any, b: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)

        previous = choose(new_window, self.window, self.previous)
        halfway = choose(early, self.window, self.halfway)
        window = choose(new_window, empty, self.window).merge(chunk)
        return Progress(state, self.moments.merge(chunk), window, previous, halfway)


class Orbit(eqx.Module):
    """What `rollout` found. Statistics run over rounds 1..num_steps; the start is not among them.

    - `final` (K,): the last policy. - `mean` (K,): its average over the rounds.
    - `variance` (): time-averaged variance, the sum over responses k of Var_t(pi_t[k]); the window's likewise.
    - `window_variance`, `previous_variance` (): the same over the last `window` rounds and over those before them.
    - `decay` (): how fast the logarithm of that variance fell, per round, since the window halfway through the run.
    - `rounds` (): how many rounds were run.
    - `window_shift` (): squared distance between the means of these two windows; infinite where nothing came before.
    - `entropy` (): of `final`, in nats. - `residual` (): largest change of a probability in one more round.
    - `rise` (): how fast, in that round, the fastest logit gains on the leading response; near a vertex the
      probabilities may stand still while a response is on its way back.
    - `growth` (): the log of what a round multiplies a small nudge of `final` by, if the policy is at rest there; above
      0 a nudge grows, and the policy is at rest on a point that it would leave. 0 within rounding; for IPO at a fixed
      point the log of its spectral radius. A response of next to no mass counts by how fast it would gain on the
      leading one once it holds 1e-6.
    - `saved`: outputs of `save`, stacked over rounds, or None.
    - `result`: whether the scores were defined in every round (`RESULTS.diverging_scores` for DPO on a P without a
      finite fit). If not, the statistics are NaN, and so is what `save` sees from that round on.
    """

    final: PolicyBlock
    mean: PolicyBlock
    variance: ScalarBlock
    window_variance: ScalarBlock
    previous_variance: ScalarBlock
    decay: ScalarBlock
    rounds: ScalarBlock
    window_shift: ScalarBlock
    entropy: ScalarBlock
    residual: ScalarBlock
    rise: ScalarBlock
    growth: ScalarBlock
    saved: Any
    result: RESULTS


def _decay(progress: Progress) -> ScalarBlock:
    """The fall of the log of the variance per round, from the window halfway (none: the previous) to the last.

    Over half of the run what dies out shows, where windows beside each other differ by what part of a turn they hold.
    """
    far = progress.halfway.count > 0
    before = jnp.where(far, progress.halfway.variance(), progress.previous.variance())
    count = progress.window.count
    # Halfway is the last window that ended in the first half; what lies between are whole windows.
    apart = jnp.where(far, jnp.ceil(progress.moments.count / (2 * count)) * count, count)
    late = progress.window.variance()
    both = (late > 0) & (before > 0)
    fall = jnp.log(jnp.where(both, before, 1)) - jnp.log(jnp.where(both, late, 1))
    return jnp.where(both, fall, 0) / jnp.maximum(apart, 1)


def finish(one_round: Round, progress: Progress, saved: Any = None) -> Orbit:
    """The orbit after the last round: one more round gives the evidence for or against convergence."""
    state = progress.state
    following = one_round(state)
    result = one_round.response.result(following.memory)
    failed = result != RESULTS.successful

    def known(x: Array) -> Array:
        return jnp.where(jnp.broadcast_to(failed, x.shape), jnp.nan, x)

    gained = following.logits - state.logits
    leader = jnp.argmax(state.logits, axis=0)
    lead = jnp.take_along_axis(gained, leader[None], axis=0)
    shift = jnp.sum((progress.window.mean - progress.previous.mean) ** 2, axis=0)
    return Orbit(
        final=known(state.policy),
        mean=known(progress.moments.mean),
        variance=known(progress.moments.variance()),
        window_variance=known(progress.window.variance()),
        previous_variance=known(progress.previous.variance()),
        decay=known(_decay(progress)),
        rounds=jnp.broadcast_to(progress.moments.count, shift.shape),
        window_shift=known(jnp.where(progress.previous.count > 0, shift, jnp.inf)),
        entropy=known(entropy(state.policy)),
        residual=known(jnp.max(jnp.abs(following.policy - state.policy), axis=0)),
        rise=known(jnp.max(gained - lead, axis=0)),
        growth=known(growth(one_round, state)),
        saved=saved,
        result=result,
    )


def _stands(before: State, after: State, moments: Moments) -> BoolBlock:
    """Whether a whole chunk of rounds moved nothing that could still matter.

    No probability by more than a few roundings (1e-9 in float64), neither from end to end nor in between (a cycle
    whose period divides the chunk ends where it began), and no logit towards the leading one: near a vertex the policy
    stands still while a response is on its way back.
    """
    tolerance = max(1e-9, 2 * float(jnp.finfo(after.policy.dtype).eps))
    moved = jnp.max(jnp.abs(after.policy - before.policy), axis=0)
    risen = jnp.max(after.logits - before.logits, axis=0)  # the leading logit is 0 in both
    return (moved <= tolerance) & (moments.variance() <= tolerance**2) & (risen <= STANDING_RISE)


def run(
    one_round: Round, state: State, plan: Plan, save: Callable[[Policy], Any] | None = None
) -> tuple[Progress, Any]:
    """All rounds of the plan."""
    progress = Progress.begin(state)
    pieces = []
    if plan.odd:
        state, moments, saved = run_chunk(one_round, state, plan.odd, save)
        progress = progress.extend(state, moments, (jnp.asarray(False), jnp.asarray(False)))
        pieces.append(saved)

    def body(progress: Progress, opens: tuple[Array, Array]) -> tuple[Progress, Any]:
        state, moments, saved = run_chunk(one_round, progress.state, plan.chunk, save)
        return progress.extend(state, moments, opens), saved

    progress, saved = jax.lax.scan(body, progress, plan.opens())
    pieces.append(jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), saved))
    return progress, jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


def run_until_standing(one_round: Round, state: State, plan: Plan, unstable: BoolBlock | None = None) -> Progress:
    """All rounds of the plan, without computing those after which nothing moves any more.

    A trajectory that stood still for a chunk keeps its policy, and its remaining sums are added as what they are; a
    block whose trajectories all stand is left. What a trajectory gets does not depend on its block. `unstable` marks
    loops whose fixed point is known to be unstable: one that starts on it stands still only until rounding moves it.
    """

    def run_fast(state: State, length: int) -> tuple[State, Moments]:
        after, total, squares = _sum_rounds_fast(one_round, state, length)
        return after, _moments(state.policy, total, squares, length)

    progress = Progress.begin(state)
    may_stand = jnp.ones(state.policy.shape[1:], bool) if unstable is None else ~unstable
    if plan.odd:
        state, moments = run_fast(state, plan.odd)
        progress = progress.extend(state, moments, (jnp.asarray(False), jnp.asarray(False)))

    def stay(progress: Progress, standing: BoolBlock) -> tuple[State, Moments, BoolBlock]:
        policy = progress.state.policy
        count = jnp.asarray(plan.chunk, policy.dtype)
        return progress.state, Moments(count, policy, jnp.zeros_like(policy[0])), standing

    def go(progress: Progress, standing: BoolBlock) -> tuple[State, Moments, BoolBlock]:
        before = progress.state
        after, moments = run_fast(before, plan.chunk)
        state, still, _ = stay(progress, standing)
        mean, squares = where(standing, (still.mean, still.squares), (moments.mean, moments.squares))
        return (
            where(standing, state, after),
            Moments(still.count, mean, squares),
            standing | (_stands(before, after, moments) & may_stand),
        )

    def body(carry: tuple[Progress, BoolBlock], opens: tuple[Array, Array]) -> tuple[tuple[Progress, BoolBlock], None]:
        progress, standing = carry
        state, moments, standing = jax.lax.cond(jnp.all(standing), stay, go, progress, standing)
        return (progress.extend(state, moments, opens), standing), None

    standing = jnp.zeros(state.policy.shape[1:], bool)
    (progress, _), _ = jax.lax.scan(body, (progress, standing), plan.opens())
    return progress


@eqx.filter_jit
def _rollout(loop: MRS, policy0: Policy, plan: Plan, save: Callable[[Policy], Any] | None) -> Orbit:
    one_round = loop.round()
    progress, saved = run(one_round, one_round.start(policy0), plan, save)
    return finish(one_round, progress, saved)


def rollout(
    loop: MRS,
    policy0: VectorLike | None = None,
    *,
    num_steps: int = 3000,
    save: Callable[[Policy], Any] | None = None,
    window: int | None = None,
    throw: bool = True,
) -> Orbit:
    r"""Run a loop for a fixed number of rounds: \(\pi_{t+1} = F(\pi_t)\), t = 0 .. num_steps - 1.

    Memory does not grow with the number of rounds unless `save` asks for it. Differentiable (through all rounds);
    for the derivative of where a loop settles, `fixed_point` is cheaper and needs no rounds.

    - `loop`: an `MRS`. - `policy0`: shape (K,), where to start; None starts at `loop.pi_0`.
    - `num_steps`: number of rounds, static. - `save`: function of the new policy, its outputs are stacked over rounds
      in `.saved`. - `window`: rounds in a window of the late statistics, rounded down to equal chunks of at most 64;
      None is a tenth of `num_steps`.
    - `throw`: raise where the objective has no finite scores (DPO only); False leaves that to `.result`.

    Returns an `Orbit`. Source: Chen et al., arXiv 2602.12180, section on MRS.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.2, beta=1.0, lam=0.5)
    >>> orbit = ipodyn.rollout(loop, policy0=[0.8, 0.1, 0.1], num_steps=100, save=ipodyn.entropy)
    >>> [round(float(p), 6) for p in orbit.final], orbit.saved.shape
    ([0.333333, 0.333333, 0.333333], (100,))
    """
    policy = start_policy(loop, None if policy0 is None else jnp.asarray(policy0))
    orbit = _rollout(loop, policy, Plan.of(num_steps, window), save)
    if throw:
        return orbit.result.error_if(orbit, orbit.result != RESULTS.successful)
    return orbit
