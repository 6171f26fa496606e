"""`python -m benchmarks`: all peers and all bars, side by side, in one process group."""

import argparse
import os
import pathlib
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ipodyn

from . import report
from .report import Row
from .rows import Settings, analytic, blocks, engine, leaving, rates

QUESTIONS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "rates": rates.rows,
    "leaving": leaving.rows,
    "dpo": engine.dpo,
    "analytic": analytic.rows,
    "gradient": analytic.gradient,
    "devices": engine.devices,
    "growth": engine.growth,
    "memory": engine.memory,
    "start": engine.start,
    "gpu": engine.gpu,
    "blocks": blocks.rows,
}
ON_REQUEST = {"blocks"}  # for tuning: named by `--only`, or left out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small jobs, few repeats: a smoke run, not a measurement")
    parser.add_argument("--only", action="append", choices=list(QUESTIONS), help="one question; may be repeated")
    parser.add_argument("--repeats", type=int, help="interleaved pairs of each comparison (7; 2 with --quick)")
    parser.add_argument("--json", type=pathlib.Path, help="write everything to this file")
    arguments = parser.parse_args()
    ipodyn.configure_cpu()
    repeats = arguments.repeats or (2 if arguments.quick else 7)
    settings = Settings(repeats, arguments.quick)
    where = report.machine()
    print(f"{where['processor']}, {where['cores']} cores, load {where['load_average_at_start'][0]:.1f}", end="; ")
    print(where["devices"], *(f"{name} {version}" for name, version in where["versions"].items()), sep=", ")
    print(f"Ratios are medians of {repeats} interleaved pairs; above 1 the first is faster.\n")
    print(report.header(), flush=True)
    rows: list[Row] = []
    start = time.perf_counter()
    for name in arguments.only or [name for name in QUESTIONS if name not in ON_REQUEST]:
        try:
            for row in QUESTIONS[name](settings):
                rows.append(row)
                print(report.line(row), flush=True)
        except Exception as error:  # one broken question must not hide the others
            rows.append(report.missing(name, f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}"))
            print(report.line(rows[-1]), flush=True)
    seconds = time.perf_counter() - start
    print(f"\n{seconds:.0f} s; peak memory {report.peak_memory_bytes() / 1e6:,.0f} MB")
    if arguments.json:
        report.write_json(arguments.json, where, rows, seconds)


if __name__ == "__main__":
    main()
