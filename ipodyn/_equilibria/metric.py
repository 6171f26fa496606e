r"""How strongly a skew matrix acts on differences of policies: in the Euclidean metric, and in the best one.

A metric M serves if it lies above every softmax Jacobian, S(pi) <= M for all pi. As v^T S(pi) v is at most a quarter of
the squared range of v, and is that for some pi, this says for N = M^-1 on sum-zero vectors that |e_i - e_j|_N^2 <= 4
for all pairs. M = 1/2 is one of them. What counts is t = |M^1/2 A M^1/2|, that is, the least t with -N <= i A / t <= N.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics.skew import safe_sqrt, skew_norm
from .._numerics.types import PreferenceBlock, ScalarBlock

MAX_STEPS = 500
STEP = 1.3
GAP = 2e-4  # between the upper and the lower bound, over the upper


def projected(A: PreferenceBlock, inside: Bool[Array, "K *batch"]) -> PreferenceBlock:
    """Pi A Pi with Pi = 1 - 11^T / n on the n responses `inside`, zero elsewhere."""
    both = (inside[:, None] & inside[None]).astype(A.dtype)
    number = jnp.sum(inside, axis=0).astype(A.dtype)
    means = jnp.sum(A * both, axis=1) / number[None]
    return (A - means[:, None] + means[None]) * both


def squared_norm(B: PreferenceBlock) -> ScalarBlock:
    """The square of the spectral norm of a skew matrix whose rows sum to 0: for K <= 4 half that of Frobenius."""
    K = B.shape[0]
    if K > 4:
        return skew_norm(B) ** 2
    # Of the frequencies of a skew matrix of order at most 3, which this is on sum-zero vectors, one is not 0.
    return sum((B[i, j] ** 2 for i in range(K) for j in range(i)), start=jnp.zeros_like(B[0, 0]))


class MetricNorm(NamedTuple):
    """The norm of A in the best metric lies between `lower` and `upper`; the latter is that of a metric at hand."""

    upper: ScalarBlock
    lower: ScalarBlock


def best_norm(B: PreferenceBlock, inside: Bool[Array, "K *batch"]) -> MetricNorm:
    r"""\(t^* = \min_{M \succeq S(\pi)\,\forall\pi} \|M^{1/2} B M^{1/2}\|\) of a skew B with rows that sum to 0.

    A semidefinite programme whose dual is the largest nuclear norm of X^1/2 B X^1/2 over X = L(w), the Laplacians of
    weights w on the pairs that sum to 1/4. Given w, N = X^-1/2 |X^1/2 B X^1/2| X^-1/2 has -N <= iB <= N, so that
    max d / 4 with d_ij = |e_i - e_j|_N^2 is an upper bound, while sum w d is the nuclear norm; w <- w d^1.3,
    normalised, raises it. (Powers 1/2 and 1 are slower; the best bounds met are kept.) The derivative in B, first
    order only, is that of the dual at the last w (the envelope theorem).
    """
    euclidean = safe_sqrt(squared_norm(B)) / 2
    if B.shape[0] <= 3:  # the smallest ellipse about an equilateral triangle is a circle
        return MetricNorm(euclidean, euclidean)
    front = jnp.moveaxis(jax.lax.stop_gradient(B), (0, 1), (-2, -1))
    outcome = _iterate(front, jnp.moveaxis(inside, 0, -1))
    slope = jnp.moveaxis(outcome.slope, (-2, -1), (0, 1))
    along = jnp.sum(slope * (B - jax.lax.stop_gradient(B)), axis=(0, 1))  # 0, with the derivative
    upper = jnp.where(outcome.upper < euclidean, outcome.upper + along, euclidean)
    return MetricNorm(upper, jnp.minimum(outcome.lower, upper) + along)


class _Metric(NamedTuple):
    upper: Float[Array, "*batch"]
    lower: Float[Array, "*batch"]
    slope: Float[Array, "*batch K K"]


class _Dual(NamedTuple):
    """The weights, the best N so far with its bound, and the best dual value."""

    weights: Float[Array, "*batch K K"]
    metric: Float[Array, "*batch K K"]
    upper: Float[Array, "*batch"]
    lower: Float[Array, "*batch"]
    done: Array
    count: Array


def _little(x: Array) -> float:
    """What may be added to a matrix of size 1: the rounding of its inverse stays below that of single precision."""
    return float(jnp.finfo(x.dtype).eps) ** 0.6


def _powers(X: Float[Array, "*batch K K"]) -> tuple[Array, Array]:
    """The square root of a positive definite matrix, and its inverse."""
    values, vectors = jnp.linalg.eigh(X)
    least = jnp.maximum(_little(X) * values[..., -1:], float(jnp.finfo(X.dtype).tiny))  # rounding may make it negative
    root = jnp.sqrt(jnp.maximum(values, least))[..., None, :]
    turned = jnp.swapaxes(vectors, -1, -2)
    return (vectors * root) @ turned, (vectors / root) @ turned


def _absolute(k: Float[Array, "*batch K K"]) -> tuple[Array, Array]:
    """|k| and k |k|^-1 of a skew k, from the spectrum of the Hermitian ik."""
    values, vectors = jnp.linalg.eigh(jax.lax.complex(jnp.zeros_like(k), k))
    back = jnp.conj(jnp.swapaxes(vectors, -1, -2))
    small = jnp.max(jnp.abs(values), axis=-1, keepdims=True) * float(jnp.finfo(k.dtype).eps)
    signs = jnp.where(jnp.abs(values) > small, jnp.sign(values), 0.0)
    absolute = (vectors * jnp.abs(values)[..., None, :].astype(vectors.dtype)) @ back
    sign = (vectors * signs[..., None, :].astype(vectors.dtype)) @ back
    return absolute.real, sign.imag


def _laplacian(weights: Float[Array, "*batch K K"]) -> Array:
    K = weights.shape[-1]
    return jnp.sum(weights, axis=-1)[..., None] * jnp.eye(K, dtype=weights.dtype) - weights


def _distances(N: Float[Array, "*batch K K"]) -> Array:
    """|e_i - e_j|_N^2."""
    own = jnp.diagonal(N, axis1=-2, axis2=-1)
    return jnp.maximum(own[..., :, None] + own[..., None, :] - 2 * N, 0.0)


def _iterate(B: Float[Array, "*batch K K"], inside: Array) -> _Metric:
    K = B.shape[-1]
    eye = jnp.eye(K, dtype=B.dtype)
    apart = jnp.asarray(~np.eye(K, dtype=bool))
    pairs = (inside[..., :, None] & inside[..., None, :] & apart).astype(B.dtype)
    count = jnp.maximum(jnp.sum(pairs, axis=(-2, -1), keepdims=True), 1.0)
    least = _little(B) / count
    number = jnp.maximum(jnp.sum(inside, axis=-1), 1)[..., None, None].astype(B.dtype)
    members = (inside[..., :, None] & inside[..., None, :]).astype(B.dtype)
    rest = eye * (1 - inside[..., None, :].astype(B.dtype)) + members / number  # projects on what is not sum-zero

    def root_of(weights: Array) -> tuple[Array, Array]:
        return _powers(_laplacian(weights) + rest)

    def step(dual: _Dual) -> _Dual:
        root, inverse = root_of(dual.weights)
        absolute, _ = _absolute(root @ B @ root)
        N = inverse @ absolute @ inverse
        d = _distances(N) * pairs
        upper = jnp.max(d, axis=(-2, -1)) / 4
        lower = jnp.trace(absolute, axis1=-2, axis2=-1) / (2 * jnp.sum(dual.weights, axis=(-2, -1)))
        better = upper < dual.upper
        upper, lower = jnp.minimum(upper, dual.upper), jnp.maximum(lower, dual.lower)
        moved = dual.weights * d**STEP
        total = jnp.sum(moved, axis=(-2, -1), keepdims=True)
        moved = jnp.where(total > 0, moved / (2 * jnp.where(total > 0, total, 1.0)), dual.weights)
        new = _Dual(
            jnp.maximum(moved, least * pairs),
            jnp.where(better[..., None, None], N, dual.metric),
            upper,
            lower,
            upper - lower <= GAP * upper,
            dual.count + 1,
        )
        return jax.tree.map(_keep_where(dual.done), dual, new)  # no result depends on its neighbours

    begin = _Dual(
        pairs / (2 * count),
        jnp.broadcast_to(eye, B.shape),
        jnp.full(B.shape[:-2], jnp.inf, B.dtype),
        jnp.zeros(B.shape[:-2], B.dtype),
        jnp.zeros(B.shape[:-2], bool),
        jnp.zeros(B.shape[:-2], jnp.int32),
    )
    end = jax.lax.while_loop(lambda dual: jnp.any(~dual.done & (dual.count < MAX_STEPS)), step, begin)
    root, _ = root_of(end.weights)
    _, sign = _absolute(root @ B @ root)
    return _Metric(_bound_of(end.metric, B, pairs), end.lower, root @ sign @ root)


def _keep_where(done: Array):
    def keep(old: Array, new: Array) -> Array:
        return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - done.ndim)), old, new)

    return keep


def _bound_of(N: Float[Array, "*batch K K"], B: Float[Array, "*batch K K"], pairs: Array) -> Array:
    """max d / 4 times |N^-1/2 B N^-1/2| of N with a little of 1 added: an upper bound whatever N is."""
    K, eps = N.shape[-1], float(jnp.finfo(N.dtype).eps)
    size = jnp.trace(N, axis1=-2, axis2=-1)[..., None, None] / K
    N = (N + jnp.swapaxes(N, -1, -2)) / 2 + (eps**0.5 * size + float(jnp.finfo(N.dtype).tiny)) * jnp.eye(
        K, dtype=N.dtype
    )
    _, inverse = _powers(N)
    inner = jnp.moveaxis(inverse @ B @ inverse, (-2, -1), (0, 1))
    return jnp.max(_distances(N) * pairs, axis=(-2, -1)) / 4 * skew_norm((inner - jnp.swapaxes(inner, 0, 1)) / 2)
