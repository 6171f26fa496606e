"""The tables of a diagnosis, for CSV and Parquet."""

import csv
import pathlib
from typing import Any

import numpy as np

from ..data import PreferenceSet
from .diagnosis import Diagnosis
from .verdicts import verdicts
from .words import cycle_words, reasons

_ROWS = 8192  # of the table that are made into text at a time


def table_columns(diagnosis: Diagnosis, preferences: PreferenceSet) -> dict[str, np.ndarray]:
    """One row for each prompt, in the order of the set; responses by their names."""
    everyone = np.arange(len(diagnosis))
    preferred, equilibrium, limits = diagnosis.preferences, diagnosis.equilibrium, diagnosis.limits
    columns: dict[str, Any] = {
        "matrix": everyone,
        "prompt": preferences.prompts,
        "responses": [" ".join(str(name) for name in row) for row in preferences.responses],
        "verdict": verdicts(equilibrium, diagnosis.alpha),
        "cyclic": preferred.cyclic,
        "strongly_transitive": preferred.strongly_transitive,
        "cyclic_fraction": preferred.cyclic_fraction,
        "cycle": [cycle_words(diagnosis, preferences.responses, index) for index in everyone.tolist()],
        "cycle_mass": equilibrium.cycle_mass,
        "why": reasons(diagnosis, preferences.responses, everyone),
        "stable": equilibrium.stable,
        "close": equilibrium.close,
        "collapsed": equilibrium.collapses,
        "certified": diagnosis.certified,
        "radius": equilibrium.radius,
        "period": equilibrium.period,
        "entropy": equilibrium.entropy,
        "drift": equilibrium.drift,
        "critical_beta": limits.beta,
        "critical_alpha": limits.alpha,
        "critical_lam": limits.lam,
        "residual": equilibrium.residual,
    }
    if diagnosis.uncertainty.counted:
        columns |= {
            "stable_probability": diagnosis.uncertainty.stable_probability,
            "radius_low": diagnosis.uncertainty.radius_low,
            "radius_high": diagnosis.uncertainty.radius_high,
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
