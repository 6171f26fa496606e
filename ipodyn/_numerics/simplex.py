"""Geometry of the probability simplex: logarithms that are safe on its faces, the gauge, the tangent space."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .types import PolicyBlock, ScalarBlock, as_float

# Stands for log 0. Finite, so that 0 * log 0 and sums over thousands of rounds stay finite in float32 too, and far
# below any logit that a policy can hold: exp(LOG_ZERO + anything) is exactly 0.
LOG_ZERO = -1e30
# Logits below this belong to excluded responses: no policy inside the simplex gets there (1e9 rounds at beta = 1e4 move
# a logit by 1e13).
EXCLUDED = -1e15


_INTEGERS = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}  # by the bytes of the float whose bits they read


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, _INTEGERS[x.dtype.itemsize])


def supported(policy: PolicyBlock) -> Bool[Array, "K *batch"]:
    """Where a policy is positive, below the smallest normal number too, which processors take for 0."""
    return _bits(policy) > 0


def log_policy(policy: PolicyBlock) -> PolicyBlock:
    """`log(policy)`, with `LOG_ZERO` for log 0 and derivative 0 there.

    Below the smallest normal number the bits are read as the integer that they are; the derivative is the largest one.
    """
    limits = jnp.finfo(policy.dtype)
    tiny = float(limits.tiny)
    normal = policy >= tiny
    logs = jnp.log(jnp.where(normal, policy, 1.0))
    bits = _bits(policy)
    count = jnp.where((bits > 0) & ~normal, bits, 1).astype(policy.dtype)  # of the smallest positive number
    small = jnp.log(count) + float(np.log(tiny)) - limits.nmant * float(np.log(2.0))
    slope = jnp.where((bits > 0) & ~normal, policy, 0.0) / tiny  # 0, as processors see it, but its derivative is not
    small = small + slope - jax.lax.stop_gradient(slope)
    return jnp.where(normal, logs, jnp.where(bits > 0, small, LOG_ZERO))


def entropy(policy: Float[ArrayLike, "K *batch"]) -> Float[Array, "*batch"]:
    r"""Shannon entropy in nats, \(H(\pi) = -\sum_i \pi_i \log \pi_i\), with 0 log 0 = 0.

    - `policy`: shape (K,), or (K, *batch) with batch axes behind; entries in [0, 1].

    Returns a value in [0, log K]. The gradient is finite on faces of the simplex too.

    >>> import ipodyn, jax.numpy as jnp
    >>> float(ipodyn.entropy(jnp.array([1.0, 0.0])))
    0.0
    """
    policy = as_float(policy)
    inside = policy > 0
    safe = jnp.where(inside, policy, 1.0)
    return jnp.sum(jnp.where(inside, -policy * jnp.log(safe), 0.0), axis=0)


def kl_divergence(
    policy: Float[ArrayLike, "K *batch"], reference: Float[ArrayLike, "K *batch"]
) -> Float[Array, "*batch"]:
    r"""Kullback-Leibler divergence in nats, \(\sum_i \pi_i \log(\pi_i / q_i)\), with 0 log 0 = 0.

    - `policy`, `reference`: shape (K,), or (K, *batch) with batch axes behind.

    Infinite where the policy puts mass on a response that the reference excludes.

    >>> import ipodyn, jax.numpy as jnp
    >>> float(ipodyn.kl_divergence(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])))  # log 2
    0.693147...
    """
    policy, reference = as_float(policy), as_float(reference)
    inside = policy > 0
    safe = jnp.where(inside, policy, 1.0)
    covered = jnp.where(inside, reference > 0, True)
    safe_reference = jnp.where(inside & (reference > 0), reference, 1.0)
    terms = jnp.where(inside, policy * (jnp.log(safe) - jnp.log(safe_reference)), 0.0)
    return jnp.where(jnp.all(covered, axis=0), jnp.sum(terms, axis=0), jnp.inf)


def softmax(logits: PolicyBlock) -> PolicyBlock:
    """`exp(z) / sum exp(z)` over the leading axis; ends in a division, so that it is a policy off the simplex too."""
    return jax.nn.softmax(logits, axis=0)


def centred(x: PolicyBlock) -> PolicyBlock:
    """`x` minus its mean over the responses: fixes the gauge of logits and scores."""
    return x - jnp.mean(x, axis=0, keepdims=True)


def mixture(weight: ScalarBlock, policy: PolicyBlock, other: PolicyBlock) -> PolicyBlock:
    """`weight * policy + (1 - weight) * other`: the distribution that a loop with `lam = weight` samples from."""
    return weight[None] * policy + (1 - weight)[None] * other


COLUMNS = 8  # of a larger matrix that are multiplied and added at a time


def matvec(matrix: Float[Array, "K L *batch"], vector: Float[Array, "L *batch"]) -> Float[Array, "K *batch"]:
    """`matrix @ vector` over the two leading axes, batch axes behind.

    With batch axes it is a sum of columns, which compiles to full-width vector code: unrolled up to 16 responses, above
    in a loop. (`dot` would move the batch axis to the front; for K = 64 that is nine times as slow.)
    """
    size = vector.shape[0]
    if matrix.ndim == 2 and vector.ndim == 1:
        return jnp.matmul(matrix, vector, precision="highest")
    if size <= 16:
        total = matrix[:, 0] * vector[0][None]
        for j in range(1, size):
            total = total + matrix[:, j] * vector[j][None]
        return total

    def add_columns(total: Array, first: ArrayLike, count: int) -> Array:
        for j in range(count):
            column = jax.lax.dynamic_index_in_dim(matrix, first + j, axis=1, keepdims=False)
            total = total + column * jax.lax.dynamic_index_in_dim(vector, first + j, axis=0)
        return total

    rounds, rest = divmod(size, COLUMNS)
    total = add_columns(jnp.zeros_like(matrix[:, 0] * vector[:1]), rounds * COLUMNS, rest)
    return jax.lax.fori_loop(0, rounds, lambda i, total: add_columns(total, i * COLUMNS, COLUMNS), total)


def tangent_basis(K: int, dtype: jnp.dtype | None = None) -> Float[Array, "K K-1"]:
    """An orthonormal basis of the sum-zero space, as columns (Helmert contrasts): `Q.T @ Q = I`, `1 @ Q = 0`."""
    rows = np.arange(1, K)
    helmert = np.tril(np.ones((K - 1, K)), 0)
    helmert[rows - 1, rows] = -rows
    helmert /= np.sqrt(rows * (rows + 1.0))[:, None]
    return jnp.asarray(helmert.T, dtype=jnp.result_type(float) if dtype is None else dtype)
