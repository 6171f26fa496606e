"""Many loops of one variant at once, and their orbits on finite samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .. import MRS, FiniteOrbit, finite_sweep
from .config import Config, ProgressCallback, objective_of


def batch_of_loops(P: np.ndarray, alpha: np.ndarray, beta: np.ndarray, lam: np.ndarray, variant: str) -> MRS:
    """An `MRS` with one leading axis; `P` is (N, K, K) and the parameters (N,), all of one dtype."""
    objective = objective_of(variant)
    return jax.vmap(lambda P, alpha, beta, lam: MRS(P, alpha=alpha, beta=beta, lam=lam, objective=objective))(
        *(jnp.asarray(x) for x in (P, alpha, beta, lam))
    )


def loops_of(P: np.ndarray, settings: np.ndarray, variant: str, dtype: str) -> MRS:
    """The loops of one matrix P (K, K); `settings` (N, 3): alpha, beta, lam."""
    matrices = np.broadcast_to(P.astype(dtype), (len(settings), *P.shape))
    return batch_of_loops(matrices, *settings.astype(dtype).T, variant=variant)


def finite_orbits(
    loops: MRS,
    config: Config,
    *,
    rounds: int,
    trajectories: int = 1,
    save: Callable[[jax.Array], jax.Array] | None = None,
    progress: ProgressCallback | None = None,
) -> FiniteOrbit:
    """Trajectories of every loop on the labelled pairs, ridge (of DPO) and seed of the run: (N, trajectories, ...)."""
    return finite_sweep(
        loops,
        np.asarray(loops.pi_0),
        key=jax.random.key(config.seed),
        num_pairs=config.num_pairs,
        num_trajectories=trajectories,
        num_steps=rounds,
        ridge=config.ridge if loops.objective.takes_ridge else None,
        save=save,
        progress=progress,
    )
