"""Batches of loops as `jax.vmap` makes them: which fields have the axis, and whether their values are valid."""

import jax.numpy as jnp
import numpy as np

from .._loops.mrs import check_common
from .._numerics.checks import check_alpha, check_beta, check_lam, check_policy, check_preference

_CHECKED_AT_ONCE = 1 << 18
SINGLE = {"P": 2, "alpha": 0, "beta": 0, "lam": 0, "pi_ref": 1, "pi_0": 1, "policy0": 1}  # axes of one loop


def batch_of(fields: dict[str, np.ndarray]) -> tuple[frozenset[str], int]:
    """Which fields have the leading axis, and its length; `ValueError` if shapes do not fit together."""
    own = frozenset(name for name, axes in SINGLE.items() if fields[name].ndim == axes + 1)
    if not own:
        raise ValueError("`loops` has no batch axis; for one loop use `rollout`, many come from `jax.vmap`.")
    num_loops = len(fields[min(own, key=list(SINGLE).index)])
    if num_loops == 0:
        raise ValueError("`loops` holds no loop: its leading axis has length 0.")
    K = fields["P"].shape[-1]
    for name, axes in SINGLE.items():
        single = (K,) * axes
        if fields[name].shape not in (single, (num_loops, *single)):
            raise ValueError(
                f"`{name}` has shape {fields[name].shape}; give {(num_loops, *single)}, one for each loop, or {single}."
            )
    return own, num_loops


def check_values(fields: dict[str, np.ndarray]) -> None:
    """Values are not seen under `vmap`, where batches of loops are made; so they are looked at here."""
    P = fields["P"] if fields["P"].ndim == 3 else fields["P"][None]
    for first in range(0, len(P), _CHECKED_AT_ONCE):
        check_preference(P[first : first + _CHECKED_AT_ONCE], name=f"P[{first}:]" if first else "P")
    check_alpha(fields["alpha"])
    check_beta(fields["beta"])
    check_lam(fields["lam"])
    K = fields["P"].shape[-1]
    for name in ("pi_ref", "pi_0", "policy0"):
        rows = np.atleast_2d(fields[name])
        tolerance = max(8 * float(jnp.finfo(rows.dtype).eps), 1e-6)
        sums = rows.sum(axis=1, dtype=np.float64)
        doubtful = np.flatnonzero(~((rows >= 0).all(axis=1) & (np.abs(sums - 1) <= tolerance / 2)))
        for row in doubtful:
            place = name if fields[name].ndim == 1 else f"{name}[{row}]"
            check_policy(rows[row], K, name=place)
    policy0, pi_ref = (np.moveaxis(np.atleast_2d(fields[name]), -1, 0) for name in ("policy0", "pi_ref"))
    check_common(policy0, pi_ref, fields["alpha"], name="policy0")
