"""What a ranking may be asked for: the winner on top, the Smith set on top, the order kept."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._numerics.types import Preference
from .._preferences.structure import condorcet_winner, smith_set

Criterion = Literal["condorcet", "smith", "order"]
CRITERIA = ("condorcet", "smith", "order")

Pairs = Bool[Array, "K K"]


def criterion_pairs(P: Preference, criterion: str) -> Pairs:
    """The pairs (i, j) whose scores the criterion wants in the order i above j."""
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` is {criterion!r}; it must be one of {', '.join(CRITERIA)}.")
    if criterion == "order":
        return P > P.T
    top = jnp.arange(P.shape[0]) == condorcet_winner(P) if criterion == "condorcet" else smith_set(P)
    return top[:, None] & ~top[None, :] & jnp.any(top)
