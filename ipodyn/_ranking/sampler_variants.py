"""Designed samplers with a second wish: few responses, or little change of a given distribution."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from .._numerics.checks import host_value
from .._numerics.deprecation import renamed_keywords
from .._numerics.matrix_game import Game, factored, solve_game
from .._numerics.results import RESULTS, choose, throw_unless_successful
from .._numerics.simplex import kl_divergence
from .._numerics.types import Policy, PolicyLike, Preference, PreferenceLike, Scalar, ScalarLike, as_float
from .criteria import Criterion, Pairs, criterion_pairs
from .sampler import Excess, Sampler, conclude, excess, one_matrix

ENUMERATED_UP_TO = 8  # responses: above, subsets are left out one response at a time
STEPS = 100

Rows = Float[Array, " M"]


def _checked(P: PreferenceLike, fraction: ScalarLike, criterion: str) -> tuple[Preference, Pairs, Scalar]:
    P = one_matrix(P)
    known = host_value(fraction)
    if known is not None and not 0 < known < 1:
        raise ValueError(f"`fraction` is {known}; it must be in (0, 1): a fraction of the best margin.")
    return P, criterion_pairs(P, criterion), as_float(fraction, P)


def _game(coefficients: Excess, pairs: Pairs, columns: Bool[Array, " K"]) -> Game:
    K = pairs.shape[0]
    rows = (pairs | ~jnp.any(pairs)).ravel()
    return solve_game(coefficients.reshape(K * K, K), rows, columns, jnp.zeros((), coefficients.dtype))


def _with_slope(x: Scalar, of: Scalar) -> Scalar:
    """`x` with the derivative of `of`."""
    return jax.lax.stop_gradient(x) + of - jax.lax.stop_gradient(of)


def _finished(
    mu: Policy, game: Game, otherwise: Policy, coefficients: Excess, pairs: Pairs, value: Scalar | None = None
) -> Sampler:
    """`mu` where the criterion can be met; else the least violating; `otherwise` where nothing is asked.

    The bound is the value of `game`, and `value` that of the game of which `mu` is an optimal strategy, if it is: pairs
    tie there, and the derivatives are those of the values.
    """
    K, none = pairs.shape[0], ~jnp.any(pairs)
    feasible = conclude(game.column, game.row.reshape(K, K), coefficients, pairs, jnp.zeros((), mu.dtype)).feasible
    mu = jnp.where(none, otherwise, jnp.where(feasible, mu, game.column))
    weights = jnp.where(none, 0.0, game.row.reshape(K, K))
    sampler = conclude(mu, weights, coefficients, pairs, jnp.zeros((), mu.dtype))
    met = sampler.margin if value is None else jnp.where(none, sampler.margin, _with_slope(sampler.margin, value))
    margin = jnp.where(none | feasible, met, _with_slope(sampler.margin, game.lower))
    bound = jnp.where(none, sampler.bound, _with_slope(sampler.bound, game.upper))
    return eqx.tree_at(lambda s: (s.margin, s.bound), sampler, (margin, bound))


@jax.jit
def _sparsest(P: Preference, pairs: Pairs, fraction: Scalar) -> Sampler:
    K = P.shape[0]
    coefficients = excess(P, P)
    everything = jnp.ones(K, bool)
    if K <= ENUMERATED_UP_TO:
        codes = np.arange(1, 2**K)
        supports = jnp.asarray((codes[:, None] >> np.arange(K)[None]) % 2 == 1)
        games = jax.vmap(lambda columns: _game(coefficients, pairs, columns))(supports)
        full = jax.tree.map(lambda leaf: leaf[-1], games)
        enough = games.lower >= fraction * full.lower
        sizes = jnp.sum(supports, axis=1).astype(P.dtype)
        # Among the smallest the one with the largest margin, which adds less than one response.
        key = jnp.where(enough, sizes - 0.5 * games.lower / jnp.where(full.lower > 0, full.lower, 1.0), jnp.inf)
        mu, value = games.column[jnp.argmin(key)], games.lower[jnp.argmin(key)]
    else:
        full = _game(coefficients, pairs, everything)

        def drop(columns: Bool[Array, " K"], _: None) -> tuple[Bool[Array, " K"], None]:
            fewer = columns[None] & ~jnp.eye(K, dtype=bool)
            possible = columns & (jnp.sum(columns) > 1)
            fewer = jnp.where(possible[:, None], fewer, everything[None])
            lower = jnp.where(possible, jax.vmap(lambda c: _game(coefficients, pairs, c).lower)(fewer), -jnp.inf)
            best = jnp.argmax(lower)
            return jnp.where(lower[best] >= fraction * full.lower, fewer[best], columns), None

        columns, _ = jax.lax.scan(drop, everything, None, length=K - 1)
        chosen = _game(coefficients, pairs, columns)
        mu, value = chosen.column, chosen.lower
    return _finished(mu, full, jnp.full(K, 1 / K, P.dtype), coefficients, pairs, value)


@renamed_keywords("0.3", share="fraction")
def sparsest_sampler(
    P: PreferenceLike, criterion: Criterion = "smith", *, fraction: ScalarLike = 0.5, throw: bool = True
) -> Sampler:
    r"""A sampling distribution on as few responses as keep a given fraction of the best margin.

    Up to K = 8 the smallest support there is, by solving the game on all \(2^K - 1\) of them; among the smallest, the
    one with the largest margin. Above, responses are left out one at a time, each time the one that costs least: none
    of those that are left can be spared, but a smaller support of other responses is not excluded.

    - `P`, `criterion`, `throw`: as in `design_sampler`. - `fraction`: of the best margin to keep, in (0, 1).

    First derivatives in P are those of `margin` and `bound`, while the support stays; `mu` has one where it is the only
    optimum on its support.

    Returns a `Sampler` without full support: the scores \(P\mu\) and the game form of IPO remain defined, the
    regression form says nothing of responses never drawn. `bound` and `certificate` are those of the best margin.
    Vacuous criteria give the uniform distribution.

    >>> import ipodyn
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.1)
    >>> [round(float(m), 6) for m in ipodyn.sparsest_sampler(P, "condorcet").mu]
    [1.0, 0.0, 0.0]
    """
    P, pairs, fraction = _checked(P, fraction, criterion)
    sampler = _sparsest(P, pairs, fraction)
    return throw_unless_successful(sampler, sampler.result) if throw else sampler


class _Dual(NamedTuple):
    """min KL(x || near), B x >= margin, by its dual: max over y >= 0 of margin sum(y) - log sum near exp(B^T y).

    The minimiser is x = near exp(B^T y), normalised: a Newton step in y meets the logarithm as it is, not its tangent.
    """

    B: Float[Array, "M K"]
    rows: Bool[Array, " M"]
    near: Policy
    margin: Scalar

    def logits(self, y: Rows) -> Policy:
        return jnp.log(self.near) + self.B.T @ y

    def value(self, y: Rows) -> Scalar:
        return self.margin * jnp.sum(y) - jax.nn.logsumexp(self.logits(y))

    def slack(self, y: Rows) -> Rows:
        return self.B @ jax.nn.softmax(self.logits(y)) - self.margin

    def spread(self, y: Rows) -> Float[Array, "M K"]:
        """A root of the slope of the slack: spread @ spread.T = B S B^T, S = diag(x) - x x^T."""
        x = jax.nn.softmax(self.logits(y))
        root = jnp.sqrt(x)
        return self.B * root[None] - (self.B @ x)[:, None] * root[None]

    def step(self, y: Rows, tau: Scalar) -> tuple[Rows, Scalar]:
        """Newton's direction for the value plus tau sum(log y), and its decrement."""
        surplus, spread = self.slack(y), self.spread(y)
        y = jnp.where(self.rows, y, 1.0)
        gradient = jnp.where(self.rows, tau / y - surplus, 0.0)
        D = tau / y**2
        scaled = jnp.where(self.rows, 1 / D, 0.0)
        inner = jnp.eye(spread.shape[1], dtype=y.dtype) + (spread * scaled[:, None]).T @ spread
        first = scaled * gradient
        dy = first - scaled * (spread @ factored(inner).solve((spread.T @ first)[:, None])[:, 0])
        return dy, jnp.sum(gradient * dy)

    def follow(self, y: Rows, change: Rows) -> Rows:
        """How y moves on the central path as the slack s changes by `change` at fixed y: y ds + s dy = 0.

        Without dividing by the products y s, which have almost vanished: held constraints get y B S B^T dy = -y change,
        free ones dy = 0.
        """
        s, spread = jnp.maximum(self.slack(y), 0.0), self.spread(y)
        size = jnp.where(self.rows, s + y, 1.0)  # every row of order 1
        free, held = (jnp.where(self.rows, part / size, at) for part, at in ((s, 1.0), (y, 0.0)))
        return jnp.linalg.solve(jnp.diag(free) + held[:, None] * (spread @ spread.T), -held * change)

    def solve(self) -> tuple[Rows, Scalar]:
        """y on the central path, and its tau; a fixed number of steps."""
        sizes = 0.5 ** np.arange(8)
        count = jnp.sum(self.rows).astype(self.B.dtype)
        least = float(jnp.finfo(self.B.dtype).eps) ** 0.75

        def move(carry: tuple[Rows, Scalar], _: None) -> tuple[tuple[Rows, Scalar], None]:
            y, tau = carry
            dy, decrement = self.step(y, tau)
            shrinks = self.rows & (dy < 0)
            longest = jnp.min(jnp.where(shrinks, -y / jnp.where(shrinks, dy, -1.0), jnp.inf))
            tries = y[None] + (jnp.minimum(1.0, 0.95 * longest) * sizes.astype(y.dtype))[:, None] * dy[None]
            logs = jnp.sum(jnp.where(self.rows[None], jnp.log(jnp.where(self.rows[None], tries, 1.0)), 0.0), axis=1)
            heights = jax.vmap(self.value)(tries) + tau * logs
            new = tries[jnp.argmax(jnp.where(jnp.isfinite(heights), heights, -jnp.inf))]
            new = jnp.where(jnp.all(jnp.isfinite(new)), new, y)
            return (new, jnp.where(decrement < 0.3 * tau, jnp.maximum(0.1 * tau, least), tau)), None

        start = jnp.where(self.rows, 1 / count, 0.0), jnp.full((), 0.1, self.B.dtype)
        return jax.lax.scan(move, start, None, length=STEPS)[0]


@jax.custom_jvp
def _central(B: Float[Array, "M K"], rows: Bool[Array, " M"], near: Policy, margin: Scalar) -> Rows:
    """The multipliers y >= 0 of `_Dual`, as a function of its equations to JAX too."""
    dual = _Dual(B, rows, near, margin)
    y, tau = dual.solve()
    last = y + dual.step(y, tau)[0]
    return jnp.where(jnp.all(last >= 0) & jnp.all(jnp.isfinite(last)), last, jnp.maximum(y, 0.0))


@_central.defjvp
def _central_jvp(primals, tangents):
    """Along the central path with the products y s held: s dy + y ds = 0, s the slack."""
    B, rows, near, margin = primals
    dB, _, dnear, dmargin = tangents
    y = _central(*primals)
    change = jax.jvp(lambda *at: _Dual(at[0], rows, *at[1:]).slack(y), (B, near, margin), (dB, dnear, dmargin))[1]
    return y, _Dual(*primals).follow(y, change)


@jax.jit
def _closest(P: Preference, pairs: Pairs, near: Policy, fraction: Scalar) -> tuple[Sampler, Scalar]:
    K = P.shape[0]
    coefficients = excess(P, P)
    game = _game(coefficients, pairs, jnp.ones(K, bool))
    B, rows = coefficients.reshape(K * K, K), pairs.ravel()
    feasible = (game.lower > 0) & jnp.any(rows)
    value = jnp.where(feasible, game.lower, 1.0)
    # Where there is nothing to ask the same programme runs, with margins that hold everywhere.
    dual = _Dual(B, rows | ~feasible, near, jnp.where(feasible, fraction * value, -2.0))
    y = _central(*dual)
    x = jax.nn.softmax(dual.logits(y))
    mu = jnp.where(feasible, x, near)
    # Weak duality: for every y >= 0 no admissible distribution is closer than this.
    # A point just outside may seem closer than that: how far outside it is counts as well.
    short = dual.margin - jnp.min(jnp.where(rows, B @ x, jnp.inf))
    gap = jnp.where(feasible, jnp.maximum(jnp.abs(kl_divergence(x, near) - dual.value(y)), short), 0.0)
    return _finished(mu, game, near, coefficients, pairs), jax.lax.stop_gradient(gap)


class ClosestSampler(eqx.Module):
    """What `closest_sampler` found.

    - `sampler`: the `Sampler`. - `kl` (): KL(mu || near) in nats. - `gap` (): no admissible distribution has a
      divergence below `kl` - `gap`, and the margin falls short of what was asked by at most `gap`.
    """

    sampler: Sampler
    kl: Scalar
    gap: Scalar

    @property
    def result(self) -> RESULTS:
        """That of the sampler."""
        return self.sampler.result


@renamed_keywords("0.3", share="fraction")
def closest_sampler(
    P: PreferenceLike,
    criterion: Criterion = "smith",
    *,
    near: PolicyLike | None = None,
    fraction: ScalarLike = 0.5,
    throw: bool = True,
) -> ClosestSampler:
    r"""The least skewed sampling distribution: the closest to a given one that keeps a fraction of the best margin.

    \(\min_\mu \mathrm{KL}(\mu \,\|\, \nu)\) subject to \((P\mu)_i - (P\mu)_j \ge\) `fraction` times the best margin:
    convex, with \(\mu \propto \nu \exp(B^\top y)\) at the optimum, y >= 0 on the pairs.

    - `P`, `criterion`, `throw`: as in `design_sampler`. - `near`: shape (K,), positive; None is uniform.
    - `fraction`: in (0, 1). At 1 the margin is the best and no choice is left; near it the support is nearly lost.

    Returns a `ClosestSampler` with a certified duality gap. Its sampler has full support, and its `bound` is the best
    margin. Vacuous criteria give `near`. Raises `RESULTS.max_steps_reached` where the gap is above eps^0.5 (1.5e-8, or
    3.5e-4 in float32), and else as `design_sampler`.

    First derivatives in P, `near` and `fraction`, by the implicit function theorem on the optimality conditions,
    wherever the same constraints stay active (elsewhere `mu` has a kink, and they are one side's); those of `gap` are
    0.

    >>> import ipodyn
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.1)
    >>> closest = ipodyn.closest_sampler(P, "condorcet", fraction=0.5)
    >>> round(float(closest.sampler.margin), 6), bool(closest.gap < 1e-9)
    (0.05, True)
    """
    P, pairs, fraction = _checked(P, fraction, criterion)
    K = P.shape[0]
    reference = jnp.full(K, 1 / K, P.dtype) if near is None else as_float(near, P)
    if not isinstance(reference, Tracer) and not bool(np.all(np.asarray(reference) > 0)):
        raise ValueError(f"`near` is {reference}; every response needs a positive probability.")
    reference = reference / jnp.sum(reference)
    sampler, gap = _closest(P, pairs, reference, fraction)
    settled = choose(gap <= jnp.sqrt(jnp.finfo(P.dtype).eps), sampler.result, RESULTS.max_steps_reached)
    sampler = eqx.tree_at(lambda s: s.result, sampler, settled)
    closest = ClosestSampler(sampler, kl_divergence(sampler.mu, reference), gap)
    return throw_unless_successful(closest, settled) if throw else closest
