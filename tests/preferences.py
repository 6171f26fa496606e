"""Random preference matrices for tests, made with NumPy alone."""

import numpy as np


def complementary(upper: np.ndarray) -> np.ndarray:
    """Preference matrices (..., K, K) whose entries above the diagonal are those of `upper`."""
    above = np.triu(np.ones(upper.shape[-2:], dtype=bool), 1)
    return np.where(above, upper, np.where(above.T, 1 - np.swapaxes(upper, -1, -2), 0.5))


def random_P(rng: np.random.Generator, M: int, K: int, edge: float = 0.0) -> np.ndarray:
    """Matrices (M, K, K) with independent entries, uniform between `edge` and 1 - `edge`."""
    return complementary(rng.uniform(edge, 1 - edge, size=(M, K, K)))


def shuffled(rng: np.random.Generator, P: np.ndarray) -> np.ndarray:
    """The same matrices with their responses renamed at random."""
    order = rng.permuted(np.tile(np.arange(P.shape[-1]), (len(P), 1)), axis=1)
    return P[np.arange(len(P))[:, None, None], order[:, :, None], order[:, None, :]]


def strongly_transitive(rng: np.random.Generator, number: int, K: int) -> np.ndarray:
    """Strictly strongly transitive matrices (number, K, K), in a random order of the responses."""
    values = np.sort(-np.sort(-rng.uniform(size=(number, K, K)), axis=1), axis=2)
    ladder = (np.arange(K)[None, :] - np.arange(K)[:, None]) / (2 * (K - 1))
    return shuffled(rng, 0.5 + 0.49 * (values - values.swapaxes(1, 2)) + 0.01 * ladder)


def mixture(rng: np.random.Generator, number: int, K: int) -> np.ndarray:
    """A sixth each: eighths with many ties, ties with a few wins, wins by 1e-9, transitive, strongly transitive with
    ties, continuous. All but the last two have ties or margins near them."""
    n = -(-number // 6)
    grid = complementary(rng.integers(0, 9, (n, K, K)) / 8)
    tied = complementary(0.5 + rng.choice([0, 0, 0, 0.25, -0.25], (n, K, K)))
    near = complementary(0.5 + rng.choice([0.0, 1e-9, -1e-9, 0.3, -0.3], (n, K, K)))
    ordered = shuffled(rng, complementary(0.5 + rng.choice([0.125, 0.25, 0.5], (n, K, K))))
    values = np.sort(-np.sort(-rng.uniform(size=(n, K, K)), axis=1), axis=2)
    strong = shuffled(rng, 0.5 + np.round(4 * (values - values.swapaxes(1, 2))) / 8)
    continuous = complementary(rng.uniform(0.02, 0.98, size=(n, K, K)))
    return np.concatenate([grid, tied, near, ordered, strong, continuous])[:number]
