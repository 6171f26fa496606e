"""Many loops with finite samples at once, in blocks on all devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._engine.blocks import Devices, ProgressCallback, block_size, run_points
from .._loops.mrs import MRS
from .._loops.sampled_response import finite_round
from .._numerics.checks import check_positive
from .._numerics.deprecation import moved_argument, renamed_keywords
from .._numerics.randomness import RandomKey, is_key, random_key
from .._numerics.types import Policy, ScalarLike, VectorLike, as_float
from .._objectives.empirical import check_ridge
from .._rollouts.finite import FiniteOrbit, one_orbit, save_policies
from .._rollouts.statistics import Chunking
from .batch import SINGLE, Batch, OfMRS, block_of


class _Static(NamedTuple):
    """What is compiled in."""

    plan: Chunking
    objective: Any  # a frozen equinox module without arrays
    own: frozenset[str]
    trajectories: int
    save: Callable[[Policy], Any] | None
    key_type: str


def _block(static: _Static, arguments: dict[str, Any], index: Int[Array, " S"]) -> FiniteOrbit:
    which, trajectory = index // static.trajectories, index % static.trajectories

    block = block_of({name: arguments[name] for name in SINGLE}, static.own, which)
    loop = OfMRS(static.objective).loops(block)
    # A trajectory's key is a matter of its loop and number alone, not of how the work is cut.
    root = jax.random.wrap_key_data(arguments["key"], impl=static.key_type)
    keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(root, i), j))(which, trajectory)
    ridge = arguments["ridge"]
    ridge = None if ridge is None else jnp.broadcast_to(ridge, index.shape)
    num_pairs = jnp.take(arguments["num_pairs"], which, mode="clip")
    save = None if static.save is None else jax.vmap(static.save, in_axes=-1, out_axes=-1)
    return one_orbit(finite_round(loop, keys, num_pairs, ridge), block["policy0"], static.plan, save)


@moved_argument("0.3", "key", 1, is_key)
@renamed_keywords("0.3", paths=("save", save_policies))
def finite_sweep(
    loops: MRS,
    policy0: Float[ArrayLike, "..."] | VectorLike | None = None,
    *,
    key: RandomKey,
    num_pairs: Float[ArrayLike, "..."] | Int[ArrayLike, "..."] | float | int,
    num_trajectories: int = 64,
    num_steps: int = 3000,
    save: Callable[[Policy], Any] | None = None,
    window: int | None = None,
    ridge: ScalarLike | None = None,
    size: int | None = None,
    devices: Devices | None = None,
    progress: ProgressCallback | None = None,
) -> FiniteOrbit:
    r"""Many trajectories of many loops on finite samples, by the blocked engine, on all devices.

    - `loops`: an `MRS` as `sweep` takes it, with a leading axis N on some fields; or one loop without any.
    - `policy0`: shape (N, K) or (K,); None: as in `sweep`. - `key`: as in `finite_rollout`; trajectory r of loop i is
      that of `fold_in(fold_in(key, i), r)` there, however the work is cut.
    - `num_pairs`: pairs a round, one number or (N,). - `num_trajectories`: of each loop.
    - `num_steps`, `save`, `window`, `ridge`: as in `finite_rollout`. - `size`, `devices`, `progress`: as in `sweep`.

    Returns a `FiniteOrbit` of NumPy arrays, (N, trajectories, ...), or (trajectories, ...) for one loop.

    >>> import ipodyn, jax, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.4)
    >>> loops = jax.vmap(lambda beta: ipodyn.MRS(P, alpha=0.5, beta=beta, lam=1.0))(jnp.array([1.0, 2.0]))
    >>> orbits = ipodyn.finite_sweep(loops, key=0, num_pairs=100, num_trajectories=8, num_steps=20)
    >>> orbits.final.shape, orbits.variance.shape, orbits.saved is None  # `save=jnp.asarray` keeps the policies
    ((2, 8, 3), (2, 8), True)
    """
    check_ridge(loops.objective, ridge)
    if isinstance(num_trajectories, bool) or not isinstance(num_trajectories, int) or num_trajectories < 1:
        raise ValueError(f"`num_trajectories` is {num_trajectories!r}; it must be a whole number, at least 1.")
    check_positive(np.asarray(num_pairs), "num_pairs", "it is the number of labelled pairs a round")
    single = loops.P.ndim == 2 and loops.alpha.ndim == 0 and loops.pi_ref.ndim == 1 and loops.pi_0.ndim == 1
    if single:
        loops = eqx.tree_at(lambda loop: loop.alpha, loops, loops.alpha[None])
    batch = Batch.of(loops, policy0)
    num_loops, P = batch.num_loops, batch.fields["P"]
    pairs = np.asarray(num_pairs, P.dtype)
    if pairs.shape not in ((), (num_loops,)):
        raise ValueError(f"`num_pairs` has shape {pairs.shape}; give one number, or {(num_loops,)}.")
    arguments: dict[str, Any] = {
        **batch.piece(0, num_loops),
        "num_pairs": jnp.asarray(np.broadcast_to(pairs, (num_loops,))),
        "ridge": None if ridge is None else as_float(ridge, P),
        "key": jax.random.key_data(random_key(key)),
    }
    static = _Static(
        Chunking.of(num_steps, window),
        loops.objective,
        batch.own,
        num_trajectories,
        save,
        str(jax.random.key_impl(random_key(key))),
    )
    size = block_size(P.shape[-1], P.dtype.itemsize) if size is None else size
    orbit = run_points(
        _block, static, arguments, num_loops * num_trajectories, size=size, devices=devices, progress=progress
    )
    shape = (num_trajectories,) if single else (num_loops, num_trajectories)

    def leading(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, -1, 0).reshape((*shape, *x.shape[:-1]))

    return jax.tree.map(leading, orbit)
