r"""Whether a policy at rest would stay there: how fast a small nudge of it grows.

Where the policy holds mass this is the spectrum of one round. For a linear response with gain G the Jacobian in logits
is alpha + G S(pi), with eigenvalues \(\alpha \pm i\omega_k\), \(\pm i\omega_k\) the spectrum of the skew matrix
\(S^{1/2} A S^{1/2}\), A the skew part of G; for others it is computed and squared many times over.
A response without mass has no part in that: put at a millionth, it grows, or it falls back.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._equilibria.newton_path import Pull
from .._loops.loop import AbstractRound
from .._loops.normal_form import Round, State
from .._loops.starts import generic_start
from .._numerics.simplex import EXCLUDED, matvec
from .._numerics.types import PolicyBlock, ScalarBlock
from .._objectives.response import LinearResponse

NUDGE = 1e-6  # a response that holds less has no part in the motion
SMALL = 1e-2  # below, a response can be on its way back although no probability moves
TURNS = 64  # steps of the power iteration
SQUARINGS = 24  # J^(2^24): the radius to about 1e-6, whatever the eigenvectors


def growth(one_round: AbstractRound, state: Any) -> ScalarBlock:
    """The log of what a round multiplies a nudge of a policy at rest by; 0 within rounding; > 0: it would not stay.

    For a linear response never above the truth; below it only from K = 5 on, where modes close to one another are not
    told apart by the power iteration. No derivatives.
    """
    one_round, state = jax.lax.stop_gradient((one_round, state))
    if not isinstance(one_round, Round):
        return _log_radius(one_round.jacobian(state))
    # With alpha = 1 nothing holds a response at a small probability: what falls goes on falling, and has no part.
    held = (state.policy >= NUDGE) | (one_round.alpha[None] < 1)
    if isinstance(one_round.response, LinearResponse):
        inside = _linear(one_round.alpha, one_round.response, state.policy, held)
    else:
        inside = _general(one_round, state, held)
    return jnp.maximum(inside, jnp.max(_returning(one_round, state), axis=0))


def _linear(
    alpha: ScalarBlock, response: LinearResponse, policy: PolicyBlock, held: Bool[Array, "K *batch"]
) -> ScalarBlock:
    """Half of log(alpha^2 + omega^2), by the power iteration x <- D H D x with D = diag(sqrt(pi)), H skew."""
    gain = response.gain
    A = (gain - jnp.swapaxes(gain, 0, 1)) / 2
    policy = jnp.where(held, policy, 0)
    root = jnp.sqrt(policy)
    m = matvec(A, policy)

    def turned(x: PolicyBlock) -> PolicyBlock:
        y = root * x
        return root * (matvec(A, y) - m * jnp.sum(y, axis=0)[None] + jnp.sum(m * y, axis=0)[None])

    def step(_: Any, x: PolicyBlock) -> PolicyBlock:
        y = turned(x)
        y = y / jnp.maximum(jnp.max(jnp.abs(y), axis=0), jnp.finfo(y.dtype).tiny)[None]  # lest the squares underflow
        return y / jnp.maximum(jnp.sqrt(jnp.sum(y**2, axis=0)), jnp.finfo(y.dtype).tiny)[None]

    # Up to K = 4 there is one mode, and every x in the range of D H D shows it.
    x = jax.lax.fori_loop(0, 2 if policy.shape[0] <= 4 else TURNS, step, generic_start(jnp.ones_like(policy)))
    square = jnp.sum(turned(x) ** 2, axis=0)
    eps = jnp.finfo(policy.dtype).eps
    excess = (alpha - 1) * (alpha + 1) + square
    rounding = 32 * eps * (1 - alpha**2 + square) + (32 * eps * jnp.max(jnp.abs(gain), axis=(0, 1))) ** 2
    return jnp.log1p(jnp.where(jnp.abs(excess) <= rounding, 0, jnp.maximum(excess, -1))) / 2


def _general(one_round: Round, state: State, held: Bool[Array, "K *batch"]) -> ScalarBlock:
    policy = state.policy
    K = policy.shape[0]
    pull = Pull.of(one_round.response, jnp.ones_like(one_round.alpha), jnp.ones(policy.shape, bool))
    _, slope, _ = pull.value_and_slope(policy, state.memory)
    eye = jnp.eye(K, dtype=policy.dtype).reshape((K, K) + (1,) * (policy.ndim - 1))
    # Constants, the gauge, are sent to 0.
    jacobian = one_round.alpha[None, None] * (eye - policy[None]) + jnp.where(held[None], slope, 0)
    return _log_radius(jnp.moveaxis(jacobian, (0, 1), (-2, -1)))


def _log_radius(jacobian: Float[Array, "*batch n n"]) -> ScalarBlock:
    """The log of the spectral radius, from the norm of a high power; 0 within its error."""

    def square(_: Any, carry: tuple[Array, ScalarBlock]) -> tuple[Array, ScalarBlock]:
        power, log_norm = carry
        norm = jnp.sqrt(jnp.sum(power**2, axis=(-2, -1)))
        scaled = power / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)[..., None, None]
        return jnp.matmul(scaled, scaled, precision="highest"), 2 * (log_norm + jnp.log(norm))

    start = (jacobian, jnp.zeros(jacobian.shape[:-2], jacobian.dtype))
    power, log_norm = jax.lax.fori_loop(0, SQUARINGS, square, start)
    rate = (log_norm + jnp.log(jnp.sqrt(jnp.sum(power**2, axis=(-2, -1))))) / 2**SQUARINGS
    unsure = max(2e-6, 64 * float(jnp.finfo(rate.dtype).eps))
    return jnp.where(jnp.abs(rate) <= unsure, 0, rate)


def _returning(one_round: Round, state: State) -> PolicyBlock:
    """How fast a response of little mass gains on the leading one, once it holds a millionth; -inf for all others.

    One that holds more counts if it is still to gain a factor of e.
    """
    alpha, logits, drive = one_round.alpha[None], state.logits, one_round.drive
    increment, _ = one_round.response(state.policy, state.memory)
    allowed = (logits > EXCLUDED) & (drive > EXCLUDED)
    pushed = jnp.where(allowed, drive + increment, 0)
    leader = jnp.argmax(logits, axis=0)[None]
    lead = jnp.take_along_axis(pushed, leader, axis=0)
    place = jnp.maximum(jnp.log(jnp.asarray(NUDGE, logits.dtype)), logits + 1)
    rate = pushed - lead - (1 - alpha) * place
    size = jnp.abs(drive) + jnp.abs(increment)
    rounding = 16 * jnp.finfo(logits.dtype).eps * (size + jnp.take_along_axis(size, leader, axis=0) + jnp.abs(place))
    return jnp.where(allowed & (state.policy < SMALL) & (rate > rounding), rate, -jnp.inf)
