"""Small linear systems with batch axes behind."""

import jax.numpy as jnp
from jaxtyping import Array, Float

UNROLLED_UP_TO = 8  # above, LAPACK (batch axes moved to the front) is the faster and the shorter program


def solve(matrix: Float[Array, "K K *shared"], rhs: Float[Array, "K *batch"]) -> Float[Array, "K *batch"]:
    """`x` with `matrix @ x = rhs`, for matrices that are diagonally similar to positive definite ones.

    Small systems are eliminated without pivoting (which such matrices do not need), unrolled, so that every operation
    is a full-width vector operation over the batch. Batch axes of size 1 in the matrix serve all of that axis of `rhs`.
    """
    K = rhs.shape[0]
    if K > UNROLLED_UP_TO:
        front = jnp.moveaxis(matrix, (0, 1), (-2, -1))
        return jnp.moveaxis(jnp.linalg.solve(front, jnp.moveaxis(rhs, 0, -1)[..., None])[..., 0], -1, 0)
    rows = [matrix[i] for i in range(K)]
    b = [rhs[i] for i in range(K)]
    for k in range(K):
        for i in range(k + 1, K):
            factor = rows[i][k] / rows[k][k]
            rows[i] = rows[i] - factor[None] * rows[k]
            b[i] = b[i] - factor * b[k]
    x: list[Float[Array, "*batch"]] = [b[0]] * K
    for k in reversed(range(K)):
        total = b[k]
        for j in range(k + 1, K):
            total = total - rows[k][j] * x[j]
        x[k] = total / rows[k][k]
    return jnp.stack(x)
