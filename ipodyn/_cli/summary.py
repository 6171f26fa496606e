"""A stability map in numbers: tables for the terminal and CSV files."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np

from .._diagnosis.thresholds import ENOUGH
from .._maps.statistics import MapStatistics
from .._rollouts.regimes import Regime
from ..data import PreferenceSet

NAMES = [regime.name for regime in Regime]
_BANDS = 5
_AT_RISK = 3


@dataclasses.dataclass(frozen=True)
class Kinds:
    """(M,) masks: which matrices have a majority cycle, which are strongly transitive."""

    cyclic: np.ndarray
    st: np.ndarray

    @classmethod
    def of(cls, preferences: PreferenceSet) -> "Kinds":
        numbered = dataclasses.replace(preferences, prompts=np.arange(len(preferences)))

        def mask(kept: PreferenceSet) -> np.ndarray:
            selected = np.zeros(len(preferences), bool)
            selected[kept.prompts] = True
            return selected

        return cls(mask(numbered.cyclic()), mask(numbered.strongly_transitive()))

    def masks(self) -> dict[str, np.ndarray]:
        """Name -> mask of the kinds that tables tell apart."""
        return {"cyclic": self.cyclic, "strongly transitive": self.st, "neither": ~(self.cyclic | self.st)}


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def band_rows(stats: MapStatistics) -> list[list[str]]:
    """One row for each band of alpha: regimes, what is certified, and up to which beta nearly all converge."""
    alpha, beta, fractions = stats.alpha, stats.beta, stats.fractions()
    rows = []
    for band in np.array_split(np.arange(alpha.size), min(_BANDS, alpha.size)):
        label = f"{alpha[band[0]]:.3g}" if band.size == 1 else f"{alpha[band[0]]:.3g} .. {alpha[band[-1]]:.3g}"
        row = [label, *(_percent(float(np.mean(fractions[name][band]))) for name in NAMES)]
        row += [_percent(float(np.mean(stats.fraction_below_one(name)[band]))) for name in _certified(stats).values()]
        converging = np.mean(fractions[Regime.converges.name][band], axis=0) >= ENOUGH
        upto = int(np.argmin(converging)) if not converging.all() else beta.size
        row.append("none" if upto == 0 else f"{beta[upto - 1]:.3g}" + (" (all)" if upto == beta.size else ""))
        rows.append(row)
    return rows


def band_columns(stats: MapStatistics) -> list[str]:
    return ["alpha", *NAMES, *_certified(stats), f"{ENOUGH:.0%} converge up to beta"]


def _certified(stats: MapStatistics) -> dict[str, str]:
    """What is proved -> the variable that proves it where it is below 1."""
    return {variable.certifies: name for name, variable in stats.variables.items() if variable.certifies}


def difference_lines(stats: MapStatistics) -> list[str]:
    """One line for each code that is pointed out, such as a rollout that contradicts its fixed point."""
    numbers = [(int(counts.sum()), code.sentence) for code, counts in stats.noted()]
    return [f"{number:,} {'cell' if number == 1 else 'cells'}: {sentence}" for number, sentence in numbers if number]


def write_cells(path: pathlib.Path, stats: MapStatistics) -> None:
    """summary.csv: one row for each (alpha, beta)."""
    columns = {f"fraction_{name}": fraction for name, fraction in stats.fractions().items()}
    columns |= {f"fraction_{proved}": stats.fraction_below_one(name) for proved, name in _certified(stats).items()}
    columns |= {f"fraction_{code.name}": counts / stats.num_matrices for code, counts in stats.noted()}
    for name, variable in stats.variables.items():
        if variable.averaged:
            columns[f"mean_{name}"], columns[f"std_{name}"] = stats.moments(name)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["alpha", "beta", *columns])
        for a, alpha in enumerate(stats.alpha):
            for b, beta in enumerate(stats.beta):
                writer.writerow(
                    [_number(alpha), _number(beta), *(_number(values[a, b]) for values in columns.values())]
                )


def _largest(values: np.ndarray) -> np.ndarray:
    """Of each matrix; one without any number has none that is largest."""
    return np.fmax.reduce(values.reshape(len(values), -1), axis=1)


class MatrixTable:
    """matrices.csv, one row for each matrix in the order of the map, and what the report takes from its rows.

    `add` takes the next matrices, any number of them.
    """

    def __init__(self, path: pathlib.Path, stats: MapStatistics, preferences: PreferenceSet, kinds: Kinds):
        self.preferences, self.kinds = preferences, kinds
        self._largest = [name for name, variable in stats.variables.items() if variable.largest]
        self._noted = [(name, *noted) for name, variable in stats.variables.items() for noted in variable.noted()]
        self._cells = stats.alpha.size * stats.beta.size
        self._by_kind = {name: np.zeros(len(NAMES), np.int64) for name in kinds.masks()}
        self._at_risk: list[tuple[float, float, list[str]]] = []
        self._seen = 0
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        heads = [f"fraction_{name}" for name in (*NAMES, *(code.name for *_, code in self._noted))]
        heads += [f"largest_{name}" for name in self._largest]
        self._writer.writerow(["matrix", "prompt", "responses", "cyclic", "strongly_transitive", *heads])

    def __enter__(self) -> "MatrixTable":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, fields: Mapping[str, np.ndarray]) -> None:
        regime = fields["regime"]
        matrices = np.arange(self._seen, self._seen + len(regime))
        self._seen += len(regime)
        counts = np.stack([np.count_nonzero(regime == code, axis=(1, 2)) for code in Regime], axis=-1)
        for name, mask in self.kinds.masks().items():
            self._by_kind[name] += counts[mask[matrices]].sum(axis=0)
        fractions = counts / self._cells
        noted = [np.count_nonzero(fields[name] == code, axis=(1, 2)) / self._cells for name, code, _ in self._noted]
        largest = [_largest(fields[name]) for name in self._largest]
        self._note_risks(matrices, fractions, largest[0])
        numbers = np.column_stack([fractions, *noted, *largest])
        for matrix, values in zip(matrices, numbers, strict=True):
            members = " ".join(str(response) for response in self.preferences.responses[matrix])
            kind = [int(self.kinds.cyclic[matrix]), int(self.kinds.st[matrix])]
            row = [matrix, self.preferences.prompts[matrix], members, *kind, *(_number(value) for value in values)]
            self._writer.writerow(row)

    def _note_risks(self, matrices: np.ndarray, fractions: np.ndarray, largest: np.ndarray) -> None:
        converging = fractions[:, Regime.converges]
        for place in np.lexsort((-largest, converging))[:_AT_RISK]:
            matrix, spread = matrices[place], float(largest[place])
            row = [
                f"{matrix} (prompt {self.preferences.prompts[matrix]})",
                *(_percent(fraction) for fraction in fractions[place]),
                f"{spread:.3g}",
            ]
            if converging[place] < 1:
                self._at_risk.append((float(converging[place]), np.inf if np.isnan(spread) else -spread, row))
        self._at_risk = sorted(self._at_risk, key=lambda risk: risk[:2])[:_AT_RISK]

    def kind_columns(self) -> list[str]:
        return ["kind", "matrices", *NAMES]

    def kind_rows(self) -> list[list[str]]:
        """One row for each kind of matrix, over the whole grid."""
        return [
            [name, f"{size:,}", *(_percent(count / (size * self._cells)) for count in self._by_kind[name])]
            for name, mask in self.kinds.masks().items()
            if (size := int(mask.sum()))
        ]

    def at_risk_columns(self) -> list[str]:
        """What is largest where a loop is least calm: the variance, or, without rollouts, the radius."""
        return ["matrix", *NAMES, f"largest {self._largest[0]}"]

    def at_risk_rows(self) -> list[list[str]]:
        """The matrices that converge in the fewest cells."""
        return [row for *_, row in self._at_risk]


def _number(value: SupportsFloat) -> str:
    return f"{float(value):.6g}"
