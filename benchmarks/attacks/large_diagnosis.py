"""`ipodyn diagnose` on many prompts: seconds, processor seconds, peak memory and the sizes of what it writes.

Six judged pairs for every prompt of four responses, each compared 1 to 20 times by labellers who now and then go round
in circles, written as one table; then the command as users start it, in a process of its own, with nothing compiled
before.

    python -m benchmarks.attacks.large_diagnosis --prompts 100000
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

K = 4
MOST = 20  # comparisons of a pair


def judged_pairs(prompts: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One row a pair: scores of a normal utility with a cyclic part, as labellers' votes; `weight` counts them."""
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(K, 1)
    utility = rng.normal(size=(prompts, K))
    logits = utility[:, i] - utility[:, j] + rng.normal(size=(prompts, i.size))
    votes = rng.integers(1, MOST + 1, logits.shape)
    won = rng.binomial(votes, 1 / (1 + np.exp(-logits)))
    return {
        "prompt_id": np.repeat(np.arange(prompts), i.size),
        "first": np.tile(i, prompts),
        "second": np.tile(j, prompts),
        "score": (won / votes).ravel(),
        "weight": votes.ravel(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks.large_diagnosis", description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--options", default="", help="more options of `ipodyn diagnose`, in one string")
    parser.add_argument("--timeout", type=float, help="seconds after which the command is ended")
    arguments = parser.parse_args()
    import polars

    with tempfile.TemporaryDirectory() as folder:
        table, out = pathlib.Path(folder) / f"pairs.{arguments.format}", pathlib.Path(folder) / "out"
        frame = polars.DataFrame(judged_pairs(arguments.prompts))
        frame.write_csv(table) if arguments.format == "csv" else frame.write_parquet(table)
        print(f"{arguments.prompts:,} prompts, {frame.height:,} rows, {table.stat().st_size / 1e6:.0f} MB", flush=True)
        del frame
        program = "import sys; from ipodyn._cli.app import run; sys.exit(run(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "diagnose", str(table), "--group", str(K), "--out", str(out)]
        command += arguments.options.split()
        # An empty cache of compiled programs, as after an installation.
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        start = time.perf_counter()
        try:
            done = subprocess.run(command, env=environment, timeout=arguments.timeout)
            ended = f"exit {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = "NOT FINISHED"
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{ended}: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time, ", end="")
        print(f"peak memory {used.ru_maxrss / 1e6:.2f} GB on {len(os.sched_getaffinity(0))} cores")
        for path in sorted(out.glob("*")):
            print(f"  {path.name:<20} {path.stat().st_size / 1e6:8.2f} MB")


if __name__ == "__main__":
    main()
