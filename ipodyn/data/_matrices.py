"""Matrices from the probabilities above their diagonal, on the host, in float64."""

import numpy as np

from .._preferences.pairs import from_upper

_GRID = 2.0**40


def from_rounded(upper: np.ndarray, K: int) -> np.ndarray:
    """(M, K, K) from (M, K (K - 1) / 2) probabilities of the pairs i < j, row by row.

    Entries are rounded to multiples of 2**-40 (1e-12). Ratings and scores are few distinct numbers, and what
    is equal as a fraction must be equal here: otherwise the last bit of a mean of thirds decides whether a
    matrix counts as strongly transitive. On that grid `P + P.T == 1` is exact.
    """
    return from_upper(np.round(upper * _GRID) / _GRID, K)
