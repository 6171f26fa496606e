"""The glossary: array types and the words for them.

Axis names: `K` responses, `batch` any axes that stand *behind* the response axes. A single instance has no batch
axis; users batch with `jax.vmap`. The hot loops use the trailing axes, so that one description of a round serves
both a single loop and a block of thousands.
"""

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

Scalar: TypeAlias = Float[Array, ""]
Policy: TypeAlias = Float[Array, " K"]  # probabilities over the K responses, summing to 1
Logits: TypeAlias = Float[Array, " K"]  # log-probabilities up to an additive constant (the gauge)
Preference: TypeAlias = Float[Array, "K K"]  # P[i, j] = Pr(i beats j); P + P.T = 1, diagonal 1/2

# What public functions accept: anything that `jnp.asarray` takes.
ScalarLike: TypeAlias = Float[ArrayLike, ""] | Int[ArrayLike, ""] | float | int
PolicyLike: TypeAlias = Float[ArrayLike, " K"]
PreferenceLike: TypeAlias = Float[ArrayLike, "K K"]

VectorLike: TypeAlias = Float[ArrayLike, "_"] | Sequence[float] | Sequence[int]

# The same with batch axes behind.
PolicyBlock: TypeAlias = Float[Array, "K *batch"]
PreferenceBlock: TypeAlias = Float[Array, "K K *batch"]
ScalarBlock: TypeAlias = Float[Array, "*batch"]
BoolBlock: TypeAlias = Bool[Array, "*batch"]
IntBlock: TypeAlias = Int[Array, "*batch"]

X = TypeVar("X")


def as_float(x: ArrayLike, like: ArrayLike | None = None) -> Array:
    """`x` as a floating-point array: in the dtype of `like` where given, else in its own, integers in the default."""
    if like is not None:
        return jnp.asarray(x, dtype=jnp.asarray(like).dtype)
    if isinstance(x, (bool, int, float)) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        return jnp.asarray(x, dtype=jnp.result_type(float))
    return jnp.asarray(x)


Counts = Float[ArrayLike, "K K"] | Int[ArrayLike, "K K"]
