"""The engine by itself: devices, growth, memory, compilation, import, and DPO against IPO."""

from collections.abc import Iterator

import jax

from ..jobs import Job, moving_job
from ..peers import ipodyn_peer
from ..probe import measure
from ..report import Row, missing
from ..timing import Spread, interleaved, seconds
from . import Settings


def devices(settings: Settings) -> Iterator[Row]:
    name = "two devices / one"
    available = jax.local_devices()
    if len(available) < 2:
        yield missing(name, "JAX has one device")
        return
    job = moving_job(4, settings.matrices(256), 2000)
    pair = interleaved(
        ipodyn_peer.prepare(job, devices=available[:2]),
        ipodyn_peer.prepare(job, devices=available[:1]),
        settings.repeats,
    )
    same = all((a == b).all() for a, b in zip(pair.output_a, pair.output_b, strict=True))
    yield Row(name, pair.ratio, 1.8, note="bit for bit" if same else "not bit for bit", agree=same)


def dpo(settings: Settings) -> Iterator[Row]:
    import ipodyn

    job = moving_job(4, settings.matrices(32), 1000)
    pair = interleaved(
        ipodyn_peer.prepare(job, objective=ipodyn.DPO()),
        ipodyn_peer.prepare(job),
        settings.repeats,
        work_a=job.num_rounds,
        work_b=job.num_rounds,
    )
    note = f"{pair.rate_a.median / 1e6:,.1f} against {pair.rate_b.median / 1e6:,.1f} M trajectory-rounds/s"
    yield Row("K = 4: MRS-DPO / MRS-IPO", pair.ratio, 1 / 8, note=note, details={"rate_dpo": pair.rate_a})


def growth(settings: Settings) -> Iterator[Row]:
    """Seconds per trajectory-round at each size over those at the smallest, the sizes in turns."""
    if settings.quick:
        return
    steps, side = 3000, 20
    sizes = [10_000, 100_000, 1_000_000, 10_000_000]
    jobs: list[Job] = [moving_job(4, n // side**2, steps, side=side) for n in sizes]
    # The largest takes a minute: it is measured once.
    for job, size in list(zip(jobs, sizes, strict=True))[1:]:
        repeats = min(settings.repeats, 1 if size >= 5e6 else 5)
        # The small job several times over, so that both take long enough.
        again = 10
        small = ipodyn_peer.prepare(jobs[0])

        def many(run=small, again=again) -> None:
            for _ in range(again):
                run()

        pair = interleaved(
            many, ipodyn_peer.prepare(job), repeats, work_a=again * jobs[0].num_rounds, work_b=job.num_rounds
        )
        name = f"time per trajectory-round, {job.num_trajectories:,} / {jobs[0].num_trajectories:,} trajectories"
        yield Row(name, pair.ratio, 1.2, at_most=True, note=f"{pair.rate_b.median / 1e6:,.0f} M/s")


def memory(settings: Settings) -> Iterator[Row]:
    """The rise of the peak beyond what is returned, in processes of their own."""
    if settings.quick:
        return
    many = 4000
    base = measure("peak_memory", many // 10, 10)
    for name, size in {"10 times the points": (many, 10), "100 times the rounds": (many // 10, 1000)}.items():
        found = measure("peak_memory", *size)
        extra = [(probe["rise"] - probe["returned"]) / 1e6 for probe in (base, found)]
        note = (
            f"rise of the peak {found['rise'] / 1e6:,.0f} MB for {found['points']:,.0f} points, of which "
            f"{found['returned'] / 1e6:,.0f} MB are returned; "
            f"{base['rise'] / 1e6:,.0f} MB and {base['returned'] / 1e6:,.0f} MB at the smaller size"
        )
        value = Spread.of([max(extra[1] - extra[0], 0.0)])
        details = {"small": base, "large": found}
        yield Row(f"memory beyond the results, {name}: growth", value, unit="MB", note=note, details=details)


def start(settings: Settings) -> Iterator[Row]:
    repeats = 1 if settings.quick else min(settings.repeats, 3)
    measure("import_time")  # the first import compiles the modules, as the first one after an installation does
    probes = [measure("import_time") for _ in range(repeats)]
    value = Spread.of([probe["ipodyn"] for probe in probes])
    note = f"jax itself {Spread.of([probe['jax'] for probe in probes]).median:.2f} s"
    yield Row("import of ipodyn beyond jax", value, 0.5, at_most=True, unit="s", note=note)
    calls = [measure("compile_time") for _ in range(repeats)]
    value = Spread.of([call["first"] - call["second"] for call in calls])
    yield Row("compile time of the default map", value, 5, at_most=True, unit="s")


def gpu(settings: Settings) -> Iterator[Row]:
    """The plain path on a GPU against all cores, where JAX has both."""
    name = "GPU / CPU, plain path"
    try:
        accelerators = jax.devices("gpu")
    except RuntimeError:
        yield missing(name, "no GPU here")
        return
    job = moving_job(4, settings.matrices(4096), 1000)
    part = job.part(job.num_trajectories // 32)
    fast = ipodyn_peer.prepare(job, devices=accelerators)
    slow = ipodyn_peer.prepare(part, devices=jax.devices("cpu"))
    seconds(fast)
    pair = interleaved(fast, slow, settings.repeats, work_a=job.num_rounds, work_b=part.num_rounds)
    note = f"{pair.rate_a.median / 1e6:,.0f} M trajectory-rounds/s"
    yield Row(name, pair.ratio, 10, note=note, details={"rate_gpu": pair.rate_a})
