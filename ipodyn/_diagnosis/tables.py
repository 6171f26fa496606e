"""The tables of a diagnosis, for CSV and Parquet."""

import csv
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import PreferenceSet
from .diagnosis import Diagnosis
from .words import cycle_words, reason

if TYPE_CHECKING:
    pass

_ROWS = 8192  # of the table that are made into text at a time


def table_columns(found: Diagnosis, preferences: PreferenceSet) -> dict[str, np.ndarray]:
    """One row for each prompt, in the order of the set; responses by their names."""
    cycles = [cycle_words(found, preferences.responses, index) for index in range(len(found))]
    columns: dict[str, Any] = {
        "matrix": np.arange(len(found)),
        "prompt": preferences.prompts,
        "responses": [" ".join(str(name) for name in row) for row in preferences.responses],
        "verdict": found.verdict,
        "cyclic": found.cyclic,
        "strongly_transitive": found.strongly_transitive,
        "cyclic_share": found.cyclic_share,
        "cycle": cycles,
        "curl": found.curl,
        "cycle_share": found.triangle_share,
        "why": [reason(found, preferences.responses, index) for index in range(len(found))],
        "stable": found.stable,
        "radius": found.radius,
        "period": found.period,
        "entropy": found.entropy,
        "drift": found.drift,
        "critical_beta": found.critical_beta,
        "critical_alpha": found.critical_alpha,
        "critical_lam": found.critical_lam,
        "residual": found.residual,
    }
    if found.counted:
        columns |= {
            "stable_probability": found.stable_probability,
            "radius_low": found.radius_low,
            "radius_high": found.radius_high,
        }
    return columns


def write_csv(path: pathlib.Path, columns: dict[str, Any]) -> None:
    """Ten significant digits; a flag is 0 or 1. A few thousand rows at a time, which keeps the text of them small."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for first in range(0, len(columns["matrix"]), _ROWS):
            some = [_cells(values[first : first + _ROWS]) for values in columns.values()]
            writer.writerows(zip(*some, strict=True))


def _cells(values: np.ndarray | list[str]) -> list[Any]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return [f"{value:.10g}" for value in values.tolist()]
    if isinstance(values, np.ndarray) and values.dtype.kind == "b":
        return values.astype(int).tolist()
    return values.tolist() if isinstance(values, np.ndarray) else values


def write_parquet(path: pathlib.Path, columns: dict[str, Any]) -> None:
    import polars

    polars.DataFrame(columns).write_parquet(path)
