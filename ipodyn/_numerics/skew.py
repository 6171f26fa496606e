"""Spectra of skew matrices under a policy, with their derivatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .simplex import matvec
from .types import PolicyBlock, PreferenceBlock, ScalarBlock


def safe_sqrt(x: Array) -> Array:
    """`sqrt(max(x, 0))`, with derivative 0 at 0."""
    inside = x > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, x, 1.0)), 0.0)


def _skew_spectrum(H: PreferenceBlock, policy: PolicyBlock) -> tuple[Array, Array]:
    """Frequencies of D H D with D = diag(sqrt(policy)), K // 2 of them falling, and y = D v for their eigenvectors v.

    i D H D is Hermitian, so the Hermitian eigen-solver serves, to full accuracy and on every device.
    """
    K = H.shape[0]
    root = safe_sqrt(policy)
    scaled = jnp.moveaxis(H * root[:, None] * root[None], (0, 1), (-2, -1))
    values, vectors = jnp.linalg.eigh(jax.lax.complex(jnp.zeros_like(scaled), scaled))
    order = K - 1 - jnp.arange(K // 2)
    frequencies = jnp.moveaxis(values[..., order], -1, 0)
    return frequencies, jnp.moveaxis(vectors[..., order], (-2, -1), (0, 1)) * root[:, None].astype(vectors.dtype)


@jax.custom_jvp
def _squares(H: PreferenceBlock, policy: PolicyBlock) -> Array:
    """Squared frequencies of D H D, falling, (K // 2, *batch)."""
    frequencies, _ = _skew_spectrum(H, policy)
    return jnp.maximum(frequencies, 0) ** 2


@_squares.defjvp
def _squares_jvp(primals, tangents):
    """d(omega^2) = 2 omega Re(y* i dH y) + 2 sum_i |(H y)_i|^2 dpolicy_i: no division, so no trouble on faces and at 0.

    At a multiple frequency it is a directional derivative along one choice of eigenvectors.
    """
    H, policy = primals
    dH, dpolicy = tangents
    frequencies, y = _skew_spectrum(H, policy)
    frequencies = jnp.maximum(frequencies, 0)
    pushed = jnp.einsum("ij...,jn...->in...", H.astype(y.dtype), y, precision="highest")
    sizes = pushed.real**2 + pushed.imag**2
    turned = jnp.einsum("ij...,jn...->in...", dH.astype(y.dtype), y, precision="highest")
    # y* (i dH y) = sum_i (y_i^r - i y_i^i)(i t_i^r - t_i^i), of which the real part is y^i t^r - y^r t^i
    turning = jnp.sum(y.imag * turned.real - y.real * turned.imag, axis=0)
    dsquares = 2 * frequencies * turning + 2 * jnp.sum(sizes * dpolicy[:, None], axis=0)
    return frequencies**2, dsquares


def squared_frequencies(A: PreferenceBlock, policy: PolicyBlock) -> Array:
    r"""\(\omega_k^2\), k = 1 .. (K - 1) // 2, falling: the spectrum of S^1/2 A S^1/2 is \(\pm i\omega_k\) (and 0).

    With m = A pi and H_ij = A_ij - m_i + m_j this is the spectrum of D H D, D = diag(sqrt(pi)), less the gauge's 0.
    """
    K = A.shape[0]
    count = (K - 1) // 2
    if count == 0:
        return jnp.zeros((0, *policy.shape[1:]), policy.dtype)
    m = matvec(A, policy)
    H = A - m[:, None] + m[None]
    if count == 1:  # one pair: half the squared Frobenius norm
        total = jnp.zeros_like(policy[0])
        for i in range(K):
            for j in range(i):
                total = total + policy[i] * policy[j] * H[i, j] ** 2
        return total[None]
    return _squares(H, policy)[:count]


def skew_part(P: PreferenceBlock) -> PreferenceBlock:
    """(P - P.T) / 2: A = P - 1/2, and derivatives in P along skew directions only."""
    return (P - jnp.swapaxes(P, 0, 1)) / 2


def skew_norm(A: PreferenceBlock) -> ScalarBlock:
    """Spectral norm of a skew matrix: a closed form for K <= 4, with derivative 0 where it is not defined."""
    K = A.shape[0]
    if K == 2:
        return jnp.abs(A[0, 1])
    if K == 3:
        return safe_sqrt(A[0, 1] ** 2 + A[0, 2] ** 2 + A[1, 2] ** 2)
    if K == 4:  # the self-dual and the anti-self-dual part rotate by the sum and the difference of the two frequencies
        sides = ((A[0, 1], A[2, 3]), (A[0, 2], -A[1, 3]), (A[0, 3], A[1, 2]))
        plus = sum((a + b) ** 2 for a, b in sides)
        minus = sum((a - b) ** 2 for a, b in sides)
        return (safe_sqrt(jnp.asarray(plus)) + safe_sqrt(jnp.asarray(minus))) / 2
    return safe_sqrt(_squares(A, jnp.ones_like(A[0]))[0])
