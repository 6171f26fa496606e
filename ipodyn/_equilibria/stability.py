"""Local stability: the spectrum of one round at a fixed point, on the quotient of logits by constants."""

from typing import Any, TypeAlias, overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._loops.loop import AbstractLoop, start_policy
from .._loops.mrs import MRS
from .._numerics.simplex import tangent_basis
from .._numerics.skew import safe_sqrt, skew_part, squared_frequencies
from .._numerics.types import BoolBlock, PolicyBlock, ScalarBlock
from .newton_path import Pull

Numbers: TypeAlias = Any  # numbers, or arrays of NumPy or JAX


class Stability(eqx.Module):
    """What one round does to small deviations from a fixed point.

    - `eigenvalues` (K-1,), complex: of the Jacobian in logits modulo constants (the same as in policies); for a loop
      whose state is more than logits, of all of it less the gauge.
    - `radius` (): the largest modulus; deviations shrink by it per round. - `margin` (): 1 - radius.
    - `stable` (): radius < 1.
    - `angle` (): rotation per round in radians, of the eigenvalue that sets the radius, in [0, pi].
    - `period` (): rounds per turn, 2 pi / angle; inf where nothing turns.
    """

    eigenvalues: Complex[Array, "modes *batch"]
    radius: ScalarBlock
    angle: ScalarBlock

    @property
    def margin(self) -> ScalarBlock:
        return 1 - self.radius

    @property
    def stable(self) -> BoolBlock:
        return self.radius < 1

    @property
    def period(self) -> ScalarBlock:
        turns = self.angle > 0
        return jnp.where(turns, 2 * jnp.pi / jnp.where(turns, self.angle, 1.0), jnp.inf)


class MRSStability(Stability):
    """`Stability` of an `MRS`.

    - `omega` (): the largest imaginary part of the eigenvalues divided by beta * lam; with IPO the norm of
      S^1/2 A S^1/2, at most a third of that of A = P - 1/2.
    """

    omega: ScalarBlock


def squared_radius(loop: MRS, policy: PolicyBlock) -> ScalarBlock:
    """rho^2 = alpha^2 + (beta lam omega)^2 for MRS-IPO: smooth wherever the largest frequency is simple."""
    squares = squared_frequencies(skew_part(loop.P), policy)
    largest = squares[0] if squares.shape[0] else jnp.zeros_like(loop.alpha)
    return loop.alpha**2 + (loop.beta * loop.lam) ** 2 * largest


def _symmetric_route(loop: MRS, policy: PolicyBlock) -> MRSStability:
    squares = squared_frequencies(skew_part(loop.P), policy)
    gain = loop.beta * loop.lam
    omegas = safe_sqrt(squares)
    turning = gain[None] * omegas
    still = jnp.zeros((policy.shape[0] - 1 - 2 * omegas.shape[0], *gain.shape), policy.dtype)
    imaginary = jnp.concatenate([turning, -turning, still])
    omega = omegas[0] if omegas.shape[0] else jnp.zeros_like(gain)
    largest = squares[0] if squares.shape[0] else jnp.zeros_like(gain)
    eigenvalues = jax.lax.complex(jnp.broadcast_to(loop.alpha[None], imaginary.shape), imaginary)
    radius = safe_sqrt(loop.alpha**2 + gain**2 * largest)
    return MRSStability(eigenvalues, radius, _angle(loop.alpha, gain * omega), omega)


def _angle(real: ScalarBlock, imaginary: ScalarBlock) -> ScalarBlock:
    """atan2, with value and derivative 0 at the origin."""
    origin = (real == 0) & (imaginary == 0)
    return jnp.where(origin, 0.0, jnp.arctan2(imaginary, jnp.where(origin, 1.0, real)))


def tangent_jacobian(loop: MRS, policy: PolicyBlock) -> Float[Array, "K-1 K-1 *batch"]:
    """The Jacobian of one round at `policy`, in logits modulo constants, in the basis `tangent_basis`."""
    K = policy.shape[0]
    response = loop.round().response
    pull = Pull.of(response, jnp.ones_like(loop.alpha), jnp.ones(policy.shape, bool))
    _, slope, _ = pull.value_and_slope(policy, jax.lax.stop_gradient(pull.init()))
    Q = tangent_basis(K, policy.dtype)
    inner = jnp.einsum("ia,ij...,jb->ab...", Q, slope, Q, precision="highest")
    eye = jnp.eye(K - 1, dtype=policy.dtype).reshape((K - 1, K - 1) + (1,) * (policy.ndim - 1))
    return loop.alpha[None, None] * eye + inner


@jax.custom_jvp
def _eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues and right eigenvectors, the latter up to the length of each, which no eigenvalue depends on."""
    values, vectors = jnp.linalg.eig(matrix)
    return values, vectors


@_eigen.defjvp
def _eigen_jvp(primals, tangents):
    values, vectors = _eigen(*primals)
    inner = jnp.linalg.solve(vectors, tangents[0].astype(vectors.dtype) @ vectors)
    apart = values[..., None, :] - values[..., :, None]
    turned = jnp.where(apart == 0, 0.0, inner / jnp.where(apart == 0, 1.0, apart))
    return (values, vectors), (jnp.diagonal(inner, axis1=-2, axis2=-1), vectors @ turned)


@jax.custom_jvp
def _eigenvalues(matrix: Array) -> Array:
    """As `jnp.linalg.eigvals`, with derivatives of every order where the eigenvalues are distinct."""
    return jnp.linalg.eigvals(matrix)


@_eigenvalues.defjvp
def _eigenvalues_jvp(primals, tangents):
    values, vectors = _eigen(*primals)
    inner = jnp.linalg.solve(vectors, tangents[0].astype(vectors.dtype) @ vectors)
    return values, jnp.diagonal(inner, axis1=-2, axis2=-1)


def _of_jacobian(jacobian: Float[Array, "*batch n n"]) -> Stability:
    """The spectrum of a Jacobian whose batch axes stand in front."""
    eigenvalues = jnp.moveaxis(_eigenvalues(jacobian), -1, 0)
    real, imaginary = jnp.real(eigenvalues), jnp.imag(eigenvalues)
    moduli = safe_sqrt(real**2 + imaginary**2)
    lead = jnp.argmax(jax.lax.stop_gradient(moduli), axis=0)[None]
    radius = jnp.take_along_axis(moduli, lead, axis=0)[0]
    angle = _angle(jnp.take_along_axis(real, lead, axis=0)[0], jnp.abs(jnp.take_along_axis(imaginary, lead, axis=0)[0]))
    return Stability(eigenvalues, radius, angle)


def _general_route(loop: MRS, policy: PolicyBlock) -> MRSStability:
    spectrum = _of_jacobian(jnp.moveaxis(tangent_jacobian(loop, policy), (0, 1), (-2, -1)))
    gain = loop.beta * loop.lam
    turning = jnp.max(jnp.abs(jnp.imag(spectrum.eigenvalues)), axis=0)
    omega = jnp.where(gain > 0, turning / jnp.where(gain > 0, gain, 1.0), 0.0)
    return MRSStability(spectrum.eigenvalues, spectrum.radius, spectrum.angle, omega)


def solve_stability(loop: MRS, policy: PolicyBlock) -> MRSStability:
    """`stability` for a loop whose fields have batch axes behind; compiles nothing by itself."""
    return _symmetric_route(loop, policy) if loop.objective.is_linear else _general_route(loop, policy)


@eqx.filter_jit
def _stability(loop: AbstractLoop, policy: PolicyBlock) -> Stability:
    if isinstance(loop, MRS):
        return solve_stability(loop, policy)
    return _of_jacobian(loop.round().jacobian(loop.rest(policy)))


@overload
def stability(loop: MRS, policy: Float[ArrayLike, " K"]) -> MRSStability: ...
@overload
def stability(loop: AbstractLoop, policy: Float[ArrayLike, " K"]) -> Stability: ...
def stability(loop: AbstractLoop, policy: Float[ArrayLike, " K"]) -> Stability:
    r"""How one round of a loop acts on small deviations from its fixed point `policy`.

    MRS-IPO: the eigenvalues are \(\alpha \pm i\beta\lambda\omega_k\), with \(\pm i\omega_k\) the spectrum of the skew
    matrix \(S^{1/2} A S^{1/2}\), A = P - 1/2 and S = diag(pi) - pi pi^T, and alpha itself once more if K is even. So
    \(\rho^2 = \alpha^2 + (\beta\lambda\omega)^2\): the loop loses stability by rotating, never by a jump or a flip. A
    closed form for K <= 4, a Hermitian eigen-solver above: it runs on every device.

    Other objectives and other loops: the Jacobian by forward derivatives on a tangent basis of the state at rest, and a
    general eigen-solver, which JAX has on CPU only. (MRS-DPO at lam = 1 has eigenvalues alpha + i * real too; below,
    the real parts differ.)

    - `policy`: shape (K,), from `fixed_point`; the formulas mean nothing elsewhere.

    Returns a `Stability`, of an `MRS` an `MRSStability`. Differentiable in the loop and in `policy`; to move the fixed
    point along, pass `fixed_point(loop).policy`. Where the leading frequency is multiple (or, for other objectives,
    eigenvalues coincide) the radius has a kink: the derivative is one-sided there, and not finite for a defective
    Jacobian.

    Source: derived here: the Jacobian on logits modulo constants is \(\alpha I + \beta\lambda A S\), and A S is similar
    to \(S^{1/2} A S^{1/2}\), which is skew. Its case of the uniform three-cycle: Chen et al., arXiv 2602.12180, section
    on MRS. Loss of stability by rotating: the Neimark-Sacker bifurcation, Kuznetsov, *Elements of Applied Bifurcation
    Theory*, ch. 4.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=6.0, lam=1.0)
    >>> spectrum = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy)
    >>> round(float(spectrum.radius) ** 2, 6)  # alpha^2 + (0.3 * 6)^2 / 3
    1.33
    >>> bool(spectrum.stable), round(float(spectrum.period), 3)  # 2 pi / atan2(0.3 * 6 / sqrt(3), alpha)
    (False, 5.598)
    """
    return _stability(loop, start_policy(loop, jnp.asarray(policy)))


def contraction_rate(alpha: Numbers, beta: Numbers, lam: Numbers, norm: Numbers) -> Numbers:
    """`alpha + beta * lam / 2 * norm`, of arrays that broadcast; `norm` is that of P - 1/2 on sum-zero vectors."""
    return alpha + beta * lam / 2 * norm
