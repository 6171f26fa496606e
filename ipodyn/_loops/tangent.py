"""Small deviations of the state of any loop, without the gauge."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.simplex import tangent_basis


def _reduced(leaf: Array, K: int) -> Array:
    """Coordinates of a part of a state: of logits and policies, whose first axis has length K, less their sum."""
    return (jnp.tensordot(tangent_basis(K, leaf.dtype).T, leaf, axes=1) if leaf.shape[:1] == (K,) else leaf).ravel()


def _moved(leaf: Array, coordinates: Array, K: int) -> Array:
    gauged = leaf.shape[:1] == (K,)
    part = coordinates.reshape((K - 1, *leaf.shape[1:]) if gauged else leaf.shape)
    return leaf + (jnp.tensordot(tangent_basis(K, leaf.dtype), part, axes=1) if gauged else part)


def state_jacobian(step: Callable[[Any], Any], state: Any, K: int) -> Float[Array, "n n"]:
    """The Jacobian of a step at `state`: over all floating-point parts, less the gauge of those over K responses."""
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(moving)
    sizes = [math.prod((K - 1, *x.shape[1:]) if x.shape[:1] == (K,) else x.shape) for x in leaves]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]

    def after(shift: Array) -> Array:
        parts = [shift[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        moved = [_moved(leaf, part, K) for leaf, part in zip(leaves, parts, strict=True)]
        following = step(eqx.combine(jax.tree.unflatten(structure, moved), fixed))
        return jnp.concatenate([_reduced(x, K) for x in jax.tree.leaves(eqx.filter(following, eqx.is_inexact_array))])

    return jax.jacfwd(after)(jnp.zeros(sum(sizes), leaves[0].dtype))
