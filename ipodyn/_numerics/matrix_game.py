r"""Matrix games, max over mixed strategies x of min over rows p of (B x)_p, by a primal-dual interior-point method.

With slacks s = B x - t and z = v - B^T w the central path is

    x_k z_k = tau,   w_p s_p = tau,   sum x = sum w = 1,   s, z, x, w >= 0,

one smooth point for each tau > 0; as tau falls to 0 it tends to the centre of the optimal strategies, so that equal
responses get equal weights where a vertex method would pick one of them. Both strategies are feasible on the way:
min (B x) and max (B^T w) enclose the value of the game whatever rounding did to the steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .types import Policy, Scalar

MAX_STEPS = 60
TO_BOUNDARY = 0.98

Rows = Float[Array, " M"]
Payoff = Float[Array, "M K"]


class Game(NamedTuple):
    """Mixed strategies of both sides, and what they guarantee: `lower` <= value of the game <= `upper`.

    `column` (K,) maximises, `row` (M,) minimises; entries outside the masks are 0.
    """

    column: Policy
    row: Rows
    lower: Scalar
    upper: Scalar
    num_steps: Int[Array, ""]


class _Point(NamedTuple):
    """A strictly feasible point: x, w, and their slacks z and s."""

    x: Policy
    w: Rows
    z: Policy
    s: Rows


class _Move(NamedTuple):
    """A direction: of x, w, z and s."""

    x: Policy
    w: Rows
    z: Policy
    s: Rows


class _Masks(NamedTuple):
    rows: Bool[Array, " M"]
    columns: Bool[Array, " K"]


class Factor(NamedTuple):
    """`matrix` = S L D L^T S for a positive definite matrix whose diagonal may span thirty orders."""

    scale: Policy
    lower: tuple[Array, ...]  # column k of L below its diagonal
    pivots: tuple[Array, ...]

    def solve(self, rhs: Float[Array, "K n"]) -> Float[Array, "K n"]:
        """`matrix`^-1 `rhs`."""
        y, K = rhs / self.scale[:, None], rhs.shape[0]
        done = []
        for k in range(K):
            done.append(y[0])
            y = y[1:] - self.lower[k][:, None] * y[:1]
        x = jnp.zeros((0, rhs.shape[1]), rhs.dtype)
        for k in reversed(range(K)):
            x = jnp.concatenate([(done[k] / self.pivots[k] - self.lower[k] @ x)[None], x])
        return x / self.scale[:, None]


def factored(matrix: Float[Array, "K K"]) -> Factor:
    """Plain arithmetic without pivoting, which definite matrices do not need, so that it batches."""
    K = matrix.shape[0]
    scale = jnp.sqrt(jnp.diagonal(matrix))
    # Some roundings more on the diagonal: a direction that rounding has left without curvature is left where it is.
    ridge = np.eye(K) * (8 * K * float(jnp.finfo(matrix.dtype).eps))
    rest = matrix / scale[:, None] / scale[None, :] + ridge.astype(matrix.dtype)
    lower, pivots = [], []
    for _ in range(K):
        column = rest[1:, 0] / rest[0, 0]
        lower.append(column)
        pivots.append(rest[0, 0])
        rest = rest[1:, 1:] - column[:, None] * rest[0, 1:][None]
    return Factor(scale, tuple(lower), tuple(pivots))


def newton_matrix(B: Payoff, diagonal: Policy, q: Rows) -> tuple[Float[Array, "K K"], Payoff]:
    """`diag(diagonal)` + the Gram matrix of B with its q-weighted mean row taken off, and that centred B."""
    # Centred before squaring: the q of active rows grow without bound, and their common part must cancel exactly.
    centred = B - ((q @ B) / jnp.sum(q))[None]
    weighted = centred * jnp.where(q > 0, jnp.sqrt(jnp.where(q > 0, q, 1.0)), 0.0)[:, None]
    return jnp.diag(diagonal) + weighted.T @ weighted, centred


class _System(NamedTuple):
    """The Newton equations at a point, eliminated down to x and inverted."""

    B: Payoff
    masks: _Masks
    at: _Point
    q: Rows
    centred: Payoff
    factor: Factor

    def direction(self, r1: Policy, r2: Rows) -> _Move:
        """The solution of z dx + x dz = r1, w ds + s dw = r2 that keeps all linear equations."""
        B, masks, at, q, centred, factor = self
        free = masks.columns.astype(B.dtype)
        pushed = jnp.where(masks.rows, r2 / at.s, 0.0)
        # dt has been eliminated: centred.T @ pushed is B.T @ pushed less its part.
        rhs = jnp.where(masks.columns, r1 / jnp.where(masks.columns, at.x, 1.0), 0.0) + centred.T @ pushed

        # Two solves, not one of both: the first alone is linear in r1 and r2, and so has a transpose.
        dx, level = (factor.solve(side[:, None])[:, 0] for side in (rhs * free, free))
        dx = jnp.where(masks.columns, dx - (jnp.sum(dx) / jnp.sum(level * free)) * level, 0.0)
        dx = jnp.where(jnp.sum(free) > 1, dx, 0.0)  # one response keeps all: here rounding would be all there is
        moved = B @ dx
        dt = (q @ moved - jnp.sum(pushed)) / jnp.sum(q)
        ds = jnp.where(masks.rows, moved - dt, 0.0)
        dw = jnp.where(masks.rows, (r2 - at.w * ds) / at.s, 0.0)
        back = B.T @ dw
        dv = jnp.sum(jnp.where(masks.columns, at.x * back + r1 - at.z * dx, 0.0)) / jnp.sum(at.x * free)
        return _Move(dx, dw, jnp.where(masks.columns, dv - back, 0.0), ds)


def _system(B: Payoff, masks: _Masks, at: _Point) -> _System:
    q = jnp.where(masks.rows, at.w / at.s, 0.0)
    matrix, centred = newton_matrix(B, jnp.where(masks.columns, at.z, 1.0) / jnp.where(masks.columns, at.x, 1.0), q)
    free = masks.columns.astype(B.dtype)
    matrix = matrix * (free[:, None] * free[None, :]) + jnp.diag(1 - free)
    # x itself is a direction almost without curvature. It is not among those that keep the sum, so stiffen it.
    stiffness = jnp.sum(free * at.x * jnp.diagonal(matrix)) / jnp.sum(free * at.x)
    return _System(B, masks, at, q, centred, factored(matrix + stiffness * free[:, None] * free[None, :]))


def _longest(value: Float[Array, " n"], move: Float[Array, " n"], mask: Bool[Array, " n"]) -> Scalar:
    """The largest step in [0, 1] that keeps `value` nonnegative, shortened a little."""
    ratio = jnp.where(mask & (move < 0), -value / jnp.where(move < 0, move, -1.0), jnp.inf)
    return jnp.minimum(1.0, TO_BOUNDARY * jnp.min(ratio))


def _average(at: _Point, masks: _Masks) -> Scalar:
    """The mean complementarity product, tau on the central path."""
    total = jnp.sum(jnp.where(masks.columns, at.x * at.z, 0.0)) + jnp.sum(jnp.where(masks.rows, at.w * at.s, 0.0))
    return total / (jnp.sum(masks.columns) + jnp.sum(masks.rows)).astype(total.dtype)


def _moved(at: _Point, move: _Move, masks: _Masks) -> _Point:
    primal = jnp.minimum(_longest(at.x, move.x, masks.columns), _longest(at.s, move.s, masks.rows))
    dual = jnp.minimum(_longest(at.w, move.w, masks.rows), _longest(at.z, move.z, masks.columns))
    return _Point(at.x + primal * move.x, at.w + dual * move.w, at.z + dual * move.z, at.s + primal * move.s)


def _step(B: Payoff, masks: _Masks, at: _Point, smoothing: Scalar) -> _Point:
    """Mehrotra's predictor and corrector, towards tau = `smoothing`."""
    tau = _average(at, masks)
    system = _system(B, masks, at)

    def aim(corrector: Bool[Array, ""], guess: _Move) -> _Move:
        ahead = _average(_moved(at, guess, masks), masks)
        target = jnp.where(corrector, jnp.maximum(tau * (ahead / tau) ** 3, smoothing), 0.0)
        # The second-order term is of use only on the way down, not where the point is being centred.
        second = corrector & (tau > 2 * smoothing)
        r1 = target - at.x * at.z - jnp.where(second, guess.x * guess.z, 0.0)
        r2 = target - at.w * at.s - jnp.where(second, guess.w * guess.s, 0.0)
        return system.direction(r1, r2)

    still = _Move(*jax.tree.map(jnp.zeros_like, tuple(at)))
    # A loop of two, so that the equations are compiled once.
    return _moved(at, jax.lax.fori_loop(0, 2, lambda stage, move: aim(stage == 1, move), still), masks)


def _guarantees(B: Payoff, masks: _Masks, x: Policy, w: Rows) -> tuple[Scalar, Scalar]:
    lower = jnp.min(jnp.where(masks.rows, B @ x, jnp.inf))
    upper = jnp.max(jnp.where(masks.columns, B.T @ w, -jnp.inf))
    return lower, upper


class _Walk(NamedTuple):
    at: _Point
    best: Game
    stalled: Int[Array, ""]


def _solve(B: Payoff, masks: _Masks, smoothing: Scalar) -> tuple[Game, _Point]:
    """The strategies with the best guarantees met on the way, and the last point (for derivatives)."""
    eps = float(jnp.finfo(B.dtype).eps)
    rows, columns = masks.rows.astype(B.dtype), masks.columns.astype(B.dtype)
    x, w = columns / jnp.sum(columns), rows / jnp.sum(rows)
    lower, upper = _guarantees(B, masks, x, w)
    start = _Point(
        x, w, jnp.where(masks.columns, upper + 1 - B.T @ w, 1.0), jnp.where(masks.rows, B @ x - (lower - 1), 1.0)
    )
    smooth = smoothing > 0

    def unfinished(walk: _Walk) -> Bool[Array, ""]:
        gap = walk.best.upper - walk.best.lower
        return (walk.best.num_steps < MAX_STEPS) & (walk.stalled < 3) & (smooth | (gap > 16 * eps))

    def body(walk: _Walk) -> _Walk:
        at, best = walk.at, walk.best
        new = _step(B, masks, at, smoothing)
        fine = jnp.all(jnp.isfinite(new.x)) & jnp.all(jnp.isfinite(new.w))
        fine &= jnp.all(new.x >= 0) & jnp.all(new.w >= 0) & jnp.all(new.z > 0) & jnp.all(new.s > 0)
        fine &= jnp.all((new.x > 0) | ~masks.columns) & jnp.all((new.w > 0) | ~masks.rows)
        new = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, at)
        x, w = new.x / jnp.sum(new.x), new.w / jnp.sum(new.w)
        lower, upper = _guarantees(B, masks, x, w)
        higher, deeper = smooth | (lower > best.lower), smooth | (upper < best.upper)
        game = Game(
            jnp.where(higher, x, best.column),
            jnp.where(deeper, w, best.row),
            jnp.where(higher, lower, best.lower),
            jnp.where(deeper, upper, best.upper),
            best.num_steps + 1,
        )
        product = jnp.where(masks.columns, jnp.abs(new.x * new.z - smoothing), 0.0)
        settled = smooth & (jnp.max(product) <= 64 * eps * jnp.maximum(smoothing, eps))
        progress = fine & ~settled & (smooth | (_average(new, masks) < 0.99 * _average(at, masks)))
        return _Walk(new, game, jnp.where(progress, 0, walk.stalled + 1))

    zero = jnp.zeros((), jnp.int32)
    walk = jax.lax.while_loop(unfinished, body, _Walk(start, Game(x, w, lower, upper, zero), zero))
    return walk.best, walk.at


def solve_game(B: Payoff, rows: Bool[Array, " M"], columns: Bool[Array, " K"], smoothing: Scalar) -> Game:
    """The game on the rows and columns of the masks (at least one each), at the point `smoothing` of the central path.

    With `smoothing` 0 the gap is some roundings of the largest |B|, and the derivative of `lower` and `upper` in B is
    the envelope theorem's w x^T, that of the value of the game. That of the strategies is the derivative along the
    central path's equations with the products x z and w s held: exact for `smoothing` > 0, and at 0 where the optimal
    strategies are unique. Forward, backward, and of any order.
    """
    scale = _scale(B, rows, columns)
    game, _ = _central(B / scale, rows, columns, smoothing / scale)
    return game._replace(lower=game.lower * scale, upper=game.upper * scale)


def _scale(B: Payoff, rows: Bool[Array, " M"], columns: Bool[Array, " K"]) -> Scalar:
    largest = jnp.max(jnp.where(rows[:, None] & columns[None, :], jnp.abs(B), 0.0))
    return jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1.0))


def _guarantee_slopes(game: Game, B: Payoff, dB: Payoff, move: _Move, masks: _Masks) -> tuple[Scalar, Scalar]:
    """How the least of B x and the largest of B^T w move, each in the row or column where it is attained."""
    p = jnp.argmin(jnp.where(masks.rows, B @ game.column, jnp.inf))
    k = jnp.argmax(jnp.where(masks.columns, B.T @ game.row, -jnp.inf))
    return (dB @ game.column + B @ move.x)[p], (dB.T @ game.row + B.T @ move.w)[k]


@jax.custom_jvp
def _central(B: Payoff, rows: Bool[Array, " M"], columns: Bool[Array, " K"], smoothing: Scalar) -> tuple[Game, _Point]:
    """`_solve` as a function of its equations, to JAX too."""
    return _solve(B, _Masks(rows, columns), smoothing)


@_central.defjvp
def _central_jvp(primals, tangents):
    B, rows, columns, smoothing = primals
    dB, _, _, dsmoothing = tangents
    masks = _Masks(rows, columns)
    game, at = _central(B, rows, columns, smoothing)  # not `_solve`: this rule is differentiated in turn
    r1 = at.x * (dB.T @ at.w) + jnp.where(columns, dsmoothing, 0.0)
    r2 = -at.w * (dB @ at.x) + jnp.where(rows, dsmoothing, 0.0)
    move = _system(B, masks, at).direction(r1, r2)
    # Optimal strategies: many rows and columns tie, and what both guarantee is the value. On the path: one of each.
    value, (dlower, dupper) = game.row @ (dB @ game.column), _guarantee_slopes(game, B, dB, move, masks)
    dlower, dupper = (jnp.where(smoothing > 0, slope, value) for slope in (dlower, dupper))
    steps = jnp.zeros(game.num_steps.shape, jax.dtypes.float0)
    dgame = Game(move.x, move.w, dlower, dupper, steps)  # pyright: ignore[reportArgumentType]
    # The slacks z = v - B^T w and s = B x - t move with B itself, too.
    dz = move.z - jnp.where(columns, dB.T @ at.w, 0.0)
    ds = move.s + jnp.where(rows, dB @ at.x, 0.0)
    return (game, at), (dgame, _Point(move.x, move.w, dz, ds))
