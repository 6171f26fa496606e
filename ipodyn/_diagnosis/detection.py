r"""How many labelled pairs a round it takes to tell a stable loop from an unstable one."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from .._engine.blocks import Devices
from .._loops.mrs import MRS
from .._maps.finite_sweep import finite_sweep
from .._numerics.deprecation import moved_argument
from .._numerics.randomness import RandomKey, is_key
from .._numerics.results import RESULTS
from .._numerics.types import ScalarLike, VectorLike


class SmallestSample(eqx.Module):
    """What `smallest_sample` found.

    - `value`: the smallest of the `num_pairs` from which on the error stays within the limit; inf where none is.
    - `num_pairs` (N,), `error` (N,), `threshold` (N,): the sizes tried, the error of the best threshold at each, and
      that threshold of the variance.
    - `stable`, `unstable` (N, trajectories): the variance over the last window of every trajectory.
    - `result`: `RESULTS.successful`, or `RESULTS.not_told_apart` where no size suffices.
    """

    value: float
    num_pairs: np.ndarray
    error: np.ndarray
    threshold: np.ndarray
    stable: np.ndarray
    unstable: np.ndarray

    @property
    def result(self) -> RESULTS:
        return RESULTS.successful if self.value < float("inf") else RESULTS.not_told_apart


def best_threshold(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """The mean of the two error rates of the best rule "more than a threshold is from `high`", and that threshold."""
    values = np.unique(np.concatenate([low, high]))
    false_alarms = 1 - np.searchsorted(np.sort(low), values, side="right") / low.size
    misses = np.searchsorted(np.sort(high), values, side="right") / high.size
    errors = (false_alarms + misses) / 2
    best = int(np.argmin(errors))
    above = values[min(best + 1, values.size - 1)]
    return float(errors[best]), float((values[best] + above) / 2)


@moved_argument("0.3", "key", 2, is_key)
def smallest_sample(
    stable: MRS,
    unstable: MRS,
    *,
    key: RandomKey,
    num_pairs: Sequence[int] | Int[ArrayLike, " N"] | Float[ArrayLike, " N"],
    error: float = 0.05,
    num_trajectories: int = 128,
    num_steps: int = 1000,
    window: int | None = None,
    policy0: VectorLike | None = None,
    ridge: ScalarLike | None = None,
    devices: Devices | None = None,
) -> SmallestSample:
    r"""The smallest number of labelled pairs a round at which a stable and an unstable loop can be told apart.

    The criterion: an observer watches one trajectory, takes the variance of its policies over the last window of
    rounds (`FiniteOrbit.window_variance`) and calls the loop unstable if that exceeds a threshold. With the best
    threshold for that n, the mean of its two error rates (false alarms on `stable`, misses on `unstable`), estimated
    from `num_trajectories` simulated trajectories of each, must be at most `error`; and so for every larger n tried.
    With few pairs the noise moves a stable loop as much as the instability moves the other.

    - `stable`, `unstable`: loops of one K and objective. - `key`: as in `finite_rollout`.
    - `num_pairs`: sizes to try, increasing.
    - `error` in (0, 1/2). - `num_steps`, `window`, `ridge`: as in `finite_rollout`; None is half of the rounds.
    - `policy0`: shape (K,), where all start; None: as in `sweep`.

    The threshold is fitted to the trajectories it is judged on: the error is low by about 1 / num_trajectories.

    Returns a `SmallestSample`. Source: the question is that of Chen et al., arXiv 2602.12180, section on finite
    samples; the criterion is derived here.

    >>> import ipodyn
    >>> P = ipodyn.problems.three_cycle(0.4)  # unstable from beta = 3.75 on
    >>> stable, unstable = (ipodyn.MRS(P, alpha=0.5, beta=beta, lam=1.0) for beta in (3.6, 4.0))
    >>> sample = ipodyn.smallest_sample(
    ...     stable, unstable, key=0, num_pairs=[4, 1000], num_trajectories=16, num_steps=100
    ... )
    >>> sample.value  # with 4 pairs a round noise moves both
    1000.0
    """
    sizes = np.asarray(num_pairs, float)
    if sizes.ndim != 1 or sizes.size == 0 or not (np.diff(sizes) > 0).all():
        raise ValueError(f"`num_pairs` is {np.asarray(num_pairs)!r}; give increasing sizes, shape (N,).")
    if not 0 < error < 0.5:
        raise ValueError(f"`error` is {error}; it must be in (0, 1/2): guessing errs in half of the cases.")
    if stable.P.shape != unstable.P.shape or type(stable.objective) is not type(unstable.objective):
        raise ValueError("`stable` and `unstable` must have one number of responses and one objective.")
    both = [stable] * sizes.size + [unstable] * sizes.size
    loops = jax.tree.map(lambda *fields: jnp.stack(fields), *both)
    orbits = finite_sweep(
        loops,
        policy0,
        key=key,
        num_pairs=np.tile(sizes, 2),
        num_trajectories=num_trajectories,
        num_steps=num_steps,
        window=max(1, num_steps // 2) if window is None else window,
        ridge=ridge,
        devices=devices,
    )
    settled, moving = np.split(np.asarray(orbits.window_variance), 2)
    judged = np.array([best_threshold(low, high) for low, high in zip(settled, moving, strict=True)])
    fails = np.flatnonzero(judged[:, 0] > error)
    first = 0 if fails.size == 0 else int(fails[-1]) + 1
    value = float(sizes[first]) if first < sizes.size else float("inf")
    return SmallestSample(value, sizes, judged[:, 0], judged[:, 1], settled, moving)
