"""Rollouts: many rounds of a loop, with statistics in a stream and nothing stored per round unless asked."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._loops.loop import AbstractLoop, AbstractRound, start_policy
from .._numerics.results import RESULTS
from .._numerics.simplex import entropy
from .._numerics.types import Policy, PolicyBlock, ScalarBlock, VectorLike
from .growth import growth
from .rounds import run
from .statistics import Chunking, RunningStatistics, decay_of


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


def finish(one_round: AbstractRound, progress: RunningStatistics, saved: Any = None) -> Orbit:
    """The orbit after the last round: one more round gives the evidence for or against convergence."""
    state = progress.state
    following = one_round(state)
    result = one_round.result(following)
    undefined = result != RESULTS.successful

    def known(x: Array) -> Array:
        return jnp.where(jnp.broadcast_to(undefined, x.shape), jnp.nan, x)

    policy, logits = one_round.policy(state), one_round.logits(state)
    gained = one_round.logits(following) - logits
    leader = jnp.argmax(logits, axis=0)
    lead = jnp.take_along_axis(gained, leader[None], axis=0)
    shift = jnp.sum((progress.window.mean - progress.previous.mean) ** 2, axis=0)
    return Orbit(
        final=known(policy),
        mean=known(progress.moments.mean),
        variance=known(progress.moments.variance()),
        window_variance=known(progress.window.variance()),
        previous_variance=known(progress.previous.variance()),
        decay=known(decay_of(progress)),
        rounds=jnp.broadcast_to(progress.moments.count, shift.shape),
        window_shift=known(jnp.where(progress.previous.count > 0, shift, jnp.inf)),
        entropy=known(entropy(policy)),
        residual=known(jnp.max(jnp.abs(one_round.policy(following) - policy), axis=0)),
        rise=known(jnp.max(gained - lead, axis=0)),
        growth=known(growth(one_round, state)),
        saved=saved,
        result=result,
    )


@eqx.filter_jit
def _rollout(loop: AbstractLoop, policy0: Policy, plan: Chunking, save: Callable[[Policy], Any] | None) -> Orbit:
    one_round = loop.round()
    progress, saved = run(one_round, one_round.start(policy0), plan, save)
    return finish(one_round, progress, saved)


def rollout(
    loop: AbstractLoop,
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

    - `loop`: an `MRS` or any other `AbstractLoop`. - `policy0`: shape (K,), where to start; None starts at `loop.pi_0`.
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
    orbit = _rollout(loop, policy, Chunking.of(num_steps, window), save)
    if throw:
        return orbit.result.error_if(orbit, orbit.result != RESULTS.successful)
    return orbit
