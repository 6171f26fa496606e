"""Rows, the table and the JSON file."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
from typing import Any

from .timing import Spread


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the report.

    `value` is what the bar is about (a ratio unless `unit` says otherwise); `bar` is its limit, from below unless
    `at_most`. `details` go to the JSON file, `note` to the table as well. Without a value, `note` says why.
    """

    name: str
    value: Spread | None
    bar: float | None = None
    at_most: bool = False
    unit: str = "x"
    note: str = ""
    agree: bool | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def met(self) -> bool | None:
        """Whether the median keeps the bar; None where there is none, or nothing was measured."""
        if self.value is None or self.bar is None:
            return None
        return self.value.median <= self.bar if self.at_most else self.value.median >= self.bar

    def verdict(self) -> str:
        if self.value is None:
            return "not available"
        met = self.met()
        if met is None or self.bar is None:
            return ""
        apart = abs(self.value.median / self.bar - 1)
        return f"{'met' if met else 'MISSED'} by {apart:.0%}"

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "met": self.met(), "available": self.value is not None}


def missing(name: str, reason: str) -> Row:
    """A row that could not be measured, and why."""
    return Row(name, None, note=reason)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def header() -> str:
    return "\n".join(
        (
            "| what | median | min – max | bar | verdict | agree | notes |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        )
    )


def line(row: Row) -> str:
    """A row as a line of a Markdown table."""
    value = row.value
    median = "" if value is None else f"{_number(value.median)} {row.unit}"
    spread = "" if value is None else f"{_number(value.smallest)} – {_number(value.largest)}"
    bar = "" if row.bar is None else f"{'≤' if row.at_most else '≥'} {_number(row.bar)}"
    agree = {None: "", True: "yes", False: "NO"}[row.agree]
    return f"| {row.name} | {median} | {spread} | {bar} | {row.verdict()} | {agree} | {row.note} |"


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")), "unknown")


def machine() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    import jax

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    packages = ("ipodyn", "jax", "jaxlib", "equinox", "numpy", "numba", "torch")
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_start": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.system(),
        "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {package: found for package in packages if (found := version(package))},
    }


def peak_memory_bytes() -> int:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_json(path: pathlib.Path, where: dict[str, Any], rows: list[Row], seconds: float) -> None:
    report = {
        "machine": where,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "rows": [row.as_json() for row in rows],
    }
    path.write_text(json.dumps(report, indent=1, default=float) + "\n")
