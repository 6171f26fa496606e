"""Block sizes: what `ipodyn._engine.blocks.block_size` is made from, and whether it still chooses well here."""

from collections.abc import Iterator

from ..jobs import moving_job
from ..peers import ipodyn_peer
from ..report import Row
from ..timing import interleaved
from . import Settings

# K: (matrices, rounds) of a grid of 16 x 16
JOBS = {4: (64, 1000), 8: (32, 500), 16: (16, 300), 64: (2, 100)}
SIZES = (16, 32, 64, 128, 256, 512)


def rows(settings: Settings) -> Iterator[Row]:
    """Every size against the one that is chosen by itself."""
    from ipodyn._engine.blocks import block_size

    for K, (matrices, num_steps) in JOBS.items():
        if settings.quick and K != 8:
            continue
        job = moving_job(K, settings.matrices(matrices), num_steps)
        chosen = block_size(K, 4, num_points=job.num_trajectories)
        for size in SIZES:
            if size == chosen:
                continue
            pair = interleaved(ipodyn_peer.prepare(job, size=size), ipodyn_peer.prepare(job), min(settings.repeats, 3))
            yield Row(f"K = {K}: blocks of {size} / of {chosen}, as chosen", pair.ratio, 1.1, at_most=True)
