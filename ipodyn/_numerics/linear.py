"""Small linear systems and graphs with batch axes behind."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .types import (
    BoolBlock,
    PolicyBlock,
    PreferenceBlock,
)

UNROLLED_UP_TO = 5  # rows; above, a loop is as fast, and compiles in a fraction of the time
ELIMINATED_UP_TO = 16  # above, LAPACK (batch axes moved to the front) is the faster


def eliminate(matrix: Float[Array, "K K *shared"], rhs: Float[Array, "K n *batch"]) -> Float[Array, "K n *batch"]:
    """`x` with `matrix @ x = rhs` for n right-hand sides, by Gauss-Jordan without pivoting.

    For matrices that are diagonally similar to one with positive definite symmetric part: no pivot is small.
    """

    # The two are kept apart so that the solution is, to JAX too, linear in the right-hand side.
    def clear(k: Array, system: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, rhs = system
        scale = 1 / matrix[k, k]
        pivot, solved = matrix[k] * scale[None], rhs[k] * scale[None]
        factor = matrix[:, k].at[k].set(0.0)[:, None]
        return (matrix - factor * pivot[None]).at[k].set(pivot), (rhs - factor * solved[None]).at[k].set(solved)

    return jax.lax.fori_loop(0, matrix.shape[0], clear, (matrix, rhs))[1]


def solve(matrix: Float[Array, "K K *shared"], rhs: Float[Array, "K *batch"]) -> Float[Array, "K *batch"]:
    """`x` with `matrix @ x = rhs`, for matrices that are diagonally similar to positive definite ones.

    The smallest systems are eliminated without pivoting (which such matrices do not need), unrolled, so that every
    operation is a full-width vector operation over the batch. Batch axes of size 1 in the matrix serve all of that axis
    of `rhs`.
    """
    K = rhs.shape[0]
    if K > ELIMINATED_UP_TO:
        front = jnp.moveaxis(matrix, (0, 1), (-2, -1))
        return jnp.moveaxis(jnp.linalg.solve(front, jnp.moveaxis(rhs, 0, -1)[..., None])[..., 0], -1, 0)
    if K > UNROLLED_UP_TO:
        return eliminate(matrix, rhs[:, None])[:, 0]
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


def transitive_closure(edges: Bool[Array | np.ndarray, "K K *batch"]) -> Any:
    """(K, K, *batch): whether a chain of one or more edges leads from i to j; a NumPy array of a NumPy array."""
    for _ in range(max(1, (edges.shape[0] - 1).bit_length())):  # chains of twice the length each time
        edges = edges | (edges[:, :, None] & edges[None]).any(axis=1)
    return edges


def same_component(compared: BoolBlock) -> BoolBlock:
    """(K, K, *batch): whether a chain of comparisons joins two responses."""
    K = compared.shape[0]
    eye = jnp.eye(K, dtype=bool).reshape((K, K) + (1,) * (compared.ndim - 2))
    return transitive_closure(compared) | eye


def diagonal(values: PolicyBlock) -> PreferenceBlock:
    K = values.shape[0]
    eye = jnp.eye(K, dtype=values.dtype).reshape((K, K) + (1,) * (values.ndim - 1))
    return eye * values[:, None]


def laplacian(weights: PreferenceBlock) -> PreferenceBlock:
    """diag(row sums) - weights, for symmetric weights."""
    return diagonal(jnp.sum(weights, axis=1)) - weights
