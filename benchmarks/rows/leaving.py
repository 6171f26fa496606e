"""Leaving early: the same job with all rounds computed, on sets that settle, partly settle, and never settle."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..jobs import Job, Statistics, moving_job, paper_job
from ..peers import ipodyn_peer
from ..report import Row, missing
from ..timing import interleaved
from . import Settings


def _all_rounds(plan: Any, tile: Any, index: Any) -> Any:
    """The kernel of the map with every round computed."""
    from ipodyn._rollouts import rollout as _rollout

    loop, policy0 = tile.loops(index)
    one_round = loop.round()
    progress, _ = _rollout.run(one_round, one_round.start(policy0), plan)
    orbit = _rollout.finish(one_round, progress)
    return orbit.variance, orbit.entropy


def prepare_all_rounds(job: Job) -> Any:
    """ipodyn's own engine and rounds, without leaving."""
    from ipodyn._engine import blocks as _engine
    from ipodyn._maps import grid as _grid
    from ipodyn._rollouts import statistics as _statistics

    plan = _statistics.Chunking.of(job.num_steps, None)
    size = _engine.block_size(job.K, 4, num_points=job.num_trajectories)
    grid = _grid.Grid.of(job.P, alpha=job.alpha, beta=job.beta, lam=job.lam)
    tile = grid.tile(np.arange(len(job.P)), size)

    def run() -> Statistics:
        fields = _engine.run_points(_all_rounds, plan, tile, job.num_trajectories, size=size)
        # points of the engine: alphas slowest, matrices fastest
        shape = (job.alpha.size, job.beta.size, len(job.P))
        return Statistics(*(np.moveaxis(field.reshape(shape), -1, 0).ravel() for field in fields))

    return run


def compare(name: str, job: Job, bar: float | None, settings: Settings, **options: bool) -> Row:
    import ipodyn

    pair = interleaved(ipodyn_peer.prepare(job, **options), prepare_all_rounds(job), settings.repeats)
    codes = ipodyn_peer.whole_map(job).regime.values
    settled = float(np.mean((codes == ipodyn.Regime.converges) | (codes == ipodyn.Regime.collapses)))
    ours, full = pair.output_a, pair.output_b
    apart = max(float(np.abs(a - b).max()) for a, b in zip(ours, full, strict=True))
    note = f"{settled:.0%} of the cells settle: at most {1 / max(1 - settled, 1e-3):,.1f} x; figures within {apart:.0e}"
    details = {"share_settled": settled, "largest_difference": apart, "trajectories": job.num_trajectories}
    return Row(name, pair.ratio, bar, note=note, agree=apart <= 1e-5, details=details)


def rows(settings: Settings) -> Iterator[Row]:
    try:
        from ipodyn._rollouts.rounds import run_until_standing as _  # noqa: F401
    except ImportError:
        yield missing("leaving early / all rounds", "the engine computes every round")
        return
    count = settings.matrices(128)
    transitive = paper_job("strongly_transitive", 4, count, 3000)
    yield compare("leaving early / all rounds, strongly transitive", transitive, 5, settings, analytic=True)
    if settings.quick:
        return
    cyclic = paper_job("cyclic", 4, count, 3000)
    yield compare("leaving early / all rounds, cyclic", cyclic, None, settings, analytic=True)
    moving = moving_job(4, settings.matrices(256), 2000)
    yield compare("leaving early / all rounds, nothing settles", moving, 0.95, settings)
