"""The pairs of responses, and a matrix from what is said of each; of NumPy arrays on the host, and of JAX arrays."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def pairs(K: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs i < j, row by row: i (pairs,) and j (pairs,)."""
    return np.triu_indices(K, 1)


def both_ways(values: Float[Array | np.ndarray, "*n K K"]) -> tuple[Any, Any]:
    """The entries (i, j) and the entries (j, i) of the pairs, each (*n, pairs)."""
    i, j = pairs(values.shape[-1])
    return values[..., i, j], values[..., j, i]


def from_upper(upper: Float[Array | np.ndarray, "*n pairs"], K: int) -> Any:
    """(*n, K, K) with the probabilities of `pairs(K)` above the diagonal, their complements below, 1/2 on it."""
    i, j = pairs(K)
    if isinstance(upper, np.ndarray):
        P = np.full((*upper.shape[:-1], K, K), 0.5, upper.dtype)
        P[..., i, j], P[..., j, i] = upper, 1 - upper
        return P
    P = jnp.full((*upper.shape[:-1], K, K), 0.5, upper.dtype)
    return P.at[..., i, j].set(upper).at[..., j, i].set(1 - upper)
