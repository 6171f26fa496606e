"""Measurements that need a process of their own, each printed as one line of JSON."""

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any


@functools.cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    """Where the probes keep compiled modules: users have them too, whatever the environment here says."""
    return tempfile.TemporaryDirectory(prefix="ipodyn-benchmark-")


def measure(what: str, *arguments: int) -> Any:
    """Run a probe in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.probe", what, *map(str, arguments)]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": _bytecode().name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"probe {what} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def import_time() -> dict[str, float]:
    """Seconds to import jax, and then ipodyn."""
    start = time.perf_counter()
    import jax  # noqa: F401

    between = time.perf_counter()
    import ipodyn  # noqa: F401

    return {"jax": between - start, "ipodyn": time.perf_counter() - between}


def compile_time() -> dict[str, float]:
    """First and second call of a small map with the default settings."""
    import ipodyn

    ipodyn.configure_cpu()
    from . import jobs

    job = jobs.mixed_job(4, 1, 3000)

    def call() -> float:
        start = time.perf_counter()
        ipodyn.stability_map(job.P, alpha=job.alpha, beta=job.beta)
        return time.perf_counter() - start

    return {"first": call(), "second": call()}


def peak_memory(matrices: int, num_steps: int) -> dict[str, float]:
    """Bytes by which the peak rises in a map, and the bytes of what it returns."""
    import ipodyn

    ipodyn.configure_cpu()
    from . import jobs
    from .peers import ipodyn_peer

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    ipodyn_peer.prepare(jobs.moving_job(4, 64, num_steps))()  # compilation takes memory too
    job = jobs.moving_job(4, matrices, num_steps)
    before = peak()
    found = ipodyn_peer.whole_map(job)
    return {"rise": peak() - before, "returned": found.nbytes, "points": job.num_trajectories}


PROBES = {"import_time": import_time, "compile_time": compile_time, "peak_memory": peak_memory}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](*map(int, sys.argv[2:]))))
