"""How a quantity goes with a parameter, in numbers that a claim can be judged by."""

from typing import Any

import numpy as np

STILL = 1e-5  # relative to the largest value: smaller steps are rounding or what little moves before a loop settles


def trend(
    values: np.ndarray, axis: int, at: np.ndarray, *, floor: float = 0.0, samples: np.ndarray | None = None
) -> dict[str, Any]:
    """How `values` change along `axis`, where the parameter takes the values `at`.

    `floor`: smaller steps say nothing. `samples`: what `values` are the means of over a first axis, where each is known
    up to sampling noise; then steps within twice their standard error (of paired differences) say nothing either.

    `up` and `down`: fractions of the steps between neighbours that rise and fall by more than that and `STILL`.
    `lines_up`, `lines_down`: the same from the first to the last value of each line. `first`, `last`: mean values.
    """
    lines = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    lines = lines.reshape(len(lines), -1)
    least = least_end = max(STILL * float(np.nanmax(np.abs(lines))), floor)
    if samples is not None and len(samples) > 1:
        each = np.moveaxis(np.asarray(samples, np.float64), axis + 1, 1).reshape(len(samples), *lines.shape)
        least = np.maximum(least, 2 * _error(np.diff(each, axis=1)))
        least_end = np.maximum(least_end, 2 * _error(each[:, -1] - each[:, 0]))
    steps, ends = np.diff(lines, axis=0), lines[-1] - lines[0]
    known, known_ends = np.isfinite(steps), np.isfinite(ends)

    def fraction(condition: np.ndarray, known: np.ndarray) -> float:
        return float((condition & known).sum() / max(1, known.sum()))

    return {
        "up": fraction(steps > least, known),
        "down": fraction(steps < -least, known),
        "lines_up": fraction(ends > least_end, known_ends),
        "lines_down": fraction(ends < -least_end, known_ends),
        "first": float(np.nanmean(lines[0])),
        "last": float(np.nanmean(lines[-1])),
        "from": float(at[0]),
        "to": float(at[-1]),
        "lines": int(lines.shape[1]),
        "noisy": samples is not None,
    }


def _error(differences: np.ndarray) -> np.ndarray:
    """The standard error of their mean over the first axis."""
    return np.nanstd(differences, axis=0, ddof=1) / len(differences) ** 0.5


def way_there(quantity: str, rounds: int) -> float:
    """How much of a quantity the way from the start may account for: of the variance over T rounds 2 / T.

    One round elsewhere adds to the variance at most the squared distance of two policies, 2, over T.
    """
    return 2 / rounds if quantity == "variance" else 0.0
