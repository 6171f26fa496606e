r"""Fixed points of a loop, certified, with the implicit derivative in every field of the loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._loops.loop import start_policy
from .._loops.mrs import MRS
from .._loops.normal_form import State
from .._numerics.results import RESULTS, choose
from .._numerics.simplex import log_policy, softmax, supported
from .._numerics.types import IntBlock, PolicyBlock, ScalarBlock, ScalarLike, as_float
from .error_bound import certified
from .newton_path import Pull, Settled, follow, policy_centred

MAX_STEPS = 500


class FixedPoint(eqx.Module):
    """What `fixed_point` found.

    - `policy` (K,): the fixed point, if `result` is successful; otherwise the last iterate, not to be used.
    - `residual` (): the largest change of a probability in one round of the loop, from `policy`.
    - `error` (): how far Newton's next step would move a probability, an estimate of the error of `policy`.
    - `result`: `RESULTS.successful`, `max_steps_reached`, `no_fixed_point` (alpha = 1) or `diverging_scores` (DPO on a
      P without a finite fit). - `num_steps` (): Newton steps taken.
    """

    policy: PolicyBlock
    result: RESULTS
    residual: ScalarBlock
    num_steps: IntBlock
    error: ScalarBlock


def _parts(loop: MRS) -> tuple[Pull, PolicyBlock]:
    inside = supported(loop.pi_ref)
    rate = 1 / jnp.where(loop.alpha < 1, 1 - loop.alpha, 1.0)
    noise = (4 + loop.P.shape[0] / 2) * float(jnp.finfo(loop.P.dtype).eps) / 2 * loop.beta * rate
    return Pull.of(loop.round().response, rate, inside, loop.lam == 0, noise), log_policy(loop.pi_ref)


def _behind(solve: Callable[..., Settled]) -> Callable[..., Settled]:
    """`solve(loop, start, limit, apart)` where `vmap` puts its batch axis behind those there are.

    The solver then sees all cases that are solved together, and treats the slow ones apart.
    """

    def called(*cases: Any) -> Settled:
        arrays, rest = eqx.partition(cases, eqx.is_array)

        def solver(apart: bool) -> Any:
            return jax.custom_batching.custom_vmap(lambda arrays: solve(*eqx.combine(arrays, rest), apart))

        alone, block = solver(False), solver(True)

        def rule(axis_size: int, in_batched: Any, arrays: Any) -> tuple[Settled, Settled]:
            def move(x: Any, batched: bool) -> Any:
                return jnp.moveaxis(x, 0, -1) if batched else jnp.broadcast_to(x[..., None], (*x.shape, axis_size))

            moved = jax.tree.map(move, arrays, in_batched[0])
            moved_block = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), block(moved))
            return moved_block, jax.tree.map(lambda x: True, moved_block)

        alone.def_vmap(rule)
        block.def_vmap(rule)
        return alone(arrays)

    return called


@eqx.filter_custom_jvp
def _settle(loop: MRS, start: PolicyBlock | None, limit: ScalarBlock, *, max_steps: int) -> Settled:
    def solve(loop: MRS, start: PolicyBlock | None, limit: ScalarBlock, apart: bool) -> Settled:
        pull, log_ref = _parts(loop)
        walked = follow(pull, log_ref, start, max_steps, apart=apart)
        return certified(loop, pull, log_ref, walked, limit, max_steps)

    return _behind(solve)(loop, start, limit)


@_settle.def_jvp
def _settle_jvp(primals, tangents, *, max_steps):
    """Implicit function theorem on the quotient: (I - J) dz = (dF/dloop) dloop, with I - J = (1 - alpha)(1 - X)."""
    loop, start, limit = primals
    settled = _settle(loop, start, limit, max_steps=max_steps)
    logits = settled.logits
    policy = softmax(logits)
    pull, _ = _parts(loop)
    memory = jax.lax.stop_gradient(pull.init())

    def one_round(loop: MRS) -> PolicyBlock:
        the_round = loop.round()
        increment, _ = the_round.response(policy, memory)
        return the_round.unnormalised(logits, increment)

    _, change = eqx.filter_jvp(one_round, (loop,), (tangents[0],))
    change = jnp.where(pull.inside, change, 0.0) * pull.rate[None]
    _, slope, _ = pull.value_and_slope(policy, memory)
    moved = pull.solve(slope, jnp.ones_like(pull.rate), policy_centred(change, policy)[:, None])[:, 0]
    dlogits = jnp.where(pull.inside, policy_centred(moved, policy), 0.0)
    return settled, Settled(dlogits, jnp.zeros_like(settled.error), None)  # pyright: ignore[reportArgumentType]


def solve_fixed_point(
    loop: MRS,
    policy0: PolicyBlock | None = None,
    *,
    max_steps: int = MAX_STEPS,
    tolerance: ScalarLike | None = None,
) -> FixedPoint:
    """`fixed_point` for a loop whose fields have batch axes behind; never raises, compiles nothing by itself."""
    eps = float(jnp.finfo(loop.P.dtype).eps)
    limit = as_float(eps**0.6 if tolerance is None else tolerance, loop.P)
    start = None
    if policy0 is not None:
        start = jnp.maximum(log_policy(policy0), jnp.log(jnp.finfo(loop.P.dtype).tiny))
    limit = jax.lax.stop_gradient(jnp.broadcast_to(limit, loop.alpha.shape))
    settled = _settle(loop, jax.lax.stop_gradient(start), limit, max_steps=max_steps)

    has_one = loop.alpha < 1
    logits = jnp.where(has_one[None], settled.logits, log_policy(loop.pi_ref))
    policy = softmax(logits)
    one_round = loop.round()
    after = one_round(State(logits, policy, one_round.response.init()))
    residual = jax.lax.stop_gradient(jnp.max(jnp.abs(after.policy - policy), axis=0))
    result = choose(settled.error <= limit, RESULTS.successful, RESULTS.max_steps_reached)
    result = choose(has_one, result, RESULTS.no_fixed_point)
    scores = one_round.response.result(after.memory)
    result = choose(scores == RESULTS.successful, result, scores)
    return FixedPoint(policy, result, residual, settled.num_steps, jax.lax.stop_gradient(settled.error))


@eqx.filter_jit
def _fixed_point(loop: MRS, policy0: Array | None, max_steps: int, tolerance: Array | None) -> FixedPoint:
    return solve_fixed_point(loop, policy0, max_steps=max_steps, tolerance=tolerance)


def fixed_point(
    loop: MRS,
    policy0: Float[ArrayLike, " K"] | None = None,
    *,
    max_steps: int = MAX_STEPS,
    tolerance: ScalarLike | None = None,
    throw: bool = True,
) -> FixedPoint:
    r"""The policy that a round leaves unchanged, stable or not: \(\pi^* = F(\pi^*)\).

    \((1-\alpha)\log\pi^* = (1-\alpha)\log\pi_{ref} + \beta\, r(\lambda\pi^* + (1-\lambda)\pi_0)\) up to a constant.
    MRS-IPO with alpha < 1 has exactly one fixed point, whatever P, beta and lam; it depends on (alpha, beta) only
    through beta / (1 - alpha). MRS-DPO may have several: this is the one that grows out of `pi_ref` (or lies near
    `policy0`) as the signal is turned on. With alpha = 1 there is none in general.

    The solver follows that path by Newton steps, and says so when it did not arrive. Derivatives are implicit: forward
    and reverse, of any order, in P (along skew directions), alpha, beta, lam, pi_ref and pi_0, in memory and time that
    do not depend on how slowly the loop itself converges.

    - `policy0`: shape (K,), a guess near the answer; it saves steps and changes neither the answer nor its derivative
      (for IPO). - `max_steps`: Newton steps before giving up.
    - `tolerance`: largest error of a probability in a successful result, as estimated by one more Newton step; the
      residual may be 1 + beta times that, by which a round amplifies it. None is eps^0.6 of the dtype (4e-10, 7e-5).
    - `throw`: raise where the result is not successful; False returns it as data.

    Source: Chen et al., arXiv 2602.12180, section on MRS, for the loop. Uniqueness is derived here: two fixed points
    would satisfy \((1-\alpha)\langle\log\pi-\log\pi', \pi-\pi'\rangle = \beta\lambda(\pi-\pi')^\top A(\pi-\pi') = 0\),
    A being skew, and the left side is positive unless they are one.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.two_responses(0.75), alpha=0.5, beta=2.0, lam=0.8)
    >>> star = ipodyn.fixed_point(loop)
    >>> round(float(star.policy[0]), 6)  # 1 / (1 + exp(-beta * (0.75 - 0.5) / (1 - alpha)))
    0.731059
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"`max_steps` is {max_steps!r}; it must be a whole number of steps, at least 1.")
    start = None if policy0 is None else start_policy(loop, jnp.asarray(policy0))
    star = _fixed_point(loop, start, max_steps, None if tolerance is None else as_float(tolerance, loop.P))
    if throw:
        return star.result.error_if(star, star.result != RESULTS.successful)
    return star
