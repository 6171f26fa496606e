"""What a ranking may be asked for: the winner on top, the Smith set on top, the order kept."""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._numerics.types import Preference
from .._preferences.structure import condorcet_winner, smith_set

Criterion = Literal["condorcet", "smith", "order"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)

Pairs = Bool[Array, "K K"]


def check_criterion(criterion: str) -> None:
    """Raises `ValueError` for a name that is none of `CRITERIA`."""
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` is {criterion!r}; it must be one of {', '.join(CRITERIA)}.")


def criterion_pairs(P: Preference, criterion: str) -> Pairs:
    """The pairs (i, j) whose scores the criterion wants in the order i above j."""
    check_criterion(criterion)
    if criterion == "order":
        return P > P.T
    top = jnp.arange(P.shape[0]) == condorcet_winner(P) if criterion == "condorcet" else smith_set(P)
    return crossing(top) & jnp.any(top)


def crossing(sets: Bool[Array | np.ndarray, "*n K"]) -> Any:
    """The pairs of a member and an outsider, of each of the sets; a NumPy array of NumPy sets."""
    return sets[..., :, None] & ~sets[..., None, :]
