r"""The Bradley-Terry fit: the score map of DPO.

Scores r solve, for every response i,

    f_i(r) = sum_j mu_j (P_ij - sigmoid(r_i - r_j)) = 0,

the stationarity condition of the likelihood with pair weights mu_i mu_j, divided by mu_i, so that it also fixes the
score of a response of zero weight by continuity. Everything here has its batch axes behind.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._numerics.linear import solve, transitive_closure
from .._numerics.simplex import centred, matvec
from .._numerics.types import BoolBlock, IntBlock, PolicyBlock, PreferenceBlock, ScalarBlock

ROUNDINGS = 4  # of the terms of f: below this many, f is zero as far as the dtype can tell


class Fit(NamedTuple):
    """Scores with mean zero, the largest |f_i| at them, the Newton steps taken, and whether those sufficed."""

    score: PolicyBlock
    residual: ScalarBlock
    num_steps: IntBlock
    converged: BoolBlock


def damped(score: PolicyBlock, move: PolicyBlock) -> tuple[PolicyBlock, ScalarBlock]:
    """The scores, centred, after as much of a Newton step of a logistic loss as decreases it, and its full spread."""
    spread = jnp.max(move, axis=0) - jnp.min(move, axis=0)
    # The logistic loss is generalised self-concordant (|third derivative| <= second), for which a full step of spread
    # s decreases it where (exp(s) - s - 1) / s^2 < 1, up to s = 1.79, and the step log(1 + s) / s from everywhere: no
    # line search, the same program for every case. A ridge adds to the second derivative alone.
    far = spread > 1
    damping = jnp.where(far, jnp.log(1 + spread) / jnp.where(far, spread, 1.0), 1.0)
    return centred(score + damping[None] * move), spread


def damped_newton(
    step: Callable[[PolicyBlock], tuple[PolicyBlock, BoolBlock]], guess: PolicyBlock, max_steps: int
) -> tuple[PolicyBlock, BoolBlock, IntBlock]:
    """Steps until each case says that it is done: the scores, which of them are, and how many steps they took."""

    def unfinished(carry: tuple[PolicyBlock, BoolBlock, IntBlock]) -> Bool[Array, ""]:
        _, done, count = carry
        return jnp.any(~done & (count < max_steps))

    def improve(carry: tuple[PolicyBlock, BoolBlock, IntBlock]) -> tuple[PolicyBlock, BoolBlock, IntBlock]:
        score, done, count = carry
        following, converged = step(score)
        # A case that is done keeps its value: results must not depend on what else is in the batch.
        score = jnp.where(done[None], score, following)
        return score, done | converged, count + (~done).astype(jnp.int32)

    batch = guess.shape[1:]
    start = (guess, jnp.zeros(batch, bool), jnp.zeros(batch, jnp.int32))
    return jax.lax.while_loop(unfinished, improve, start)


def _win_rates(score: PolicyBlock) -> PreferenceBlock:
    return jax.nn.sigmoid(score[:, None] - score[None, :])


def _misfit(rates: PreferenceBlock, P: PreferenceBlock) -> PreferenceBlock:
    """P_ij - sigmoid(r_i - r_j), taken from the smaller of the two chances: it keeps its digits near 0 and 1."""
    upset = jnp.swapaxes(rates, 0, 1)
    return jnp.where(rates > 0.5, upset - jnp.swapaxes(P, 0, 1), P - rates)


def stationarity(score: PolicyBlock, P: PreferenceBlock, mu: PolicyBlock) -> PolicyBlock:
    """f(r), the row sums of mu_j (P_ij - sigmoid(r_i - r_j))."""
    return matvec(_misfit(_win_rates(score), P), mu)


def _newton_matrix(rates: PreferenceBlock, mu: PolicyBlock) -> PreferenceBlock:
    """-f'(r) + 1 mu^T: the row Laplacian with its gauge fixed to mu @ step = 0.

    Similar, by sqrt(mu), to a positive definite matrix whose smallest eigenvalue is at least the smallest slope of the
    sigmoid, however skewed mu is.
    """
    # rates.T in place of 1 - rates: a saturated sigmoid keeps a slope, and the matrix its rank.
    conductance = rates * jnp.swapaxes(rates, 0, 1) * mu[None]
    K = mu.shape[0]
    eye = jnp.eye(K, dtype=mu.dtype).reshape((K, K) + (1,) * (mu.ndim - 1))
    degree = jnp.sum(conductance, axis=1)
    return eye * degree[:, None] + (mu[None] - conductance)


def first_guess(P: PreferenceBlock, mu: PolicyBlock) -> PolicyBlock:
    """mu-weighted mean log-odds of each row: the exact scores when P is Bradley-Terry."""
    edge = jnp.sqrt(jnp.finfo(P.dtype).eps)
    inside = jnp.clip(P, edge, 1 - edge)
    return centred(matvec(jnp.log(inside) - jnp.log1p(-inside), mu))


def newton_step(P: PreferenceBlock, mu: PolicyBlock, score: PolicyBlock) -> tuple[PolicyBlock, BoolBlock]:
    """One damped Newton step from `score`, and whether that is where f vanishes, as far as the dtype can tell."""
    eps = float(jnp.finfo(P.dtype).eps)
    rates = _win_rates(score)
    misfit = _misfit(rates, P)
    error = matvec(misfit, mu)
    move = solve(_newton_matrix(rates, mu), error)
    # What rounding leaves of f: near 0 and 1 the scores are so poorly determined that steps never get small.
    rounding = matvec(jnp.abs(misfit) + jnp.minimum(rates, jnp.swapaxes(rates, 0, 1)), mu)
    exact = jnp.all(jnp.abs(error) <= ROUNDINGS * eps * rounding, axis=0)
    moved, spread = damped(score, move)
    # A full step of spread s leaves |f| <= s^2 max|sigmoid''| / 2 < s^2 / 20: here less than half a rounding of a
    # probability, and an error of the scores of about s^2 / 2. A failed one (NaN) is not small.
    return moved, exact | (spread <= (8 * eps) ** 0.5)


def _newton(P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock, max_steps: int) -> Fit:
    score, done, count = damped_newton(lambda score: newton_step(P, mu, score), guess, max_steps)
    residual = jnp.max(jnp.abs(stationarity(score, P, mu)), axis=0)
    return Fit(score, residual, count, done & (residual <= 64 * float(jnp.finfo(P.dtype).eps)))


@eqx.filter_custom_jvp
def _scores(P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock, *, max_steps: int) -> Fit:
    return _newton(P, mu, guess, max_steps)


@_scores.def_jvp
def _scores_jvp(primals, tangents, *, max_steps):
    """Implicit function theorem: (-f') dr = sum_j (dmu_j E_ij + mu_j dP_ij), gauge fixed as in Newton."""
    P, mu, guess = primals
    dP, dmu, _ = tangents
    fit = _scores(P, mu, guess, max_steps=max_steps)
    rates = _win_rates(fit.score)
    rhs = jnp.zeros_like(mu)
    if dP is not None:
        rhs = rhs + matvec(dP, mu)
    if dmu is not None:
        rhs = rhs + matvec(_misfit(rates, P), dmu)
    dscore = centred(solve(_newton_matrix(rates, mu), rhs))
    return fit, Fit(dscore, jnp.zeros_like(fit.residual), None, None)  # pyright: ignore[reportArgumentType]


def fit_scores(P: PreferenceBlock, mu: PolicyBlock, guess: PolicyBlock | None = None, *, max_steps: int = 60) -> Fit:
    """Maximum-likelihood Bradley-Terry scores by damped Newton steps, with the implicit derivative in P and mu.

    `guess` is where Newton starts: it saves steps and does not change the answer or its derivative. Whether a finite
    optimum exists is for `has_finite_scores` to say.
    """
    guess = first_guess(P, mu) if guess is None else guess
    return _scores(P, mu, jax.lax.stop_gradient(guess), max_steps=max_steps)


def has_finite_scores(P: PreferenceBlock, mu: PolicyBlock) -> BoolBlock:
    """Whether the comparison graph is strongly connected, so that the optimum is finite.

    Responses inside the support of mu must reach one another by wins against the support; one outside must both win
    and lose against some response inside.
    """
    K = mu.shape[0]
    inside = mu > 0
    wins = (P > 0) & inside[None]  # i has a chance against j, and j is sampled
    loses = (P < 1) & inside[None]
    eye = jnp.eye(K, dtype=bool).reshape((K, K) + (1,) * (mu.ndim - 1))
    reach = transitive_closure(wins & inside[:, None]) | eye
    connected = jnp.all(reach | ~(inside[:, None] & inside[None]), axis=(0, 1))
    off_diagonal = ~eye
    attached = jnp.any(wins & off_diagonal, axis=1) & jnp.any(loses & off_diagonal, axis=1)
    return connected & jnp.all(attached | inside, axis=0)
