"""How a quantity goes with a parameter, in numbers that a claim can be judged by."""

from typing import Any

import numpy as np

STILL = 1e-5  # relative to the largest value: smaller steps are rounding or what little moves before a loop settles


def trend(values: np.ndarray, axis: int, at: np.ndarray) -> dict[str, Any]:
    """How `values` change along `axis`, where the parameter takes the values `at`.

    `up` and `down`: shares of the steps between neighbours that rise and fall by more than `STILL`; the rest stands.
    `lines_up`, `lines_down`: the same from the first to the last value of each line. `first`, `last`: mean values.
    """
    lines = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    lines = lines.reshape(len(lines), -1)
    least = STILL * float(np.nanmax(np.abs(lines)))
    steps, ends = np.diff(lines, axis=0), lines[-1] - lines[0]
    known, known_ends = np.isfinite(steps), np.isfinite(ends)

    def share(condition: np.ndarray, known: np.ndarray) -> float:
        return float((condition & known).sum() / max(1, known.sum()))

    return {
        "up": share(steps > least, known),
        "down": share(steps < -least, known),
        "lines_up": share(ends > least, known_ends),
        "lines_down": share(ends < -least, known_ends),
        "first": float(np.nanmean(lines[0])),
        "last": float(np.nanmean(lines[-1])),
        "from": float(at[0]),
        "to": float(at[-1]),
        "lines": int(lines.shape[1]),
    }
