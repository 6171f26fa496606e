"""Where rollouts start: beside the off-policy sampler, at a point that no symmetry of a loop holds."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._numerics.types import PolicyBlock, as_float

_SIZE = 0.1  # of the offsets of logits, so that probabilities move by up to this share of themselves
# What maps, sweeps and the command line say of their start, in attributes, pictures and words.
DEFAULT_START = f"pi_0 moved off every symmetry by up to {100 * _SIZE:g} %"


def _offsets(K: int) -> np.ndarray:
    """v_i = (frac(sqrt(5) i^2) - 1/2) / 5, i = 1 .. K: within +-0.1, no two alike.

    A quadratic sequence has a part in every Fourier mode, so that in cyclic matrices too no unstable mode is missed.
    """
    return 2 * _SIZE * (np.sqrt(5) * np.arange(1.0, K + 1) ** 2 % 1 - 0.5)


def generic_start(policy: Float[ArrayLike, "K *batch"]) -> Float[Array, "K *batch"]:
    r"""A policy beside the given one that lies on no symmetry: \(\mathrm{softmax}(\log\pi + v)\), v fixed.

    On balanced preferences (rock-paper-scissors) a loop that starts at the uniform policy stands still there, even
    where the slightest deviation would grow. From a generic start it shows what it does. Here
    \(v_i = (\mathrm{frac}(\sqrt5\, i^2) - 1/2)/5\), i = 1 .. K: entries within 0.1 of 0, all different, unlike
    themselves in reverse or shifted. Responses with probability 0 keep it.

    - `policy`: shape (K,), or (K, *batch) with batch axes behind.

    Differentiable. `stability_map`, `sweep` and the command line start here, beside `pi_0`, unless told otherwise;
    `rollout` starts at `pi_0` itself.

    >>> import ipodyn, jax.numpy as jnp
    >>> [round(float(p), 4) for p in ipodyn.generic_start(jnp.full(3, 1 / 3))]
    [0.3195, 0.3681, 0.3124]
    """
    policy = as_float(policy)
    offsets = _offsets(policy.shape[0]).reshape((-1,) + (1,) * (policy.ndim - 1))
    weights = policy * jnp.exp(jnp.asarray(offsets, policy.dtype))
    return weights / jnp.sum(weights, axis=0, keepdims=True)


def default_start(pi_0: Float[ArrayLike, "K *batch"], pi_ref: Float[ArrayLike, "K *batch"]) -> PolicyBlock:
    """`generic_start(pi_0)`, or of `pi_ref` where the two have no response in common and so have no mixture."""
    common = jnp.any((jnp.asarray(pi_0) > 0) & (jnp.asarray(pi_ref) > 0), axis=0, keepdims=True)
    return generic_start(jnp.where(common, pi_0, pi_ref))


def start_words(policy0: np.ndarray) -> str:
    """A start as the attributes of a map name it."""
    if policy0.ndim == 2:
        return "one policy for each matrix"
    if (policy0 == policy0[0]).all():
        return "uniform"
    shown = ",".join(f"{probability:.4g}" for probability in policy0[:12])
    return shown if policy0.size <= 12 else f"{shown},... ({policy0.size} responses)"
