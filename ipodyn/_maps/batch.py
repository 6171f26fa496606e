"""Batches of loops as `jax.vmap` makes them: checked once, cut into pieces, put together again in blocks."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._loops.loop import AbstractLoop, AbstractRound, SideBySide
from .._loops.mrs import MRS, check_common
from .._loops.starts import default_start, generic_start
from .._numerics.checks import check_alpha, check_beta, check_lam, check_policy, check_preference
from .._numerics.types import VectorLike

CHECKED_AT_ONCE = 1 << 18
SINGLE = {"P": 2, "alpha": 0, "beta": 0, "lam": 0, "pi_ref": 1, "pi_0": 1, "policy0": 1}  # axes of one loop


class OfMRS(NamedTuple):
    """How blocks of `MRS` loops are put together from their fields; static."""

    objective: Any  # a frozen equinox module without arrays

    def loops(self, fields: dict[str, Array]) -> MRS:
        return MRS(**{name: x for name, x in fields.items() if name != "policy0"}, objective=self.objective)

    def round(self, fields: dict[str, Array]) -> AbstractRound:
        return self.loops(fields).round()


class OfAny(NamedTuple):
    """How blocks of other loops are put together: by their structure, from their arrays in order; static."""

    structure: Any

    def round(self, fields: dict[str, Array]) -> AbstractRound:
        leaves = [fields[name] for name in sorted(fields, key=str) if name != "policy0"]
        return SideBySide(jax.tree.unflatten(self.structure, leaves))


def batch_last(rows: np.ndarray) -> np.ndarray:
    """Users' batches stand in front, those of kernels behind: this is where one becomes the other."""
    return np.ascontiguousarray(np.moveaxis(rows, 0, -1))


@dataclasses.dataclass(frozen=True)
class Batch:
    """Loops and where they start, on the host: named arrays, of which `own` have a leading axis of `num_loops`."""

    kind: OfMRS | OfAny
    fields: dict[str, np.ndarray]
    own: frozenset[str]
    num_loops: int

    @classmethod
    def of(cls, loops: AbstractLoop, policy0: Float[ArrayLike, "..."] | VectorLike | None) -> "Batch":
        """What the user gave, checked: `ValueError` names the field whose shape or values do not fit."""
        if isinstance(loops, MRS):
            if jax.tree.leaves(loops.objective):
                raise ValueError(
                    f"`loops.objective` = {loops.objective} holds arrays; roll such loops out by `jax.vmap`."
                )
            fields = {name: np.asarray(getattr(loops, name)) for name in SINGLE if name != "policy0"}
            fields["policy0"] = start_of_sweep(fields) if policy0 is None else np.asarray(policy0, fields["P"].dtype)
            own, num_loops = batch_of(fields)
            check_values(fields)
            return cls(OfMRS(loops.objective), fields, own, num_loops)
        return cls._of_any(loops, policy0)

    @classmethod
    def _of_any(cls, loops: AbstractLoop, policy0: Float[ArrayLike, "..."] | VectorLike | None) -> "Batch":
        leaves, structure = jax.tree.flatten(loops)
        if loops.pi_0.ndim != 2:
            raise ValueError(
                f"`loops.pi_0` has shape {loops.pi_0.shape}, not (N, K): make many loops of one kind by `jax.vmap`."
            )
        num_loops, K = loops.pi_0.shape
        for leaf in leaves:
            if not eqx.is_array_like(leaf) or np.shape(leaf)[:1] != (num_loops,):
                raise ValueError(
                    f"a field of {type(loops).__name__} has shape {np.shape(leaf)}; as `jax.vmap` makes them, all have "
                    f"a leading axis of length {num_loops}."
                )
        fields = {f"{i:03d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        starts = np.asarray(generic_start(loops.pi_0.T).T if policy0 is None else policy0, loops.pi_0.dtype)
        if starts.shape not in ((K,), (num_loops, K)):
            raise ValueError(
                f"`policy0` has shape {starts.shape}; give {(num_loops, K)}, one for each loop, or {(K,)}."
            )
        _check_policies(starts, K, "policy0")
        own = frozenset(fields) | ({"policy0"} if starts.ndim == 2 else frozenset())
        return cls(OfAny(structure), fields | {"policy0": starts}, own, num_loops)

    @property
    def bytes_of_one(self) -> int:
        return sum(self.fields[name].nbytes for name in self.own) // self.num_loops

    def piece(self, first: int, size: int) -> dict[str, Array]:
        """The loops from `first` on, batch axis last; always `size` of them, so that one program serves all pieces."""

        def cut(rows: np.ndarray) -> Array:
            rows = rows[first : first + size]
            if len(rows) < size:
                rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (size - len(rows), *rows.shape[1:]))])
            return jnp.asarray(batch_last(rows))

        return {name: cut(x) if name in self.own else jnp.asarray(x) for name, x in self.fields.items()}


def start_of_sweep(fields: dict[str, np.ndarray]) -> np.ndarray:
    """Where loops start that were told nothing: (N, K), or (K,) if one start serves all."""
    pi_0, pi_ref = fields["pi_0"], fields["pi_ref"]
    if pi_0.shape[-1:] != pi_ref.shape[-1:] or (pi_0.ndim == pi_ref.ndim == 2 and len(pi_0) != len(pi_ref)):
        return pi_0  # wrong shapes, which are about to be named
    pi_0, pi_ref = np.broadcast_arrays(pi_0, pi_ref)
    return np.moveaxis(np.asarray(default_start(np.moveaxis(pi_0, -1, 0), np.moveaxis(pi_ref, -1, 0))), 0, -1)


def block_of(fields: dict[str, Array], own: frozenset[str], index: Int[Array, " S"]) -> dict[str, Array]:
    """The fields of the loops `index` of a piece, batch axis last."""

    def taken(name: str) -> Array:
        if name in own:
            return jnp.take(fields[name], index, axis=-1, mode="clip")
        return jnp.broadcast_to(fields[name][..., None], (*fields[name].shape, index.size))

    return {name: taken(name) for name in fields}


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
    for first in range(0, len(P), CHECKED_AT_ONCE):
        check_preference(P[first : first + CHECKED_AT_ONCE], name=f"P[{first}:]" if first else "P")
    check_alpha(fields["alpha"])
    check_beta(fields["beta"])
    check_lam(fields["lam"])
    K = fields["P"].shape[-1]
    for name in ("pi_ref", "pi_0", "policy0"):
        _check_policies(fields[name], K, name)
    policy0, pi_ref = (np.moveaxis(np.atleast_2d(fields[name]), -1, 0) for name in ("policy0", "pi_ref"))
    check_common(policy0, pi_ref, fields["alpha"], name="policy0")


def _check_policies(policies: np.ndarray, K: int, name: str) -> None:
    rows = np.atleast_2d(policies)
    tolerance = max(8 * float(jnp.finfo(rows.dtype).eps), 1e-6)
    sums = rows.sum(axis=1, dtype=np.float64)
    for row in np.flatnonzero(~((rows >= 0).all(axis=1) & (np.abs(sums - 1) <= tolerance / 2))):
        check_policy(rows[row], K, name=name if policies.ndim == 1 else f"{name}[{row}]")
