"""A stability map in numbers: tables for the terminal and CSV files."""

import csv
import dataclasses
import pathlib
import warnings
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

from .._regimes import Regime
from .._stability_map import CODES
from ..data import PreferenceSet

if TYPE_CHECKING:
    import xarray

NAMES = [regime.name for regime in Regime]
_BANDS = 5
_SAFE = 0.95
_AT_RISK = 3
DIFFERENCES = {
    "stable_but_moving": "the fixed point is stable, yet the rollout keeps moving (a cycle beside it)",
    "unstable_but_still": "the rollout stands still on an unstable fixed point (symmetry keeps it from leaving)",
}


@dataclasses.dataclass(frozen=True)
class Kinds:
    """(M,) masks: which matrices have a majority cycle, which are strongly transitive."""

    cyclic: np.ndarray
    st: np.ndarray

    @classmethod
    def of(cls, preferences: PreferenceSet) -> "Kinds":
        numbered = dataclasses.replace(preferences, prompts=np.arange(len(preferences)))

        def mask(kept: PreferenceSet) -> np.ndarray:
            found = np.zeros(len(preferences), bool)
            found[kept.prompts] = True
            return found

        return cls(mask(numbered.cyclic()), mask(numbered.strongly_transitive()))


def shares(regime: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Share of each regime over the axes, regimes last."""
    return np.stack([np.mean(regime == code, axis=axes) for code in Regime], axis=-1)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def band_rows(dataset: "xarray.Dataset") -> list[list[str]]:
    """One row for each band of alpha: regimes, what is certified, and up to which beta nearly all converge."""
    regime = np.asarray(dataset["regime"])
    alpha, beta = np.asarray(dataset["alpha"]), np.asarray(dataset["beta"])
    rows = []
    for band in np.array_split(np.arange(alpha.size), min(_BANDS, alpha.size)):
        part = regime[:, band]
        label = f"{alpha[band[0]]:.3g}" if band.size == 1 else f"{alpha[band[0]]:.3g} .. {alpha[band[-1]]:.3g}"
        row = [label, *(_percent(share) for share in shares(part, (0, 1, 2)))]
        if "contraction_bound" in dataset:
            row.append(_percent(float(np.mean(np.asarray(dataset["contraction_bound"])[:, band] < 1))))
        converging = np.mean(part == Regime.converges, axis=(0, 1)) >= _SAFE
        upto = int(np.argmin(converging)) if not converging.all() else beta.size
        row.append("none" if upto == 0 else f"{beta[upto - 1]:.3g}" + (" (all)" if upto == beta.size else ""))
        rows.append(row)
    return rows


def band_columns(dataset: "xarray.Dataset") -> list[str]:
    certified = ["certified"] if "contraction_bound" in dataset else []
    return ["alpha", *NAMES, *certified, f"{_SAFE:.0%} converge up to beta"]


def kind_rows(dataset: "xarray.Dataset", kinds: Kinds) -> list[list[str]]:
    """One row for each kind of matrix, over the whole grid."""
    regime = np.asarray(dataset["regime"])
    named = {
        "cyclic": kinds.cyclic,
        "strongly transitive": kinds.st,
        "neither": ~(kinds.cyclic | kinds.st),
    }
    return [
        [name, f"{int(mask.sum()):,}", *(_percent(share) for share in shares(regime[mask], (0, 1, 2)))]
        for name, mask in named.items()
        if mask.any()
    ]


def difference_shares(dataset: "xarray.Dataset", axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Share of the cells whose rollout contradicts the fixed point, by how; empty without both kinds of evidence."""
    if "disagreement" not in dataset:
        return {}
    found = np.asarray(dataset["disagreement"])
    codes = {name: CODES["disagreement"].index(name) for name in DIFFERENCES}
    return {name: np.asarray(np.mean(found == code, axis=axes)) for name, code in codes.items()}


def difference_lines(dataset: "xarray.Dataset") -> list[str]:
    """One line for each way in which some rollout contradicts its fixed point."""
    cells = np.asarray(dataset["regime"]).size
    numbers = {name: round(float(share) * cells) for name, share in difference_shares(dataset, (0, 1, 2)).items()}
    return [
        f"{number:,} {'cell' if number == 1 else 'cells'}: {DIFFERENCES[name]}"
        for name, number in numbers.items()
        if number
    ]


def _spread_of(dataset: "xarray.Dataset") -> str:
    """What is largest where a loop is least calm: the variance, or, without rollouts, the radius."""
    return "variance" if "variance" in dataset else "radius"


def at_risk_columns(dataset: "xarray.Dataset") -> list[str]:
    return ["matrix", *NAMES, f"largest {_spread_of(dataset)}"]


def at_risk_rows(dataset: "xarray.Dataset", preferences: PreferenceSet) -> list[list[str]]:
    """The matrices that converge in the fewest cells."""
    by_matrix = shares(np.asarray(dataset["regime"]), (1, 2))
    largest = _largest(np.asarray(dataset[_spread_of(dataset)]))
    order = np.lexsort((-largest, by_matrix[:, Regime.converges]))[:_AT_RISK]
    return [
        [
            f"{matrix} (prompt {preferences.prompts[matrix]})",
            *(_percent(share) for share in by_matrix[matrix]),
            f"{largest[matrix]:.3g}",
        ]
        for matrix in order
        if by_matrix[matrix, Regime.converges] < 1
    ]


def _largest(values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a matrix without any number has none that is largest
        return np.nanmax(values, axis=(1, 2))


def write_cells(path: pathlib.Path, dataset: "xarray.Dataset") -> None:
    """summary.csv: one row for each (alpha, beta)."""
    regime_shares = shares(np.asarray(dataset["regime"]), (0,))
    columns: dict[str, np.ndarray] = {f"share_{name}": regime_shares[..., code] for code, name in enumerate(NAMES)}
    if "contraction_bound" in dataset:
        columns["share_certified"] = np.mean(np.asarray(dataset["contraction_bound"]) < 1, axis=0)
    columns |= {f"share_{name}": share for name, share in difference_shares(dataset, (0,)).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # cells without a number stay NaN
        for name in ("variance", "entropy", "radius", "fixed_point_entropy"):
            if name not in dataset:
                continue
            values = np.asarray(dataset[name], np.float64)
            columns[f"mean_{name}"], columns[f"std_{name}"] = np.nanmean(values, 0), np.nanstd(values, 0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["alpha", "beta", *columns])
        for a, alpha in enumerate(np.asarray(dataset["alpha"])):
            for b, beta in enumerate(np.asarray(dataset["beta"])):
                writer.writerow(
                    [_number(alpha), _number(beta), *(_number(values[a, b]) for values in columns.values())]
                )


def write_matrices(path: pathlib.Path, dataset: "xarray.Dataset", preferences: PreferenceSet, kinds: Kinds) -> None:
    """matrices.csv: one row for each matrix, in the order of the map."""
    by_matrix = shares(np.asarray(dataset["regime"]), (1, 2))
    differing = difference_shares(dataset, (1, 2))
    largest = {
        f"largest_{name}": _largest(np.asarray(dataset[name])) for name in ("variance", "radius") if name in dataset
    }
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        heads = [*(f"share_{name}" for name in NAMES), *(f"share_{name}" for name in differing), *largest]
        writer.writerow(["matrix", "prompt", "responses", "cyclic", "strongly_transitive", *heads])
        for matrix in range(len(preferences)):
            members = " ".join(str(response) for response in preferences.responses[matrix])
            kind = [int(kinds.cyclic[matrix]), int(kinds.st[matrix])]
            values = [*by_matrix[matrix], *(column[matrix] for column in (differing | largest).values())]
            numbers = [_number(value) for value in values]
            writer.writerow([matrix, preferences.prompts[matrix], members, *kind, *numbers])


def _number(value: SupportsFloat) -> str:
    return f"{float(value):.6g}"
