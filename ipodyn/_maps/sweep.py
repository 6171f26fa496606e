"""Sweeps: rollouts of an arbitrary batch of loops, by the kernels of one loop, in blocks, on all devices."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._engine.blocks import Devices, ProgressCallback, block_size, run_points
from .._loops.loop import AbstractLoop
from .._numerics.types import VectorLike
from .._rollouts.rollout import Orbit, finish
from .._rollouts.rounds import run_until_standing
from .._rollouts.statistics import Chunking
from .batch import Batch, OfAny, OfMRS, block_of

# Loops are handed to the devices in pieces of about this size in bytes: memory there does not grow with their number.
PIECE_BYTES = 64 * 1024 * 1024


class _Static(NamedTuple):
    """What is compiled in: the cut of the rounds, the kind of loop, and which fields every loop has its own of."""

    plan: Chunking
    kind: OfMRS | OfAny
    own: frozenset[str]


def _orbits(static: _Static, fields: dict[str, Array], index: Int[Array, " S"]) -> Orbit:
    block = block_of(fields, static.own, index)
    one_round = static.kind.round(block)
    return finish(one_round, run_until_standing(one_round, one_round.start(block["policy0"]), static.plan))


def sweep(
    loops: AbstractLoop,
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
      ...))(alphas)` makes it. A field without that axis is shared by all loops; at least one must have it. Or any other
      `AbstractLoop`, all of whose arrays have it.
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
    plan = Chunking.of(num_steps, window)
    batch = Batch.of(loops, policy0)
    static = _Static(plan, batch.kind, batch.own)
    num_loops = batch.num_loops
    piece = min(num_loops, max(1, PIECE_BYTES // batch.bytes_of_one))
    if size is None:
        start = batch.fields["policy0"]
        size = block_size(start.shape[-1], start.dtype.itemsize, num_points=piece, devices=devices)

    pieces = []
    for first in range(0, num_loops, piece):
        count = min(piece, num_loops - first)

        def report(done: int, total: int, first: int = first) -> None:
            if progress is not None:
                progress(first + done, num_loops)

        arguments = batch.piece(first, piece)
        pieces.append(run_points(_orbits, static, arguments, count, size=size, devices=devices, progress=report))
    return jax.tree.map(lambda *parts: np.concatenate([np.moveaxis(part, -1, 0) for part in parts]), *pieces)
