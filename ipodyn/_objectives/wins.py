"""Scores that a finite sample determines, given its wins W[i, j]: how often i beat j. Batch axes behind."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._numerics.linear import diagonal, laplacian, same_component, solve
from .._numerics.types import BoolBlock, PolicyBlock, PreferenceBlock, ScalarBlock
from .bradley_terry import damped, damped_newton

MAX_STEPS = 60  # damped Newton steps of the ridge fit; a handful suffice


class EmpiricalScore(eqx.Module):
    """Scores (K,) of counts of wins, and whether the solver got there (always, for IPO)."""

    score: PolicyBlock
    converged: BoolBlock


def least_squares_scores(wins: PreferenceBlock) -> PolicyBlock:
    """Minimum-norm solution r of L r = (wins - losses) / 2, L the Laplacian of the comparison counts."""
    counts = wins + jnp.swapaxes(wins, 0, 1)
    joined = same_component(counts > 0).astype(wins.dtype)
    # The null space of L is spanned by the indicators of its components: adding their projector, in the unit of the
    # counts, makes the system regular and leaves the minimum-norm solution what it is.
    projector = joined / jnp.sum(joined, axis=1, keepdims=True)
    unit = jnp.maximum(jnp.mean(jnp.sum(counts, axis=1), axis=0), 1.0)
    excess = (jnp.sum(wins, axis=1) - jnp.sum(wins, axis=0)) / 2
    return solve(laplacian(counts) + unit[None, None] * projector, excess)


def _ridge_slope(score: PolicyBlock, wins: PreferenceBlock, ridge: ScalarBlock) -> PolicyBlock:
    """The derivative in r of sum_ij W_ij log sigmoid(r_i - r_j) - ridge / 2 |r|^2."""
    counts = wins + jnp.swapaxes(wins, 0, 1)
    rates = jax.nn.sigmoid(score[:, None] - score[None])
    return jnp.sum(wins, axis=1) - jnp.sum(counts * rates, axis=1) - ridge[None] * score


def _ridge_bend(score: PolicyBlock, wins: PreferenceBlock, ridge: ScalarBlock) -> PreferenceBlock:
    """Minus the second derivative: the Laplacian of the slopes, plus the ridge."""
    counts = wins + jnp.swapaxes(wins, 0, 1)
    rates = jax.nn.sigmoid(score[:, None] - score[None])
    ridges = diagonal(jnp.broadcast_to(ridge[None], score.shape))
    return laplacian(counts * rates * jnp.swapaxes(rates, 0, 1)) + ridges


@jax.custom_jvp
def _ridge_fit(wins: PreferenceBlock, ridge: ScalarBlock, guess: PolicyBlock) -> tuple[PolicyBlock, BoolBlock]:
    enough = float(jnp.finfo(wins.dtype).eps) ** 0.5

    def step(score: PolicyBlock) -> tuple[PolicyBlock, BoolBlock]:
        move = solve(_ridge_bend(score, wins, ridge), _ridge_slope(score, wins, ridge))
        moved, spread = damped(score, move)
        return moved, spread <= enough

    score, done, _ = damped_newton(step, guess, MAX_STEPS)
    return score, done


@_ridge_fit.defjvp
def _ridge_fit_jvp(primals, tangents):
    """Implicit function theorem: bend dr = what the change of counts and ridge makes of the slope at fixed r."""
    wins, ridge, guess = primals
    score, done = _ridge_fit(wins, ridge, guess)
    _, pushed = jax.jvp(lambda *at: _ridge_slope(score, *at), (wins, ridge), tuple(tangents[:2]))
    dscore = solve(_ridge_bend(score, wins, ridge), pushed)
    return (score, done), (dscore, jnp.zeros(done.shape, jax.dtypes.float0))


def ridge_scores(wins: PreferenceBlock, ridge: ScalarBlock, guess: PolicyBlock | None = None) -> EmpiricalScore:
    """Maximiser r of sum_ij W_ij log sigmoid(r_i - r_j) - ridge / 2 |r|^2, by damped Newton steps.

    Its derivative, by the implicit function theorem, is that in the counts and the ridge; `guess` changes nothing.
    """
    guess = jnp.zeros_like(jnp.sum(wins, axis=1)) if guess is None else guess
    return EmpiricalScore(*_ridge_fit(wins, ridge, jax.lax.stop_gradient(guess)))
