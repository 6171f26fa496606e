"""Sampling distributions designed for one instance: the ranking guarantees that no fixed distribution gives."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics.checks import host_value
from .._numerics.matrix_game import solve_game
from .._numerics.matrix_game_highs import highs_game
from .._numerics.results import RESULTS, choose, throw_unless_successful
from .._numerics.types import Policy, Preference, PreferenceLike, Scalar, ScalarBlock, ScalarLike, as_float
from .._preferences.structure import as_matrix
from .criteria import Criterion, Pairs, criterion_pairs

UNIFORM_SHARE = 0.05  # of the mass, and of the best margin, that the default floor may take
Excess = Float[Array, "K K K"]  # [i, j, k]: how much a unit of mass on k puts i above j


class Sampler(eqx.Module):
    """What `design_sampler` found.

    - `mu` (K,): the sampling distribution; where `feasible` is false, the one that violates the criterion least.
    - `margin` (): the smallest score difference \\((P\\mu)_i - (P\\mu)_j\\) over the pairs that the criterion names, in
      probability; computed from `mu`, so true whatever the solver did. +inf where it names none.
    - `feasible` (): whether the margin is positive beyond rounding. - `vacuous` (): the criterion names no pair.
    - `bound` (): no distribution with this `floor` has a larger margin. - `floor` (): the least mass of a response.
    - `gap` (): `bound` - `margin`, all that `mu` can fall short of the best.
    - `certificate` (K, K): weights w >= 0 on the pairs (i above j), of sum 1, which prove the bound: it is the largest
      \\(\\sum_{ij} w_{ij} ((P\\mu)_i - (P\\mu)_j)\\) over those distributions. Where that is not positive none of them
      meets the criterion; without a floor, \\(\\sum_{ij} w_{ij} (P_{ik} - P_{jk}) \\le 0\\) for every k.
    - `result`: `RESULTS.successful`, `unattainable` (the certificate proves it) or `undecided`.
    """

    mu: Policy
    margin: Scalar
    feasible: Bool[Array, ""]
    vacuous: Bool[Array, ""]
    bound: Scalar
    floor: Scalar
    certificate: Float[Array, "K K"]
    result: RESULTS

    @property
    def gap(self) -> ScalarBlock:
        """How much larger the margin of the best distribution can be: some roundings in float64, up to about 1e-3 of
        the largest score difference in float32, 0 where the criterion names no pair."""
        return jnp.where(self.vacuous, 0.0, self.bound - jnp.where(self.vacuous, 0.0, self.margin))


def excess(lower: Preference, upper: Preference) -> Excess:
    """The coefficients of the margins, in the worst case over lower <= P <= upper (both P where it is known).

    The box is that of complementary matrices, lower + upper.T = 1 with diagonals 1/2, so that the entry that the two
    rows share, k = i and k = j, takes one and the same worst value in both.
    """
    return lower[:, None, :] - upper[None, :, :]


def with_floor(coefficients: Excess, floor: Scalar) -> Excess:
    """The same margins as functions of x, with mu = floor + (1 - K floor) x: again linear on the simplex."""
    K = coefficients.shape[-1]
    return (1 - K * floor) * coefficients + floor * jnp.sum(coefficients, axis=-1, keepdims=True)


def default_floor(value: Scalar, uniform: Scalar, K: int) -> Scalar:
    """A floor that costs at most `UNIFORM_SHARE` of the best margin `value`; `uniform` is the margin of uniform mu."""
    ratio = value / jnp.where(value > uniform, value - uniform, 1.0)
    return jnp.where(value > 0, UNIFORM_SHARE / K * jnp.where(value > uniform, jnp.minimum(1.0, ratio), 1.0), 0.0)


def conclude(mu: Policy, weights: Float[Array, "K K"], coefficients: Excess, pairs: Pairs, floor: Scalar) -> Sampler:
    """Margin, bound and verdict from the two strategies, with no trust in the solver."""
    eps, K = float(jnp.finfo(mu.dtype).eps), mu.shape[0]
    vacuous = ~jnp.any(pairs)
    margin = jnp.min(jnp.where(pairs, coefficients @ mu, jnp.inf))
    reach = jnp.einsum("ij,ijk->k", weights, coefficients)
    bound = jnp.where(vacuous, jnp.inf, floor * jnp.sum(reach) + (1 - K * floor) * jnp.max(reach))
    size = jnp.max(jnp.where(pairs[:, :, None], jnp.abs(coefficients), 0.0))
    feasible = vacuous | (margin > 2 * K * eps * size)  # more than the rounding of the margin itself
    result = choose(bound <= eps ** (2 / 3) * size, RESULTS.unattainable, RESULTS.undecided)
    result = choose(feasible, RESULTS.successful, result)
    return Sampler(mu, margin, feasible, vacuous, bound, floor, weights, result)


def design(coefficients: Excess, pairs: Pairs, floor: Scalar, smoothing: Scalar) -> Sampler:
    """The sampler with the largest margin, by the interior-point method; one instance. A NaN `floor` is the default."""
    K = pairs.shape[0]
    dtype = coefficients.dtype
    rows = (pairs | ~jnp.any(pairs)).ravel()
    columns = jnp.ones(K, bool)
    uniform = jnp.min(jnp.where(pairs, jnp.mean(coefficients, axis=-1), jnp.inf))

    def stage(carry, _):
        floor, _, _, _ = carry
        game = solve_game(with_floor(coefficients, floor).reshape(K * K, K), rows, columns, smoothing)
        mu = floor + (1 - K * floor) * game.column
        after = jnp.where(automatic, default_floor(game.lower, uniform, K), floor)
        return (after, mu, game.row.reshape(K, K), game.lower), floor

    # Twice the same programme, compiled once: without a floor, then with the floor that this margin allows.
    automatic, zero = jnp.isnan(floor), jnp.zeros((), dtype)
    start = (jnp.where(automatic, 0.0, floor), jnp.zeros(K, dtype), jnp.zeros((K, K), dtype), zero)
    (_, mu, weights, value), floors = jax.lax.scan(stage, start, None, length=2)
    floor, none = floors[1], ~jnp.any(pairs)
    mu = jnp.where(none, 1 / K, mu)
    weights = jnp.where(none, 0.0, weights)
    sampler = conclude(mu, weights, coefficients, pairs, floor)
    # Without smoothing both are the game's value, up to rounding; many pairs tie there, and the derivative is that of
    # the value, by the envelope theorem. On the central path each is differentiated as what it is.
    slope = jnp.where(none, 0.0, value - jax.lax.stop_gradient(value))
    optimal = [jax.lax.stop_gradient(bound) + slope for bound in (sampler.margin, sampler.bound)]
    both = [jnp.where(smoothing > 0, x, y) for x, y in zip((sampler.margin, sampler.bound), optimal, strict=True)]
    return eqx.tree_at(lambda s: (s.margin, s.bound), sampler, tuple(both))


def requested_floor(floor: ScalarLike | None, P: Preference) -> Scalar:
    """The floor in the dtype of `P`, NaN for the default. Where its value is known it must leave room."""
    K, known = P.shape[0], None if floor is None else host_value(floor)
    if known is not None and not 0 <= known < 1 / K:
        raise ValueError(f"`floor` is {known}; it must be in [0, 1 / K), here [0, {1 / K}).")
    return as_float(float("nan") if floor is None else floor, P)


def design_on_host(coefficients: np.ndarray, pairs: np.ndarray, floor: float | None) -> Sampler:
    """`design` by HiGHS: vertices, exact up to rounding."""
    K = len(pairs)
    if not pairs.any():
        mu, weights = np.full(K, 1 / K), np.zeros((K, K))
        floor = UNIFORM_SHARE / K if floor is None else floor
    else:

        def solve(floor: float) -> tuple[np.ndarray, np.ndarray, float]:
            game = (1 - K * floor) * coefficients + floor * coefficients.sum(axis=-1, keepdims=True)
            column, row = highs_game(game.reshape(K * K, K), pairs.ravel())
            mu = floor + (1 - K * floor) * column
            return mu, row.reshape(K, K), float((coefficients @ mu)[pairs].min())

        if floor is None:
            value = jnp.asarray(solve(0.0)[2])
            floor = float(default_floor(value, jnp.asarray(coefficients.mean(axis=-1)[pairs].min()), K))
        mu, weights, _ = solve(floor)
    arrays = [jnp.asarray(x) for x in (mu, weights, coefficients, pairs, floor)]
    return conclude(*(a if a.dtype == bool else a.astype(arrays[2].dtype) for a in arrays))


def one_matrix(P: PreferenceLike) -> Preference:
    """`P` as a floating (K, K) array of at least two responses, or a `ValueError` with its shape."""
    P = as_matrix(P)
    if P.shape[0] < 2:
        raise ValueError(f"`P` has shape {P.shape}: a sampler is designed for 2 responses or more.")
    return P


@jax.jit
def compiled_design(coefficients: Excess, pairs: Pairs, floor: Scalar, smoothing: Scalar) -> Sampler:
    """`design`, compiled once for each K whatever the criterion, for known and for uncertain P."""
    return design(coefficients, pairs, floor, smoothing)


def design_by(
    method: str, coefficients: Excess, pairs: Pairs, floor: Scalar, smoothing: Scalar, *, throw: bool
) -> Sampler:
    """The design by a method that the user names; a NaN `floor` is the default."""
    if method == "highs":
        least = float(floor)
        sampler = design_on_host(np.asarray(coefficients), np.asarray(pairs), None if math.isnan(least) else least)
    elif method == "jax":
        sampler = compiled_design(coefficients, pairs, floor, smoothing)
    else:
        raise ValueError(f"`method` is {method!r}; it must be 'jax' or 'highs'.")
    return throw_unless_successful(sampler, sampler.result) if throw else sampler


def design_sampler(
    P: PreferenceLike,
    criterion: Criterion = "smith",
    *,
    floor: ScalarLike | None = None,
    method: Literal["jax", "highs"] = "jax",
    smoothing: ScalarLike = 0.0,
    throw: bool = True,
) -> Sampler:
    r"""The sampling distribution under which IPO's scores meet a ranking criterion with the largest margin.

    \(\max_{\mu, t} t\) subject to \((P\mu)_i - (P\mu)_j \ge t\) for the pairs (i, j) of the criterion,
    \(\sum_k \mu_k = 1\), \(\mu_k \ge\) `floor`: a linear programme, and a matrix game of responses against pairs.

    - `P`: shape (K, K). One matrix; batch with `jax.vmap`, over thousands at once.
    - `criterion`: "condorcet", the Condorcet winner above all others; "smith", each member of the Smith set above each
      outsider; "order", i above j wherever \(P_{ij} > P_{ji}\) (ties ask nothing). Where it names no pair (no winner;
      the Smith set is everything; all ties) the result is uniform, feasible, and marked `vacuous`. The first two can
      always be met. An order cannot where the majority has a cycle, and sometimes where it has none.
    - `floor`: least mass of a response, in [0, 1 / K). None takes as much as costs at most 5 % of the best margin, and
      at most 0.05 / K: full support whenever the criterion can be met.
    - `method`: "jax" runs under `jit` and `vmap` and differentiates; "highs" is scipy's HiGHS on the host, one matrix.
    - `smoothing`: in probability; at tau > 0 `mu` is the point of the central path where each complementarity product
      is tau: unique and smooth in P, within K^2 tau of the best margin. For "jax".

    Derivatives in P, `floor` and `smoothing`, forward and backward: with `smoothing` > 0 exact for everything returned
    and of any order, by implicit differentiation of the central path. At 0 first derivatives alone: those of `margin`
    and `bound`, by the envelope theorem \(w\,\mu^\top\); those of `mu` and `certificate` only where the optimum is
    unique and stays so. Often it is not (a single pair that decides leaves its two responses interchangeable): then
    `mu` jumps, it has no derivative, and what comes out means nothing.

    Returns a `Sampler`. Raises where `result` is not successful, unless `throw` is False: `RESULTS.unattainable` with
    a certificate, `RESULTS.undecided` where the best margin is too near 0 for the dtype (about 4e-11, or 2e-5 in
    float32, of the largest score difference).

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima, ranking desiderata: such
    distributions exist. The linear programme and its certificate, by duality, are derived here; the method is that of
    Mehrotra, SIAM J. Optimization 2 (1992).

    >>> import ipodyn
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.1)  # uniform sampling puts response 1 on top
    >>> sampler = ipodyn.design_sampler(P, "condorcet", floor=0.01)
    >>> bool(sampler.feasible), int((P @ sampler.mu).argmax()), round(float(sampler.margin), 6)
    (True, 0, 0.096)
    """
    P = one_matrix(P)
    wanted, pairs = requested_floor(floor, P), criterion_pairs(P, criterion)
    return design_by(method, excess(P, P), pairs, wanted, as_float(smoothing, P), throw=throw)
