"""Rollout rates: the public API against every peer, on loops that never settle."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from ..jobs import Job, agreement, mixed_job, moving_job
from ..peers import Unavailable, cpp_peer, ipodyn_peer, numba_peer, numpy_peer, scan_peer, torch_peer
from ..report import Row, missing
from ..timing import interleaved
from . import Settings

# K: (matrices, rounds) of a grid of 16 x 16, a fraction of a second of work for the fast ones
SIZES = {3: (256, 2000), 4: (256, 2000), 8: (64, 1000), 16: (32, 500), 64: (2, 200)}
# The peer, the share of the trajectories that keeps one run of it well under a second, and its bar at each K
PEERS: tuple[tuple[ModuleType, float, dict[int, float]], ...] = (
    (cpp_peer, 1.0, {3: 0.9, 4: 0.9, 8: 0.5, 16: 0.5, 64: 0.5}),
    (scan_peer, 1 / 8, {3: 15, 4: 15}),
    (numpy_peer, 1 / 32, {3: 60, 4: 60}),
    (numba_peer, 1 / 16, {3: 0, 4: 0}),
    (torch_peer, 1 / 32, {3: 0, 4: 0}),
)


def compare(peer: ModuleType, job: Job, share: float, bar: float, settings: Settings) -> Row:
    """One row: rates on `job` and on its part for the peer, and agreement on a job with every regime."""
    name = f"K = {job.K}: ipodyn / {peer.NAME}"
    part = job.part(round(job.num_trajectories * share))
    mixed = mixed_job(job.K, 4 if job.K <= 16 else 1, 400)
    try:
        theirs = peer.prepare(part)
        agreed = agreement(mixed, ipodyn_peer.prepare(mixed)(), peer.prepare(mixed)())
    except Unavailable as reason:
        return missing(name, str(reason))
    pair = interleaved(
        ipodyn_peer.prepare(job), theirs, settings.repeats, work_a=job.num_rounds, work_b=part.num_rounds
    )
    # The whole of the moving job oscillates: nobody left early.
    moving = float(np.mean(pair.output_a.variance > 1e-6))
    note = f"{pair.rate_a.median / 1e6:,.1f} against {pair.rate_b.median / 1e6:,.1f} M trajectory-rounds/s"
    details = {
        "rate_ipodyn": pair.rate_a,
        "rate_peer": pair.rate_b,
        "compile_seconds_ipodyn": pair.first_a,
        "compile_seconds_peer": pair.first_b,
        "trajectories": job.num_trajectories,
        "rounds": job.num_steps,
        "share_moving": moving,
        "agreement": agreed._asdict(),
    }
    if peer is cpp_peer:
        details["instructions"] = cpp_peer.instructions()
    return Row(name, pair.ratio, bar or None, note=note, agree=agreed.agree, details=details)


def rows(settings: Settings) -> Iterator[Row]:
    for K, (matrices, num_steps) in SIZES.items():
        if settings.quick and K not in (4, 8):
            continue
        job = moving_job(K, settings.matrices(matrices), num_steps)
        for peer, share, bars in PEERS:
            if K in bars:
                yield compare(peer, job, share, bars[K], settings)
