"""The map without rollouts, and gradients through fixed points."""

from collections.abc import Iterator

import numpy as np

from ..jobs import moving_job, paper_job
from ..peers.ipodyn_peer import takes, whole_map
from ..report import Row, missing
from ..timing import Spread, interleaved, seconds
from . import Settings

BAND = 0.02  # around radius 1, where a rollout of 3,000 rounds cannot tell


def rows(settings: Settings) -> Iterator[Row]:
    import ipodyn

    name = "analytic map, K = 4"
    if not (takes("analytic") and takes("rollouts")):
        yield missing(name, "`stability_map` knows rollouts only")
        return
    job = paper_job("cyclic", 4, settings.matrices(128), 3000)
    pair = interleaved(
        lambda: whole_map(job, rollouts=False),
        lambda: whole_map(job),
        settings.repeats,
        work_a=job.num_trajectories,
        work_b=job.num_trajectories,
    )
    yield Row(
        f"{name}, {job.num_trajectories:,} points: million points a second", pair.rate_a.scaled(1e-6), 5, unit="M/s"
    )
    radius, regime = pair.output_a.radius.values, pair.output_b.regime.values
    outside = np.abs(radius - 1) > BAND
    stable = (regime == ipodyn.Regime.converges) | (regime == ipodyn.Regime.collapses)
    same = float(np.mean((radius < 1)[outside] == stable[outside]))
    note = f"{same:.2%} the same verdict outside a band of {BAND:.0%}; the rollouts leave early"
    yield Row(f"{name} / rollouts of 3,000 rounds", pair.ratio, 10, note=note, agree=same >= 0.99)
    large = paper_job("cyclic", 4, settings.matrices(4096), 3000)
    times = [seconds(lambda: whole_map(large, rollouts=False))[0] for _ in range(settings.repeats + 1)][1:]
    rate = Spread.of([large.num_trajectories / time for time in times]).scaled(1e-6)
    yield Row(f"{name}, {large.num_trajectories:,} points: million points a second", rate, 5, unit="M/s")
    # Loops that settle let rollouts off lightly: the same on loops that never do.
    moving = moving_job(4, settings.matrices(64), 3000)
    pair = interleaved(
        lambda: whole_map(moving, rollouts=False),
        lambda: whole_map(moving),
        settings.repeats,
    )
    yield Row(f"{name} / rollouts of 3,000 rounds, nothing settles", pair.ratio, 10)


def gradient(settings: Settings) -> Iterator[Row]:
    """The derivative of a functional of fixed points with respect to all matrices, against the solves."""
    import jax
    import jax.numpy as jnp

    import ipodyn

    name = "gradient of the entropy of fixed points / the solve"
    if not hasattr(ipodyn, "fixed_point"):
        yield missing(name, "there is no `fixed_point`")
        return
    P = jnp.asarray(paper_job("cyclic", 4, settings.matrices(4096), 1).P)

    def entropy(P, alpha):
        loop = ipodyn.MRS(P, alpha=alpha, beta=2.0, lam=0.8)
        return ipodyn.entropy(ipodyn.fixed_point(loop, throw=False).policy)

    solve = jax.jit(jax.vmap(entropy, in_axes=(0, None)))
    slope = jax.jit(jax.vmap(jax.value_and_grad(entropy, argnums=(0, 1)), in_axes=(0, None)))
    alpha = jnp.asarray(0.7, P.dtype)
    pair = interleaved(
        lambda: jax.block_until_ready(slope(P, alpha)), lambda: jax.block_until_ready(solve(P, alpha)), settings.repeats
    )
    value = pair.ratio.inverse()
    finite = all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(pair.output_a))
    yield Row(name, value, 3, at_most=True, agree=finite, note="value and gradient, in P and alpha")
