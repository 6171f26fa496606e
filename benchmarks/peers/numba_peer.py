"""Numba: a parallel loop over trajectories, each a plain loop over rounds, as a user would write it."""

import functools
from typing import Any

import numpy as np

from ..jobs import Job, Statistics
from . import Runner, Unavailable

NAME = "numba"


@functools.cache
def _program() -> Any:
    try:
        import numba  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Unavailable("numba is not installed") from error

    @numba.njit(parallel=True, fastmath=True)
    def program(P, alpha, beta, lam, num_steps, variance, entropy):  # pragma: no cover - compiled
        n, K = P.shape[0], P.shape[1]
        for at in numba.prange(n):
            gain = np.empty((K, K), np.float32)
            drive = np.zeros(K, np.float32)
            z = np.zeros(K, np.float32)
            pi = np.full(K, np.float32(1 / K))
            total = np.zeros(K, np.float32)
            following = np.empty(K, np.float32)
            squares = np.float32(0)
            for i in range(K):
                for j in range(K):
                    A = P[at, i, j] - np.float32(0.5)
                    gain[i, j] = beta[at] * lam[at] * A
                    drive[i] += beta[at] * (np.float32(1) - lam[at]) * A / np.float32(K)
            for _ in range(num_steps):
                top = np.float32(-np.inf)
                for i in range(K):
                    value = alpha[at] * z[i] + drive[i]
                    for j in range(K):
                        value += gain[i, j] * pi[j]
                    following[i] = value
                    top = max(top, value)
                weight = np.float32(0)
                for i in range(K):
                    z[i] = following[i] - top
                    pi[i] = np.exp(z[i])
                    weight += pi[i]
                for i in range(K):
                    pi[i] /= weight
                    apart = pi[i] - np.float32(1 / K)
                    total[i] += apart
                    squares += apart * apart
            for i in range(K):
                squares -= total[i] * total[i] / np.float32(num_steps)
                if pi[i] > 0:
                    entropy[at] -= pi[i] * np.log(pi[i])
            variance[at] = max(squares / np.float32(num_steps), np.float32(0))

    return program


def prepare(job: Job) -> Runner:
    program = _program()
    P, alpha, beta, lam = job.arrays()
    P = np.ascontiguousarray(np.moveaxis(P, -1, 0))  # a trajectory's matrix in one piece

    def run() -> Statistics:
        variance, entropy = np.zeros_like(alpha), np.zeros_like(alpha)
        program(P, alpha, beta, lam, job.num_steps, variance, entropy)
        return Statistics(variance, entropy)

    return run
