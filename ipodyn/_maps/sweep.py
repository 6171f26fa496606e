"""Sweeps: rollouts of an arbitrary batch of loops, by the kernels of one loop, in blocks, on all devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._engine.batch import SINGLE, batch_of, check_values
from .._engine.blocks import Devices, ProgressCallback, block_size, run_points
from .._loops.mrs import MRS
from .._loops.starts import default_start
from .._numerics.types import VectorLike
from .._rollouts.rollout import Orbit, finish
from .._rollouts.rounds import run_until_standing
from .._rollouts.statistics import Plan

# Loops are handed to the devices in pieces of about so many bytes: memory there does not grow with their number.
PIECE_BYTES = 64 * 1024 * 1024


class _Static(NamedTuple):
    """What is compiled in: the cut of the rounds, the objective, and which fields every loop has its own of."""

    plan: Plan
    objective: Any  # a frozen equinox module without arrays
    own: frozenset[str]


def _orbits(static: _Static, fields: dict[str, Array], index: Int[Array, " S"]) -> Orbit:
    def of_block(name: str) -> Array:
        field = fields[name]
        if name in static.own:
            return jnp.take(field, index, axis=-1, mode="clip")
        return jnp.broadcast_to(field[..., None], (*field.shape, index.size))

    block = {name: of_block(name) for name in fields}
    policy0 = block.pop("policy0")
    one_round = MRS(**block, objective=static.objective).round()
    return finish(one_round, run_until_standing(one_round, one_round.start(policy0), static.plan))


def sweep(
    loops: MRS,
    policy0: Float[ArrayLike, "..."] | VectorLike | None = None,
    *,
    num_steps: int = 3000,
    window: int | None = None,
    size: int | None = None,
    devices: Devices | None = None,
    progress: ProgressCallback | None = None,
) -> Orbit:
    r"""Roll out a batch of loops: what `jax.vmap(rollout)` gives, on all devices, at the speed of `stability_map`.

    - `loops`: an `MRS` whose array fields have one leading axis of length N, as `jax.vmap(lambda a: MRS(P, alpha=a,
      ...))(alphas)` makes it. A field without that axis is shared by all loops; at least one must have it.
    - `policy0`: shape (N, K), or (K,) for all, where to start; None starts every loop at the `generic_start` beside its
      `pi_0` (of its `pi_ref` where the two share no response).
    - `num_steps`: rounds. - `window`: rounds in a window of the late statistics; None is a tenth of `num_steps`.
    - `size`: loops per block. - `devices`: None is all local ones. - `progress`: called with (loops done, loops in
      all) as blocks finish.

    Returns an `Orbit` of NumPy arrays with a leading axis of length N; `jax.vmap(classify)` gives the regimes. A loop
    that stands still, to a few roundings, for a chunk of rounds counts as settled and its remaining rounds are not
    computed; all others agree with `rollout` to rounding. Failures (DPO without finite scores) are data: `.result`
    tells, and the statistics of that loop are NaN. Beyond `loops` itself, memory on the devices grows with neither N
    nor `num_steps`. Raises `ValueError` for wrong shapes or values. Source: Chen et al., arXiv 2602.12180, section on
    MRS.

    >>> import ipodyn, jax, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.5)
    >>> loops = jax.vmap(lambda lam: ipodyn.MRS(P, alpha=0.9, beta=4.0, lam=lam))(jnp.array([0.0, 0.3, 1.0]))
    >>> orbits = ipodyn.sweep(loops, [0.5, 0.3, 0.2], num_steps=500)
    >>> orbits.final.shape, [ipodyn.Regime(int(code)).name for code in jax.vmap(ipodyn.classify)(orbits)]
    ((3, 3), ['converges', 'converges', 'oscillates'])
    """
    plan = Plan.of(num_steps, window)
    if jax.tree.leaves(loops.objective):
        raise ValueError(f"`loops.objective` = {loops.objective} holds arrays; roll such loops out by `jax.vmap`.")
    fields = {name: np.asarray(getattr(loops, name)) for name in SINGLE if name != "policy0"}
    fields["policy0"] = sweep_start(fields) if policy0 is None else np.asarray(policy0, fields["P"].dtype)
    own, num_loops = batch_of(fields)
    check_values(fields)
    static = _Static(plan, loops.objective, own)
    bytes_of_one = sum(fields[name].nbytes for name in own) // num_loops
    piece = min(num_loops, max(1, PIECE_BYTES // bytes_of_one))
    if size is None:
        size = block_size(fields["P"].shape[-1], fields["P"].dtype.itemsize, num_points=piece, devices=devices)

    pieces = []
    for first in range(0, num_loops, piece):
        count = min(piece, num_loops - first)

        def report(done: int, total: int, first: int = first) -> None:
            if progress is not None:
                progress(first + done, num_loops)

        arguments = {name: _piece(x, first, piece) if name in own else jnp.asarray(x) for name, x in fields.items()}
        pieces.append(run_points(_orbits, static, arguments, count, size=size, devices=devices, progress=report))
    return jax.tree.map(lambda *parts: np.concatenate([np.moveaxis(part, -1, 0) for part in parts]), *pieces)


def sweep_start(fields: dict[str, np.ndarray]) -> np.ndarray:
    """Where loops start that were told nothing: (N, K), or (K,) if one start serves all."""
    pi_0, pi_ref = fields["pi_0"], fields["pi_ref"]
    if pi_0.shape[-1:] != pi_ref.shape[-1:] or (pi_0.ndim == pi_ref.ndim == 2 and len(pi_0) != len(pi_ref)):
        return pi_0  # wrong shapes, which are about to be named
    pi_0, pi_ref = np.broadcast_arrays(pi_0, pi_ref)
    return np.moveaxis(np.asarray(default_start(np.moveaxis(pi_0, -1, 0), np.moveaxis(pi_ref, -1, 0))), 0, -1)


def _piece(field: np.ndarray, first: int, piece: int) -> Array:
    """The loops from `first` on, batch axis last; always `piece` of them, so that one program serves all pieces."""
    rows = field[first : first + piece]
    if len(rows) < piece:
        rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (piece - len(rows), *rows.shape[1:]))])
    return jnp.asarray(np.ascontiguousarray(np.moveaxis(rows, 0, -1)))
