r"""Newton's method along the path of fixed points from weak to full preference signal.

With w = log pi up to a constant, the fixed points of a loop with alpha < 1 solve

    w = log pi_ref + strength * pull(softmax(w)),     pull = response / (1 - alpha),

at strength = 1; at strength = 0 the solution is pi_ref. For IPO each strength has exactly one solution: the path
has no folds. Written for w, the equation neither over- nor underflows and excludes no vertex.

Everything is seen in the local geometry of the solution: vectors are centred by the policy (pi @ x = 0), and
X = (1 - 1 pi^T) pull' S(pi), with S the softmax Jacobian, is what the derivative of the pull does to them. For IPO,
X = H diag(pi) with H skew and H pi = 0, so 1 - strength * X is the identity plus a skew map in the inner product
weighted by pi: always invertible, and no longer a step than its residual, however strong the signal. Batch axes behind.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linear import ELIMINATED_UP_TO, eliminate
from .._numerics.simplex import matvec
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, PreferenceBlock, ScalarBlock
from .._objectives.response import AbstractResponse, LinearResponse


def _fold(combine: Any, reduce: Any, x: PolicyBlock) -> ScalarBlock:
    """A reduction over the responses; for few of them an expression of its rows, which fuses with what surrounds it."""
    return functools.reduce(combine, list(x)) if x.shape[0] <= 16 else reduce(x, axis=0)


def _sum(x: PolicyBlock) -> ScalarBlock:
    return _fold(jnp.add, jnp.sum, x)


def _max(x: PolicyBlock) -> ScalarBlock:
    return _fold(jnp.maximum, jnp.max, x)


def policy_centred(x: PolicyBlock, policy: PolicyBlock) -> PolicyBlock:
    """`x` minus its mean under the policy."""
    return x - _sum(policy * x)[None]


class Pull(eqx.Module):
    """`response / (1 - alpha)`, its value and derivative X at a policy; responses that pi_ref excludes feel none."""

    response: AbstractResponse
    rate: ScalarBlock
    inside: Any  # bool (K, *batch): which responses pi_ref allows
    constant: BoolBlock  # whether the pull is the same at every policy
    noise: ScalarBlock  # how far rounding may move it
    is_linear: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        response: AbstractResponse,
        rate: ScalarBlock,
        inside: Any,
        constant: BoolBlock | None = None,
        noise: ScalarBlock | None = None,
    ) -> "Pull":
        constant = jnp.zeros(rate.shape, bool) if constant is None else constant
        noise = jnp.zeros_like(rate) if noise is None else noise
        if isinstance(response, LinearResponse):
            response = LinearResponse(response.drive * rate[None], response.gain * rate[None, None])
            return cls(response, rate, inside, constant, noise, True)
        return cls(response, rate, inside, constant, noise, False)

    def init(self) -> Any:
        return self.response.init()

    def value_and_slope(self, policy: PolicyBlock, memory: Any) -> tuple[PolicyBlock, PreferenceBlock, Any]:
        """The pull, X, and the memory for the next call."""
        if isinstance(self.response, LinearResponse):
            on_policy = matvec(self.response.gain, policy)
            H = self.response.gain - on_policy[:, None] + on_policy[None]
            value = self.response.drive + on_policy
            return jnp.where(self.inside, value, 0.0), H * policy[None], memory
        value, memory_after = self.response(policy, memory)
        eye = jnp.eye(policy.shape[0], dtype=policy.dtype).reshape((*2 * policy.shape[:1], *(1,) * (policy.ndim - 1)))
        directions = policy[None] * (eye - policy[:, None])  # column j is S(pi) e_j

        def along(direction: PolicyBlock) -> PolicyBlock:
            return jax.jvp(lambda p: self.response(p, memory)[0], (policy,), (direction,))[1]

        columns = jax.vmap(along, in_axes=1, out_axes=1)(directions) * self.rate[None, None]
        slope = columns - jnp.sum(policy[:, None] * columns, axis=0, keepdims=True)
        return jnp.where(self.inside, value * self.rate[None], 0.0), slope, memory_after

    def solve(
        self, slope: PreferenceBlock, strength: ScalarBlock, rhs: Float[Array, "K columns *batch"]
    ) -> Float[Array, "K columns *batch"]:
        """`x` with (1 - strength * X) x = rhs, for several right-hand sides."""
        K = rhs.shape[0]
        X = slope * strength[None, None]
        if self.is_linear and K <= 4:
            # X has one pair of eigenvalues, +-i omega (none for K = 2): X^3 = -omega^2 X gives the inverse.
            omega_squared = 0 * X[0, 0]
            for i in range(K):
                for j in range(i):
                    omega_squared = omega_squared - X[i, j] * X[j, i]
            columns = [rhs[:, c] for c in range(rhs.shape[1])]
            once = [matvec(X, x) for x in columns]
            solved = [x + (y + matvec(X, y)) / (1 + omega_squared)[None] for x, y in zip(columns, once, strict=True)]
            return jnp.stack(solved, axis=1)
        eye = jnp.eye(K, dtype=X.dtype).reshape((K, K) + (1,) * (X.ndim - 2))
        matrix = eye - X
        if self.is_linear and K <= ELIMINATED_UP_TO:
            return eliminate(matrix, rhs)
        front = jnp.moveaxis(matrix, (0, 1), (-2, -1))
        return jnp.moveaxis(jnp.linalg.solve(front, jnp.moveaxis(rhs, (0, 1), (-2, -1))), (-2, -1), (0, 1))


class Settled(NamedTuple):
    """Where the path ended: log pi with maximum 0, the error of pi, and the steps it took."""

    logits: PolicyBlock
    error: ScalarBlock
    num_steps: IntBlock


class _Walk(NamedTuple):
    """The state of the walk; `reach` is the longest step in units of log pi, `since` the steps since the last start.

    `length` is that of the last step, in the metric of the policy.
    """

    logits: PolicyBlock
    strength: ScalarBlock
    memory: Any
    reach: ScalarBlock
    since: IntBlock
    length: ScalarBlock
    done: BoolBlock
    count: IntBlock


FIRST_REACH = 2.0
PATIENCE = 24  # steps that all cases take together, before the last few are taken apart
FEW = 8  # of a batch, or a 64th of it


def _softmax(logits: PolicyBlock) -> PolicyBlock:
    weights = jnp.exp(logits)
    return weights * (1 / _sum(weights))[None]


def topped(logits: PolicyBlock) -> PolicyBlock:
    return logits - _max(logits)[None]


def _step(pull: Pull, log_ref: PolicyBlock, walk: _Walk) -> _Walk:
    """One Newton step, stretched along the path as far as its linear model can be trusted."""
    eps = float(jnp.finfo(log_ref.dtype).eps)
    tiny = float(jnp.finfo(log_ref.dtype).tiny)
    logits, strength = walk.logits, walk.strength
    policy = _softmax(logits)
    value, slope, memory = pull.value_and_slope(policy, walk.memory)
    miss = jnp.where(pull.inside, log_ref - logits, 0.0) + strength[None] * value
    rhs = jnp.stack([policy_centred(miss, policy), policy_centred(value, policy)], axis=1)
    moves = pull.solve(slope, strength, rhs)
    newton = jnp.where(pull.inside, moves[:, 0], 0.0)
    along = jnp.where(pull.inside, moves[:, 1], 0.0)

    # The model is the softmax made linear. It holds while the responses that carry the mass move by less than `reach`,
    # and the others rise by less, or stay small; how far a rare response falls does not matter.
    per_rise = 1 / jnp.maximum(walk.reach[None], -3.0 - logits)

    def trusted(move: PolicyBlock) -> tuple[ScalarBlock, ScalarBlock]:
        length = jnp.sqrt(_sum(policy * move**2))
        return 1 / jnp.maximum(jnp.maximum(length / walk.reach, _max(move * per_rise)), tiny), length

    trust, length = trusted(newton)
    # Go on along the path only from where Newton converges, with the part of the trust that its step leaves.
    stretch = jnp.where(trust >= 2, trusted(along)[0] * (1 - 1 / jnp.maximum(trust, 2.0)), 0.0)
    arrives = stretch >= 1 - strength
    stretch = jnp.where(arrives, 1 - strength, stretch)
    moved = logits + jnp.minimum(trust, 1.0)[None] * newton + stretch[None] * along
    strength_after = jnp.where(arrives, 1.0, strength + stretch)

    # Nothing to follow where the pull is the same everywhere: the solution is written down.
    moved = jnp.where(pull.constant[None], jnp.where(pull.inside, log_ref + value, logits), moved)

    # A step of size sqrt(eps) leaves an error of order eps, if no rare response is on its way up.
    rising = _max(jnp.where(logits + newton > jnp.log(eps), newton, 0.0))
    small = (length <= jnp.sqrt(eps)) | ((length <= pull.noise) & (length > walk.length / 2))  # all that rounding lets
    done = (strength == 1) & (trust >= 1) & small & (rising < 0.1) | pull.constant

    # Rarely (one in ten thousand at strength * pull ~ 1e4) a long step lands where Newton cycles: start anew, shorter.
    # Shorter steps take longer: what was given up too early once would be given up each time.
    patience = (40 + log_ref.shape[0]) * (FIRST_REACH / walk.reach)
    again = ~done & ((walk.since.astype(patience.dtype) >= patience) | ~jnp.isfinite(_sum(moved)))
    lost_in_noise = again & (pull.noise >= 1)  # rounding adds more to a step than the longest to be trusted
    done, again = done | lost_in_noise, again & ~lost_in_noise
    moved = jnp.where(again[None], log_ref, moved)
    strength_after = jnp.where(again, 0.0, strength_after)
    reach = jnp.where(again, 0.7 * walk.reach, walk.reach)
    since = jnp.where(again, 0, walk.since + 1)

    def kept(old: Any, new: Any) -> Any:  # a case that is done keeps its value: no result depends on its neighbours
        return jax.tree.map(lambda a, b: jnp.where(walk.done[(None,) * (a.ndim - walk.done.ndim)], a, b), old, new)

    return _Walk(
        kept(logits, topped(moved)),
        kept(strength, strength_after),
        kept(walk.memory, memory),
        kept(walk.reach, reach),
        kept(walk.since, since),
        kept(walk.length, length),
        walk.done | done,
        walk.count + (~walk.done).astype(jnp.int32),
    )


def _walk_all(pull: Pull, log_ref: PolicyBlock, walk: _Walk, max_steps: int, apart: bool) -> _Walk:
    """Steps until every case is done. With `apart` the few that need far more than the rest go on among themselves.

    (In blocks of a map that costs more than it saves: neighbours there take about as many steps.)
    """
    size = log_ref.shape[-1] if log_ref.ndim == 2 else 1
    width = max(FEW, size // 64)

    def unfinished(walk: _Walk) -> BoolBlock:
        return ~walk.done & (walk.count < max_steps)

    def together(pull: Pull, log_ref: PolicyBlock, walk: _Walk, most: int) -> _Walk:
        def goes_on(state: tuple[_Walk, IntBlock]) -> BoolBlock:
            return jnp.any(unfinished(state[0])) & (state[1] < most)

        def step(state: tuple[_Walk, IntBlock]) -> tuple[_Walk, IntBlock]:
            return _step(pull, log_ref, state[0]), state[1] + 1

        return jax.lax.while_loop(goes_on, step, (walk, jnp.zeros((), jnp.int32)))[0]

    if not apart or size < 4 * width:
        return together(pull, log_ref, walk, max_steps)

    def finish(walk: _Walk) -> _Walk:
        (at,) = jnp.nonzero(unfinished(walk), size=width, fill_value=size)  # surplus places: copies of the last case

        def taken(x: Any) -> Any:
            return jnp.take(x, at, axis=-1, mode="clip") if eqx.is_array(x) and x.shape[-1:] == (size,) else x

        few = jax.tree.map(taken, (pull, log_ref, walk))
        ended = together(few[0], few[1], few[2]._replace(done=few[2].done | (at >= size)), max_steps)
        return jax.tree.map(lambda old, new: old.at[..., at].set(new, mode="drop"), walk, ended)

    walk = together(pull, log_ref, walk, PATIENCE)
    return jax.lax.while_loop(lambda walk: jnp.any(unfinished(walk)), finish, walk)


def follow(
    pull: Pull, log_ref: PolicyBlock, start: PolicyBlock | None, max_steps: int, *, apart: bool = False
) -> Settled:
    """The solution at strength 1. `start`, logits near it, saves the path; where Newton fails from there, it is taken.

    How far the answer is off is not looked into: `error` is 1.
    """
    log_ref = topped(log_ref)
    zero = jnp.zeros(log_ref.shape[1:], log_ref.dtype)
    count = jnp.zeros(log_ref.shape[1:], jnp.int32)
    begin = log_ref if start is None else jnp.where(pull.inside, topped(start), log_ref)
    strength = zero if start is None else zero + 1
    no = jnp.zeros(zero.shape, bool)
    walk = _Walk(begin, strength, pull.init(), zero + FIRST_REACH, count, zero + jnp.inf, no, count)
    walk = _walk_all(pull, log_ref, walk, max_steps, apart)
    return Settled(walk.logits, jnp.ones_like(zero), walk.count)
