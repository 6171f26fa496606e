"""Matrices from the probabilities above their diagonal, on the host, in float64."""

import numpy as np

_GRID = 2.0**40


def from_upper(upper: np.ndarray, K: int) -> np.ndarray:
    """(M, K, K) from (M, K (K - 1) / 2) probabilities of the pairs i < j, in the order of `np.triu_indices`.

    Entries are rounded to multiples of 2**-40 (1e-12). Ratings and scores are few distinct numbers, and what
    is equal as a fraction must be equal here: otherwise the last bit of a mean of thirds decides whether a
    matrix counts as strongly transitive. On that grid `P + P.T == 1` is exact.
    """
    i, j = np.triu_indices(K, 1)
    P = np.full((len(upper), K, K), 0.5)
    P[:, i, j] = np.round(upper * _GRID) / _GRID
    P[:, j, i] = 1 - P[:, i, j]
    return P
