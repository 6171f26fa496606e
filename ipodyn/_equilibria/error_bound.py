r"""How far a policy may be from the fixed point of a loop: for MRS-IPO a bound that holds, rounding included.

Let m be the miss log pi_ref + rate * response(pi) - w at pi = softmax(w), pi* the fixed point, and d = pi - pi*. As
P - 1/2 is skew, KL(pi || pi*) + KL(pi* || pi) = -<m, d>, whatever constant is added to m. The left side is at least
sum d_i^2 / a_i with a = (pi + pi*) / 2. So, with any n_i >= |m_i|, N^2 = sum pi_i n_i^2 and n the largest of the n_i,

    |d_i| <= N / 2 + n^2 / 4.

No derivative enters, and no higher order is left out. `plain_bound` is that, with the rounding of m in n_i. It grows
with kappa = beta / (1 - alpha), because the rounding does. `sharp_bound` evaluates m with twice the digits and takes
one Newton step y off it: at w + y the miss is what rounding, the linear solve and the curvature of the softmax leave.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._loops.mrs import MRS
from .._numerics.double import Double, two_product, two_sum
from .._numerics.simplex import matvec, mixture, softmax
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, ScalarBlock
from .newton_path import Pull, Settled, policy_centred, topped

REFINEMENTS = 8
SOLVES = 4  # in float32 at kappa = 1e7 two leave 1e-3 of the miss: the linear system then keeps less than two digits
# In units of eps / 2, with a reserve: exp and a division; log, and what is added to it.
SOFTMAX, LOG = 8.0, 4.0


def _unit(x: ScalarBlock) -> float:
    return float(jnp.finfo(x.dtype).eps) / 2


def _signal(loop: MRS) -> Double:
    """kappa = beta / (1 - alpha); where alpha = 1 there is no fixed point, and beta stands in."""
    rest = two_sum(jnp.ones_like(loop.alpha), -jnp.where(loop.alpha < 1, loop.alpha, 0.0))
    return Double(loop.beta, jnp.zeros_like(loop.beta)) * rest.reciprocal()


def _skewed(loop: MRS, size: ScalarBlock, bound: ScalarBlock) -> ScalarBlock:
    """`bound` where P + P.T is not exactly 1, which takes up to size |P + P.T - 1| / 2 from the left side above."""
    P = loop.P
    high, low = jnp.maximum(P, jnp.swapaxes(P, 0, 1)), jnp.minimum(P, jnp.swapaxes(P, 0, 1))
    left = 1 - size * jnp.max(jnp.abs((1 - high) - low), axis=(0, 1)) / 2
    return jnp.where(left > 0, bound / jnp.where(left > 0, left, 1.0), 1.0)


def _probable(error: ScalarBlock) -> ScalarBlock:
    """No probability is further off than 1; where numbers overflowed that is all that is known."""
    return jnp.where(error < 1, error, 1.0)


def plain_bound(loop: MRS, pull: Pull, log_ref: PolicyBlock, logits: PolicyBlock) -> ScalarBlock:
    """The bound from the miss as it is computed, and the rounding of that."""
    K, unit = logits.shape[0], _unit(logits)
    policy = softmax(logits)
    value, _, _ = pull.value_and_slope(policy, None)
    miss = policy_centred(jnp.where(pull.inside, log_ref - logits, 0.0) + value, policy)
    signal = loop.beta * pull.rate
    mu = mixture(loop.lam, policy, loop.pi_0)
    products = signal[None] * matvec(jnp.abs(loop.P - 0.5), mu)
    sizes = LOG * jnp.abs(log_ref) + 2 * jnp.abs(logits) + 2 * jnp.abs(value) + (2 * K + 14) * products
    misses = jnp.where(pull.inside, jnp.abs(miss) + unit * (SOFTMAX + sizes), 0.0)
    bound = jnp.sqrt(jnp.sum(policy * misses**2, axis=0)) / 2 + jnp.max(misses, axis=0) ** 2 / 4
    return _probable(_skewed(loop, signal * loop.lam, bound) + unit * (SOFTMAX + 2 * K))


class Sharp(NamedTuple):
    """`error` bounds the error of softmax(logits); `step` is what Newton would add to the logits."""

    error: ScalarBlock
    step: PolicyBlock


def _accurate_miss(
    loop: MRS, pull: Pull, log_ref: PolicyBlock, logits: PolicyBlock, policy: PolicyBlock
) -> tuple[PolicyBlock, ScalarBlock]:
    """The miss up to a constant, and by how much the policy's sum differs from 1."""
    K = logits.shape[0]
    nothing = jnp.zeros_like(policy)

    def add(j: IntBlock, total: Double) -> Double:
        return total + Double(policy[j], nothing[0])

    total = jax.lax.fori_loop(0, K, add, Double(nothing[0], nothing[0]))
    on = Double(loop.lam, nothing[0]) * total.reciprocal()
    off = two_sum(jnp.ones_like(loop.lam), -loop.lam)

    def wide(x: Double) -> Double:
        return Double(jnp.broadcast_to(x.high[None], policy.shape), jnp.broadcast_to(x.low[None], policy.shape))

    mu = wide(on) * Double(policy, nothing) + wide(off) * Double(loop.pi_0, nothing)

    def add_column(j: IntBlock, score: Double) -> Double:
        column, high, low = loop.P[:, j], mu.high[j][None], mu.low[j][None]
        product = two_product(column, jnp.broadcast_to(high, column.shape))
        return score + Double(product.high, product.low + column * low)

    score = jax.lax.fori_loop(0, K, add_column, Double(nothing, nothing))
    miss = wide(_signal(loop)) * score + two_sum(log_ref, -logits)
    middle = jnp.sum(policy * jnp.where(pull.inside, miss.high, 0.0), axis=0)
    moved = two_sum(miss.high, -jnp.broadcast_to(middle[None], policy.shape))
    return jnp.where(pull.inside, moved.high + (moved.low + miss.low), 0.0), (total.high - 1) + total.low


def sharp_bound(loop: MRS, pull: Pull, log_ref: PolicyBlock, logits: PolicyBlock) -> Sharp:
    """The bound from the miss with twice the digits, one Newton step further on."""
    K, unit = logits.shape[0], _unit(logits)
    policy = softmax(logits)
    miss, surplus = _accurate_miss(loop, pull, log_ref, logits, policy)
    miss = policy_centred(miss, policy)
    _, slope, _ = pull.value_and_slope(policy, None)
    step, rest = jnp.zeros_like(miss), miss
    for _ in range(SOLVES):  # again for what rounding left of the one before
        more = pull.solve(slope, jnp.ones_like(loop.alpha), rest[:, None])[:, 0]
        step = jnp.where(pull.inside, policy_centred(step + more, policy), 0.0)
        rest = miss - step + matvec(slope, step)

    # Weights that bound those of softmax(logits + step), in logarithms: a rare response may be on its way up.
    log_policy = logits - jnp.log(jnp.sum(jnp.exp(logits), axis=0))[None]
    weights = jnp.exp(jnp.minimum(log_policy + jnp.maximum(step, 0.0), 40.0))
    curved = jnp.sum(weights * step**2, axis=0) / 2
    signal = _signal(loop).high
    size = signal * loop.lam
    solving = 2 * (K + 8) * unit * size * jnp.sum(policy * jnp.abs(step), axis=0)
    common = solving + 1.5 * size * curved + 8 * (K + 8) * unit**2 * signal
    misses = jnp.abs(rest) + unit * (SOFTMAX + LOG * jnp.abs(log_ref) + 2 * jnp.abs(step)) + common[None]
    misses = jnp.where(pull.inside, misses, 0.0)
    bound = jnp.sqrt(jnp.sum(weights * misses**2, axis=0)) / 2 + jnp.max(misses, axis=0) ** 2 / 4
    moved = jnp.max(policy * jnp.abs(step), axis=0) + 3 * curved + jnp.abs(surplus) + unit * (SOFTMAX + K)
    return Sharp(_probable(_skewed(loop, size, bound) + moved), step)


class _Refinement(NamedTuple):
    """The best logits so far with their error, those looked at next, and whether it goes on."""

    best: PolicyBlock
    error: ScalarBlock
    logits: PolicyBlock
    tries: IntBlock
    active: BoolBlock


def _refined(loop: MRS, pull: Pull, log_ref: PolicyBlock, settled: Settled, limit: ScalarBlock, most: int) -> Settled:
    """Where the plain bound is above the limit, Newton steps that see the miss with twice the digits."""
    error = plain_bound(loop, pull, log_ref, settled.logits)
    begin = _Refinement(
        settled.logits, error, settled.logits, settled.num_steps, (error > limit) & (settled.num_steps < most)
    )
    last = jnp.minimum(settled.num_steps + REFINEMENTS, most)

    def refine(state: _Refinement) -> _Refinement:
        sharp = sharp_bound(loop, pull, log_ref, state.logits)
        better = state.active & (sharp.error < state.error)
        worth = (sharp.error < state.error / 2) | (sharp.error > limit)
        error = jnp.where(better, sharp.error, state.error)
        best = jnp.where(better[None], state.logits, state.best)
        # The model is linear in logits of common responses: no step of more than 2, no rare one into the common.
        length = jnp.max(sharp.step / jnp.maximum(2.0, -3.0 - state.logits), axis=0)
        moved = state.logits + sharp.step / jnp.maximum(length, 1.0)[None]
        logits = jnp.where(pull.inside, topped(moved), state.logits)
        tries = state.tries + state.active.astype(jnp.int32)
        active = state.active & (error > limit / 8) & worth & (tries < last) & jnp.isfinite(jnp.sum(moved, axis=0))
        return _Refinement(best, error, jnp.where(active[None], logits, state.logits), tries, active)

    end = jax.lax.while_loop(lambda state: jnp.any(state.active), refine, begin)
    return Settled(end.best, end.error, end.tries)


def _estimated(pull: Pull, log_ref: PolicyBlock, settled: Settled) -> Settled:
    """Any objective: the next Newton step, and the rounding of the miss carried through its linear system."""
    K, unit = settled.logits.shape[0], _unit(settled.logits)
    policy = softmax(settled.logits)
    value, slope, _ = pull.value_and_slope(policy, pull.init())
    miss = policy_centred(jnp.where(pull.inside, log_ref - settled.logits, 0.0) + value, policy)
    largest = jnp.max(jnp.abs(value), axis=0, keepdims=True)
    rounding = unit * (SOFTMAX + LOG * jnp.abs(log_ref) + 2 * jnp.abs(settled.logits) + (2 * K + 14) * largest)
    eye = jnp.eye(K, dtype=policy.dtype).reshape((K, K) + (1,) * (policy.ndim - 1))
    columns = eye * jnp.where(pull.inside, rounding, 0.0)[None]
    rhs = jnp.concatenate([miss[:, None], _centred_columns(columns, policy)], axis=1)
    moves = _centred_columns(pull.solve(slope, jnp.ones_like(pull.rate), rhs), policy)
    errors = policy * (jnp.abs(moves[:, 0]) + jnp.sum(jnp.abs(moves[:, 1:]), axis=1))
    return Settled(settled.logits, _probable(jnp.max(errors, axis=0)), settled.num_steps)


def _centred_columns(x: Float[Array, "K columns *batch"], policy: PolicyBlock) -> Float[Array, "K columns *batch"]:
    return x - jnp.sum(policy[:, None] * x, axis=0, keepdims=True)


def certified(loop: MRS, pull: Pull, log_ref: PolicyBlock, settled: Settled, limit: ScalarBlock, most: int) -> Settled:
    """`settled` with its error, refined where that is above `limit` and steps are left of the `most` allowed."""
    log_ref = jnp.where(pull.inside, log_ref, 0.0)
    if loop.objective.is_linear:
        return _refined(loop, pull, log_ref, settled, limit, most)
    return _estimated(pull, log_ref, settled)
