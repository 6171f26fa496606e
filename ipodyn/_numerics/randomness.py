"""Random keys: what every `key` argument of the package may be."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

RandomKey: TypeAlias = PRNGKeyArray | int  # a JAX random key, or the number to make one from


def random_key(key: RandomKey) -> Key[Array, ""]:
    """A typed JAX key: of a number, and of a key of the old kind, an array of two numbers."""
    if isinstance(key, int):
        return jax.random.key(key)
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def host_seed(key: RandomKey) -> int | list[int]:
    """The same randomness in the form that NumPy's `default_rng` and `SeedSequence` take."""
    return key if isinstance(key, int) else [int(word) for word in np.asarray(jax.random.key_data(random_key(key)))]


def host_generator(key: RandomKey | np.random.Generator) -> np.random.Generator:
    """A generator for draws on the host; one that is there already stays what it is."""
    return key if isinstance(key, np.random.Generator) else np.random.default_rng(host_seed(key))


def key_words(key: RandomKey) -> str:
    """A key as texts give it: the number that was given, or the words of a key joined by dashes."""
    return str(key) if isinstance(key, int) else "-".join(str(word) for word in np.ravel(host_seed(key)))


def is_key(value: Any) -> bool:
    """Whether a value is a JAX key of either kind, and so neither a policy nor a count."""
    if not isinstance(value, jax.Array):
        return False
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or (value.dtype == jnp.uint32 and value.shape == (2,))
