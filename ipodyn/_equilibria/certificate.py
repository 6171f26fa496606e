"""Proofs that a loop converges: from every start, with a rate, or near its fixed point without knowing it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._loops.loop import start_policy
from .._loops.mrs import MRS
from .._numerics.checks import check_positive
from .._numerics.results import RESULTS
from .._numerics.simplex import kl_divergence, mixture, supported
from .._numerics.skew import safe_sqrt, skew_part, squared_frequencies
from .._numerics.types import BoolBlock, PolicyBlock, PreferenceBlock, ScalarBlock, ScalarLike, VectorLike, as_float
from .fixed_point import solve_fixed_point
from .metric import best_norm, projected, squared_norm
from .stability import contraction_rate

METRICS = ("euclidean", "best")


class ConvergenceCertificate(eqx.Module):
    r"""What `convergence_certificate` proves: \(KL(\pi^*\|\pi_{t+1}) \le q\, KL(\pi^*\|\pi_t)\) from every start.

    A start is a policy that gives every response of pi_ref's support, and no other, some probability.

    - `rate` (): q; a bound also where it is 1 or more, on how fast KL may grow; inf where nothing is known.
    - `certified` (): q < 1, the loop converges from every start, to its only fixed point.
    - `gain` (): the norm b of what q is made of: the part of the scores that turns, in the metric used.
    - `least_gain` (): with `metric="best"` no metric has a smaller gain than this; else None.
    - `loop`: whose certificate it is.
    """

    rate: ScalarBlock
    gain: ScalarBlock
    least_gain: ScalarBlock | None
    loop: MRS

    @property
    def certified(self) -> BoolBlock:
        return self.rate < 1

    def kl_bound(self, policy0: VectorLike | None = None, t: ScalarLike = 0) -> ScalarBlock:
        r"""An upper bound \(q^t\, KL(\pi^*\|\pi_0)\) on \(KL(\pi^*\|\pi_t)\) after t rounds, in nats.

        - `policy0`: shape (K,), the start; None is `loop.pi_0`. - `t` >= 0: rounds.

        It solves for the fixed point. Infinite where the loop has none, where none was found, and where `policy0` and
        pi_ref do not have the same support: nothing is proved there.

        >>> import ipodyn
        >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
        >>> bound = ipodyn.convergence_certificate(loop).kl_bound([0.8, 0.1, 0.1], t=10)
        >>> round(float(bound), 6)  # 0.52^10 log(1 / (27 * 0.8 * 0.1^2)) / 3
        0.000738
        """
        return _kl_bound(self, _start(self.loop, policy0), as_float(t, self.loop.P))

    def rounds(self, policy0: VectorLike | None = None, tolerance: ScalarLike = 1e-6) -> ScalarBlock:
        r"""An upper bound on the rounds until \(KL(\pi^*\|\pi_t)\) is at most `tolerance`, and stays there.

        - `policy0`: shape (K,), the start; None is `loop.pi_0`. - `tolerance` > 0, in nats.

        A whole number, the least t with q^t KL <= tolerance; inf where `certified` is false or nothing is proved (see
        `kl_bound`), unless the start is within the tolerance and q <= 1.

        >>> import ipodyn
        >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
        >>> float(ipodyn.convergence_certificate(loop).rounds([0.8, 0.1, 0.1], tolerance=1e-6))
        21.0
        """
        if not eqx.is_array(tolerance):
            check_positive(tolerance, "tolerance")
        return _rounds(self, _start(self.loop, policy0), as_float(tolerance, self.loop.P))


def _start(loop: MRS, policy0: VectorLike | None) -> Array:
    return start_policy(loop, None if policy0 is None else jnp.asarray(policy0, loop.P.dtype))


def _start_kl(loop: MRS, policy0: PolicyBlock) -> ScalarBlock:
    """KL of the fixed point from a start; inf where the certificate says nothing of the start."""
    star = solve_fixed_point(loop)
    proper = jnp.all(supported(policy0) == supported(loop.pi_ref), axis=0) & (star.result == RESULTS.successful)
    reference = jnp.where(proper[None], policy0, loop.pi_ref)
    kl = kl_divergence(jnp.where(proper[None], star.policy, loop.pi_ref), reference)
    return jnp.where(proper, jnp.maximum(kl, 0.0), jnp.inf)


@eqx.filter_jit
def _kl_bound(certificate: ConvergenceCertificate, policy0: PolicyBlock, t: ScalarBlock) -> ScalarBlock:
    kl = _start_kl(certificate.loop, policy0)
    known = jnp.isfinite(kl) & jnp.isfinite(certificate.rate)
    safe = jnp.where(known & (certificate.rate > 0), certificate.rate, 1.0)
    power = jnp.where(certificate.rate > 0, safe**t, jnp.where(t > 0, 0.0, 1.0))
    return jnp.where(known, power * jnp.where(known, kl, 0.0), jnp.where(t > 0, jnp.inf, kl))


@eqx.filter_jit
def _rounds(certificate: ConvergenceCertificate, policy0: PolicyBlock, tolerance: ScalarBlock) -> ScalarBlock:
    kl = _start_kl(certificate.loop, policy0)
    rate = certificate.rate
    shrinks = (rate > 0) & (rate < 1)
    finite = jnp.isfinite(kl)
    needed = jnp.log(jnp.where(finite & (kl > 0), kl, 1.0) / tolerance) / -jnp.log(jnp.where(shrinks, rate, 0.5))
    needed = jnp.ceil(jnp.maximum(needed, 1.0) * (1 + 8 * float(jnp.finfo(kl.dtype).eps)))
    needed = jnp.where(rate > 0, needed, 1.0)
    needed = jnp.where(finite & (kl <= tolerance) & (rate <= 1), 0.0, jnp.where(rate < 1, needed, jnp.inf))
    return jnp.where(finite, needed, jnp.inf)


def projected_preferences(loop: MRS) -> tuple[PreferenceBlock, Bool[Array, "K *batch"]]:
    """Pi A Pi on the support of pi_ref, and that support."""
    inside = supported(loop.pi_ref)
    return projected(skew_part(loop.P), inside), inside


def squared_turning(loop: MRS, policy: PolicyBlock) -> ScalarBlock:
    """(beta lam omega)^2 of MRS-IPO at its fixed point: what the squared radius has beside alpha^2."""
    squares = squared_frequencies(skew_part(loop.P), policy)
    return (loop.beta * loop.lam) ** 2 * (squares[0] if squares.shape[0] else jnp.zeros_like(loop.alpha))


def check_ipo(loop: MRS, what: str) -> None:
    """`ValueError` if what rests on the theory of skew responses is asked of another objective."""
    if not loop.objective.is_linear:
        raise ValueError(f"`objective` is {type(loop.objective).__name__}; {what}")


def convergence_gains(loop: MRS, metric: str) -> tuple[ScalarBlock, ScalarBlock | None]:
    """The gain b of MRS-IPO in a metric, and for the best one a lower bound on it; compiles nothing by itself."""
    B, inside = projected_preferences(loop)
    signal = loop.beta * loop.lam
    if metric == "best":
        norm = best_norm(B, inside)
        return signal * norm.upper, signal * norm.lower
    return signal * safe_sqrt(squared_norm(B)) / 2, None


def solve_certificate(loop: MRS, metric: str = "euclidean") -> ConvergenceCertificate:
    """`convergence_certificate` for a loop whose fields have batch axes behind; compiles nothing by itself."""
    if loop.objective.is_linear:
        gain, least = convergence_gains(loop, metric)
        return ConvergenceCertificate(jnp.maximum(loop.alpha, loop.alpha**2 + gain**2), gain, least, loop)
    if not loop.objective.is_bradley_terry:
        raise ValueError(f"`objective` is {type(loop.objective).__name__}; certificates are known for IPO() and DPO().")
    gain = _dpo_gain(loop)
    return ConvergenceCertificate(jnp.maximum(loop.alpha, (loop.alpha + gain) ** 2), gain, None, loop)


def _dpo_gain(loop: MRS) -> ScalarBlock:
    """beta Lambda / 4 with osc(r(mu) - r(mu*)) <= Lambda TV(pi, pi*); inf where there is no fixed point."""
    K, tiny = loop.P.shape[0], float(jnp.finfo(loop.P.dtype).tiny)
    star = solve_fixed_point(loop)
    mu = mixture(loop.lam, star.policy, loop.pi_0)
    score = loop.objective.solve_score(loop.P, mu).score
    apart = score[:, None] - score[None]
    misfit = loop.P - 1 / (1 + jnp.exp(-apart))
    # Largest over i and k of the range over j of E_ij - E_kj: policies differ on the support of pi_ref only.
    inside = supported(loop.pi_ref)
    differences = misfit[:, None] - misfit[None]
    high = jnp.max(jnp.where(inside[None, None], differences, -jnp.inf), axis=2)
    low = jnp.min(jnp.where(inside[None, None], differences, jnp.inf), axis=2)
    spread = jnp.max(high - low, axis=(0, 1))
    # Scores of responses next to each other in their order are at most the logit of the largest P apart: over a cut,
    # the weighted sum of misfits is 0. The mean slope of the sigmoid from apart to anywhere in that range is least at
    # one of its ends, and one end for (i, j) is the other for (j, i).
    off_diagonal = ~jnp.eye(K, dtype=bool).reshape((K, K) + (1,) * (loop.P.ndim - 2))
    largest = jnp.max(jnp.where(off_diagonal, loop.P, 0.5), axis=(0, 1))
    inner = jnp.where(largest < 1, largest, 0.5)
    reach = (K - 1) * (jnp.log(inner) - jnp.log1p(-inner))
    chord = reach - apart
    wide = chord > 1e-3
    mean = (1 / (1 + jnp.exp(-reach)) - 1 / (1 + jnp.exp(-apart))) / jnp.where(wide, chord, 1.0)
    end = 1 / (1 + jnp.exp(-reach))
    slope = jnp.where(wide, mean, end * (1 - end))
    least = jnp.min(jnp.where(off_diagonal, slope, jnp.inf), axis=(0, 1))
    gain = loop.beta * loop.lam * spread / jnp.maximum(least, tiny) / 4
    known = (star.result == RESULTS.successful) & (largest < 1) & (least > 0)
    return jnp.where(known, gain, jnp.where(loop.lam > 0, jnp.inf, 0.0))


@eqx.filter_jit
def _certificate(loop: MRS, metric: str) -> ConvergenceCertificate:
    return solve_certificate(loop, metric)


def convergence_certificate(loop: MRS, *, metric: str = "euclidean") -> ConvergenceCertificate:
    r"""A proof that a loop converges from every start, with a rate: in KL from its fixed point, per round.

    MRS-IPO with alpha < 1: \(KL(\pi^*\|\pi_{t+1}) \le q\, KL(\pi^*\|\pi_t)\) with
    \(q = \max(\alpha, \alpha^2 + b^2)\), \(b = \tfrac12\beta\lambda\|\Pi A\Pi\|_2\), A = P - 1/2 and
    \(\Pi = 1 - 11^\top/n\) on the n responses of pi_ref's support. So \(\alpha^2 + b^2 < 1\) certifies global
    convergence, where `contraction_bound` asks for \(\alpha + b < 1\). Sufficient, not necessary.

    Proof. Let F = KL(pi* || pi), phi = pi - pi*, and dashes for the next round, B = beta lam Pi A Pi. As logits move by
    x' = alpha x + B phi, F' = alpha F - (1 - alpha) KL(pi' || pi*) - alpha KL(pi' || pi) + <phi', B phi>. The softmax
    Jacobian is at most 1/2, so that these divergences are at least the squared distances: F' <= alpha F - alpha |phi|^2
    - |phi'|^2 + <phi', (2 alpha + B) phi>. B is skew, so |2 alpha + B|^2 = 4 (alpha^2 + b^2), which leaves
    F' <= alpha F + (alpha^2 + b^2 - alpha) |phi|^2 and |phi|^2 <= F.

    `metric="best"` puts the best quadratic form above all softmax Jacobians in place of 1/2: a small semidefinite
    programme, by a fixed-point iteration that stops at a gap of 2e-4 or after 500 steps; the upper bound is what
    certifies. At K = 3 there is none better than the Euclidean; of random matrices b falls by 8 % at K = 4 and 26 % at
    K = 8. First derivatives only, to about the root of the gap.

    MRS-DPO: KL need not fall where the fixed point is stable, and there may be several. With E the misfit
    P_ij - sigmoid(r_i - r_j) at the fixed point that `fixed_point` finds, w the least mean slope of the sigmoid between
    scores there and any others, and \(\Lambda = \lambda \max_{ik} \mathrm{range}_j(E_{ij} - E_{kj}) / w\), the scores
    move by at most \(\Lambda\) times the total variation (maximum principle of their weighted Laplacian), so that by
    Pinsker's inequality \(q = \max(\alpha, (\alpha + \beta\Lambda/4)^2)\); `gain` is beta Lambda / 4, `metric` has no
    part in it. It certifies uniqueness too. Crude where P has entries near 0 and 1.

    - `loop`: IPO or DPO. - `metric`: "euclidean" (for K <= 4 a closed form) or "best".

    Returns a `ConvergenceCertificate`; `stability` says what happens near the fixed point, exactly. Source: derived
    here; nearest published is the linear convergence of magnetic mirror descent, Sokota et al., arXiv 2206.05825.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.5, lam=1.0)
    >>> certificate = ipodyn.convergence_certificate(loop)
    >>> bool(certificate.certified), round(float(certificate.rate), 6)  # 0.5^2 + (2.5 * 0.3 * sqrt(3) / 2)^2
    (True, 0.671875)
    >>> round(float(ipodyn.contraction_bound(loop)), 3)  # says nothing
    1.15
    """
    if metric not in METRICS:
        raise ValueError(f"`metric` is {metric!r}; it must be {' or '.join(map(repr, METRICS))}.")
    return _certificate(loop, metric)


class LocalCertificate(eqx.Module):
    """What is known of the stability of a fixed point that is not known.

    - `radius` (): a bound on the spectral radius there. - `certified` (): it is below 1, the fixed point stable.
    """

    radius: ScalarBlock

    @property
    def certified(self) -> BoolBlock:
        return self.radius < 1


@eqx.filter_jit
def _local_certificate(loop: MRS) -> LocalCertificate:
    B, _ = projected_preferences(loop)
    return LocalCertificate(safe_sqrt(loop.alpha**2 + (loop.beta * loop.lam) ** 2 * squared_norm(B) / 9))


def locally_stable_certificate(loop: MRS) -> LocalCertificate:
    r"""A proof, without solving for it, that the fixed point of MRS-IPO is stable, wherever it lies.

    \(\rho^2 = \alpha^2 + (\beta\lambda\omega)^2\) with \(\omega \le \tfrac13\|\Pi A\Pi\|_2\) at every policy, attained
    by the uniform three-cycle. A = P - 1/2, and Pi projects on sum-zero vectors over the support of pi_ref.

    Proof. omega is the norm of S^1/2 A S^1/2, S = diag(pi) - pi pi^T. A skew form measures areas, which S^1/2 shrinks
    by at most sqrt(s1 s2), s1 >= s2 its largest eigenvalues. In their plane the K basis vectors lie within distance
    sqrt(2) of one another, by Jung's theorem in a disc of radius sqrt(2/3), so s1 + s2, their variance under pi, is at
    most 2/3 and s1 s2 at most 1/9.

    Stability is local: starts far off may cycle (`convergence_certificate` is global). Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=6.0, lam=0.8)
    >>> certificate = ipodyn.locally_stable_certificate(loop)
    >>> round(float(certificate.radius) ** 2, 6), bool(certificate.certified)  # 0.25 + (6 * 0.8 * 0.3)^2 / 3
    (0.9412, True)
    """
    check_ipo(loop, "this bound is for IPO(). Use `stability` at a fixed point, or `convergence_certificate`.")
    return _local_certificate(loop)


@eqx.filter_jit
def _contraction_bound(loop: MRS) -> ScalarBlock:
    norm = safe_sqrt(squared_norm(projected_preferences(loop)[0]))
    return contraction_rate(loop.alpha, loop.beta, loop.lam, norm)


def contraction_bound(loop: MRS) -> ScalarBlock:
    r"""\(\alpha + \tfrac12\beta\lambda\|\Pi A\Pi\|_2\), A = P - 1/2: below 1, MRS-IPO contracts logits from anywhere.

    Pi projects on sum-zero vectors over the support of pi_ref, as constants added to logits do not matter. Sufficient,
    not necessary: `convergence_certificate` proves convergence wherever this does and further, with a rate;
    `stability` is exact, but local. Says nothing about other objectives. Source: Chen et al., arXiv 2602.12180,
    section on MRS, contraction; the projection is derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=0.8)
    >>> round(float(ipodyn.contraction_bound(loop)), 6)  # 0.5 + 0.8 / 2 * 0.3 * sqrt(3)
    0.707846
    """
    return _contraction_bound(loop)
