"""How far sampling noise keeps a loop from its fixed point, and how many labels keep it near."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._loops.mrs import MRS
from .._numerics.checks import check_positive
from .._numerics.results import RESULTS
from .._numerics.simplex import mixture, tangent_basis
from .._numerics.types import Scalar, ScalarLike, as_float
from .certificate import solve_certificate
from .covariance import score_noise, solve_lyapunov
from .fixed_point import solve_fixed_point
from .stability import solve_stability, tangent_jacobian

DEFICITS = np.linspace(0.02, 0.9, 45)  # of the counts from their mean, among which the bound chooses
HALVINGS = 80
MOST_PAIRS = 1e18


class NoiseFloor(eqx.Module):
    r"""The distance \(E\,KL(\pi^*\|\pi)\) that a loop on finite samples keeps, in nats.

    - `kl` (): its first order in 1 / num_pairs, an estimate; inf where the fixed point is not stable.
    - `bound` (): what it never exceeds, on average over samples; inf where nothing is proved.
    """

    kl: Scalar
    bound: Scalar


class SampleSize(eqx.Module):
    """Labelled pairs a round that keep a loop near its fixed point; real numbers, to be rounded up.

    - `pairs` (): by the first order, an estimate; inf where the fixed point is not stable.
    - `bound_pairs` (): with which it is proved; inf where nothing is.
    """

    pairs: Scalar
    bound_pairs: Scalar


def _first_order(loop: MRS) -> Scalar:
    """tr(S Sigma) / 2 of one pair a round, Sigma = J Sigma J^T + Q."""
    star = solve_fixed_point(loop)
    mu = mixture(loop.lam, star.policy, loop.pi_0)
    K = mu.shape[0]
    known = (star.result == RESULTS.successful) & jnp.all(mu > 0)
    known = known & solve_stability(loop, star.policy).stable
    noise = loop.beta**2 * score_noise(loop, jnp.where(known, mu, 1 / K))
    J = jnp.where(known, tangent_jacobian(loop, star.policy), 0.0)
    Q = tangent_basis(K, mu.dtype)
    S = jnp.diag(star.policy) - star.policy[:, None] * star.policy[None]
    return jnp.where(known, jnp.sum((Q.T @ S @ Q) * solve_lyapunov(J, noise)) / 2, jnp.inf)


class _Worst(eqx.Module):
    """What the bound is made of: the least share of a response, the noise of a pair, the worst error, 1 - sqrt(p)."""

    least: Scalar
    noise: Scalar
    worst: Scalar
    slack: Scalar
    K: int = eqx.field(static=True)

    @classmethod
    def of(cls, loop: MRS) -> "_Worst":
        K = loop.P.shape[0]
        gaps = loop.P[:, None] - loop.P[None]  # P_ik - P_jk, of which a sampler takes a mean over k
        ends = jnp.stack([jnp.min(gaps, axis=2), jnp.max(gaps, axis=2)])
        noise = 0.25 - (2 * loop.P - 1)[None] * ends + ends**2
        # Taken by its place: the derivative of a maximum looks for entries equal to it, and finds none where a compiler
        # computes the two with different roundings.
        noise = jnp.where(jnp.eye(K, dtype=bool)[None], 0.0, noise).reshape(-1)
        noise = noise[jnp.argmax(jax.lax.stop_gradient(noise))]
        worst = loop.beta * K**0.5 * ((K - 1) / 4 + 1 / 2)
        gain = solve_certificate(loop).gain
        squared = loop.alpha**2 + gain**2
        slack = 1 - jnp.sqrt(jnp.where(squared > 0, squared, 0.0) + jnp.finfo(squared.dtype).tiny)
        return cls((1 - loop.lam) * jnp.min(loop.pi_0), loop.beta**2 * noise, worst, slack, K)

    def bound(self, num_pairs: Scalar) -> Scalar:
        known = (self.slack > 0) & (self.least > 0)
        least, slack = jnp.where(known, self.least, 1.0), jnp.where(known, self.slack, 1.0)
        deficits = jnp.asarray(DEFICITS, num_pairs.dtype)
        rest = 1 - deficits
        usual = (self.K - 1) * self.noise / (2 * num_pairs * least * rest**2)
        exponent = num_pairs * least * (deficits + rest * jnp.log(rest))
        rare = jnp.minimum((self.K - 1) * jnp.exp(-exponent), 1.0)
        errors = usual + rare * self.worst**2
        error = errors[jnp.argmin(jax.lax.stop_gradient(errors))]
        return jnp.where(known, error / (4 * slack**2), jnp.inf)


def _bound(loop: MRS, num_pairs: Scalar) -> Scalar:
    if not loop.objective.is_linear:
        return jnp.full_like(num_pairs, jnp.inf)
    return _Worst.of(loop).bound(num_pairs)


@eqx.filter_jit
def _noise_floor(loop: MRS, num_pairs: Float[Array, ""]) -> NoiseFloor:
    return NoiseFloor(_first_order(loop) / num_pairs, _bound(loop, num_pairs))


def noise_floor(loop: MRS, *, num_pairs: ScalarLike) -> NoiseFloor:
    r"""How far from its fixed point a loop stays that trains on `num_pairs` labelled pairs a round.

    `kl`, to first order in 1 / n: \(\tfrac12 tr(S(\pi^*)\Sigma)\) with Sigma the `stationary_covariance` of the logits.
    For lam = 1 it is near \(\beta^2(K - 1)/(16 n (1 - \rho^2))\), rho the spectral radius.

    `bound`, for MRS-IPO by least squares as in `finite_rollout`, started at the fixed point or run for long: where the
    loop is certified, p = alpha^2 + b^2 < 1 (`convergence_certificate`), and every response keeps a share
    m = (1 - lam) min pi_0 > 0 of the data, \(E\,KL \le V/(4(1-\sqrt p)^2)\), V a bound on the mean squared error of a
    round's logits at any policy. Proof. With an error e the proof of the certificate gives
    KL' <= sqrt(p) KL + |e|^2 / (4 (1 - sqrt(p))). Let L be the Laplacian of the counts, of mean 2 n S(mu), and S >= m.
    Where L >= 2 n (1 - d) S, the mean of |e|^2 is at most (K - 1) c^2 / (2 n m (1 - d)^2), c^2 the worst mean square of
    a pair's residual; elsewhere, with probability at most (K - 1) exp(-n m (d + (1 - d) log(1 - d))) by the matrix
    Chernoff inequality, pairs may never have been drawn and the error, bias included, is at most
    beta sqrt(K) (K + 1) / 4, because least squares leaves no gap above beta / 2 in the order of compared responses.

    - `num_pairs` > 0: labelled pairs a round; may be traced.

    Returns a `NoiseFloor`. The bound is crude: orders of magnitude above the estimate. Source: derived here; the
    inequality: Tropp, arXiv 1004.4389, theorem 1.1.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=0.5)
    >>> found = ipodyn.noise_floor(loop, num_pairs=1000)
    >>> round(float(found.kl) * 1000, 4)  # tr(Q) / 6 / (1 - rho^2), tr(Q) = 3/4, rho^2 = 0.2575
    0.1684
    >>> bool(found.kl < found.bound)
    True
    """
    if not eqx.is_array(num_pairs):
        check_positive(num_pairs, "num_pairs", "it is a number of labelled pairs")
    return _noise_floor(loop, as_float(num_pairs, loop.P))


@eqx.filter_jit
def _sample_size(loop: MRS, kl: Float[Array, ""]) -> SampleSize:
    return SampleSize(_first_order(loop) / kl, _bound_pairs(loop, kl))


def _bound_pairs(loop: MRS, kl: Scalar) -> Scalar:
    """Where the bound, which falls with the number of pairs, crosses kl: bisection of the logarithm."""
    if not loop.objective.is_linear:
        return jnp.full_like(kl, jnp.inf)
    worst = _Worst.of(loop)

    def height(log_pairs: Scalar) -> Scalar:
        bound = worst.bound(jnp.exp(log_pairs))
        return jnp.log(jnp.where(jnp.isfinite(bound) & (bound > 0), bound, 1.0)) - jnp.log(kl)

    def halve(_: Any, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        middle = (ends[0] + ends[1]) / 2
        below = height(middle) <= 0
        return jnp.where(below, ends[0], middle), jnp.where(below, middle, ends[1])

    fixed = jax.lax.stop_gradient
    ends = (jnp.zeros_like(kl), jnp.full_like(kl, np.log(MOST_PAIRS)))
    root = fixed(jax.lax.fori_loop(0, HALVINGS, halve, jax.tree.map(fixed, ends))[1])
    slope = fixed(jax.grad(height)(root))
    excess = height(root)
    # The value of the root, with the derivative of the implicit function theorem.
    moved = root - (excess - fixed(excess)) / jnp.where(slope < 0, slope, -1.0)
    known = jnp.isfinite(worst.bound(jnp.exp(root))) & (root < 0.999 * np.log(MOST_PAIRS))
    return jnp.where(known, jnp.exp(moved), jnp.inf)


def sample_size(loop: MRS, kl: ScalarLike) -> SampleSize:
    r"""How many labelled pairs a round keep the mean of \(KL(\pi^*\|\pi)\) at most `kl`.

    The inverses of the two parts of `noise_floor`: an estimate, and a number with which it is proved. They fall as
    1 / kl.

    - `kl` > 0: in nats; may be traced.

    Returns a `SampleSize`. `bound_pairs` has first derivatives only. Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=0.5)
    >>> found = ipodyn.sample_size(loop, 0.01)
    >>> round(float(found.pairs), 1), bool(found.pairs < found.bound_pairs)
    (16.8, True)
    """
    if not eqx.is_array(kl):
        check_positive(kl, "kl", "it is a distance in nats")
    return _sample_size(loop, as_float(kl, loop.P))
