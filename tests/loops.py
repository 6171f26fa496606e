"""Random loops for tests, as their fields."""

import numpy as np
from preferences import random_P

from ipodyn import MRS


def random_loops(
    rng: np.random.Generator,
    M: int,
    K: int,
    *,
    alpha: float = 0.9,
    beta: tuple[float, float] = (0.1, 20.0),
    edge: float = 0.0,
) -> tuple[np.ndarray, ...]:
    """Fields of M loops: P, alpha up to that given, beta log-uniform in its range, lam, pi_ref, pi_0."""
    pi_ref, pi_0 = rng.dirichlet(np.ones(K), (2, M))
    betas = np.exp(rng.uniform(np.log(beta[0]), np.log(beta[1]), M))
    return random_P(rng, M, K, edge), rng.uniform(0, alpha, M), betas, rng.uniform(0, 1, M), pi_ref, pi_0


def loop_of(P, alpha, beta, lam, pi_ref, pi_0, objective=None) -> MRS:
    """The loop of these fields, in their order."""
    return MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0, objective=objective)
