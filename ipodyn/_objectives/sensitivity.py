"""How much a one-shot optimum depends on where its data were sampled, and how far P is from not depending on it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.results import RESULTS, throw_unless_successful
from .._numerics.simplex import log_policy, softmax
from .._numerics.types import PolicyBlock, PolicyLike, PreferenceBlock, PreferenceLike, Scalar, ScalarLike, as_float
from .._preferences.structure import as_matrix
from .dpo import DPO
from .objective import AbstractObjective, prepare


@eqx.filter_jit
def _score_and_slope(
    objective: AbstractObjective, P: PreferenceBlock, mu: PolicyBlock
) -> tuple[PolicyBlock, PreferenceBlock, RESULTS]:
    def score(mu: PolicyBlock) -> tuple[PolicyBlock, tuple[PolicyBlock, RESULTS]]:
        solution = objective.solve_score(P, mu)
        return solution.score, (solution.score, solution.result)

    # Forward: the objective's own implicit derivative, one linear system for all columns.
    slope, (value, result) = jax.jacfwd(score, has_aux=True)(mu)
    return value, slope, result


def sampling_sensitivity(
    objective: AbstractObjective,
    P: PreferenceLike,
    mu: PolicyLike,
    *,
    pi_ref: PolicyLike | None = None,
    beta: ScalarLike = 1.0,
    throw: bool = True,
) -> Float[Array, "K K"]:
    r"""How the optimum moves with the sampling distribution, \(D_{ik} = \partial\pi^*_i / \partial\mu_k\).

    \(D = \beta\, S(\pi^*)\, \partial r/\partial\mu\) with \(S(\pi) = \mathrm{diag}(\pi) - \pi\pi^\top\) and, by the
    implicit function theorem, \(\partial r/\partial\mu = P\) for IPO and \(L^+ \mathrm{diag}(\mu) E\) for DPO, where
    \(E_{ij} = P_{ij} - \sigma(r_i - r_j)\) is the misfit of the Bradley-Terry scores and L the Laplacian of the weights
    \(\mu_i\mu_j\sigma'(r_i - r_j)\).

    - `objective`: `IPO()` or `DPO()`. - `P`: shape (K, K). - `mu`: shape (K,), the sampling distribution.
    - `pi_ref`: shape (K,), the reference; None is uniform. - `beta` > 0.
    - `throw`: raise where no finite score exists (DPO only); False returns NaN there.

    Returns shape (K, K). It acts on changes of mu that sum to zero; its columns sum to zero. For DPO it vanishes (for
    one mu, then for all) exactly if P is Bradley-Terry: with ||.|| the largest singular value on changes that sum to
    zero, \(\|D\| \ge 2\beta \min\pi^* \frac{\min\mu}{\max\mu} \frac{\max|E|}{1 + \sqrt K}\).

    Source: Chen, He, Jordan and Yao (arXiv 2602.12180), section on one-shot optima: DPO's optimum depends on mu
    unless P is Bradley-Terry. The derivative and the bound are derived here.

    >>> import ipodyn, jax.numpy as jnp
    >>> P, mu = ipodyn.problems.bradley_terry(jnp.array([1.0, 0.0, -1.0])), jnp.array([0.7, 0.2, 0.1])
    >>> float(jnp.abs(ipodyn.sampling_sensitivity(ipodyn.DPO(), P, mu)).max()) < 1e-12
    True
    >>> float(jnp.abs(ipodyn.sampling_sensitivity(ipodyn.IPO(), P, mu)).max()) > 0.05
    True
    """
    P, mu = prepare(as_matrix(P), mu)
    pi_ref = jnp.full_like(mu, 1 / mu.shape[0]) if pi_ref is None else prepare(P, pi_ref)[1]
    score, slope, result = _score_and_slope(objective, P, mu)
    ok = result == RESULTS.successful
    beta = as_float(beta, P)
    policy = softmax(log_policy(pi_ref) + beta * jnp.where(ok, score, 0.0))
    slope = jnp.where(ok, slope, jnp.nan)
    # S(policy) @ slope without forming S: the mean row is taken off, which loses no digits where all rows agree.
    sensitivity = beta * policy[:, None] * (slope - (policy @ slope)[None, :])
    return throw_unless_successful(sensitivity, result) if throw else sensitivity


def bradley_terry_distance(P: PreferenceLike, *, throw: bool = True) -> Scalar:
    r"""How far preferences are from Bradley-Terry: \(\max_{ij} |P_{ij} - \sigma(r_i - r_j)|\), a probability.

    r is the maximum-likelihood fit under uniform weights, the DPO score: the projection onto Bradley-Terry matrices in
    Kullback-Leibler divergence. Zero (up to rounding) exactly if P is Bradley-Terry; elsewhere the DPO optimum depends
    on sampling at least in proportion to it (`sampling_sensitivity`).

    - `P`: shape (K, K). - `throw`: raise where the fit is infinite, as some responses always win; False returns
      NaN there.

    For a test that needs no fit see `transitivity(P).bradley_terry_residual`, in log-odds.

    >>> import ipodyn, jax.numpy as jnp
    >>> round(float(ipodyn.bradley_terry_distance(ipodyn.problems.three_cycle(0.3))), 6)
    0.3
    """
    P = as_matrix(P)
    score = DPO().score(P, jnp.full(P.shape[0], 1 / P.shape[0], P.dtype), throw=throw)
    misfit = jnp.abs(P - jax.nn.sigmoid(score[:, None] - score[None, :])).ravel()
    return misfit[jnp.argmax(misfit)]  # entries tie, for K = 3 all: the derivative of one of them
