"""NumPy, vectorised over the batch, the batch axis last."""

import numpy as np

from ..jobs import Job, Statistics
from . import Runner

NAME = "numpy"


def prepare(job: Job) -> Runner:
    P, alpha, beta, lam = job.arrays()
    K = job.K

    def run() -> Statistics:
        A = P - np.float32(0.5)
        gain = beta * lam * A
        drive = beta * (1 - lam) * A.mean(axis=1)
        z = np.zeros_like(drive)
        pi = start = np.full_like(z, 1 / K)
        total = np.zeros_like(z)
        squares = np.zeros_like(alpha)
        for _ in range(job.num_steps):
            z = alpha * z + drive + np.einsum("ijn,jn->in", gain, pi)
            z -= z.max(axis=0)
            pi = np.exp(z)
            pi /= pi.sum(axis=0)
            apart = pi - start
            total += apart
            squares += (apart * apart).sum(axis=0)
        mean = total / job.num_steps
        variance = np.maximum(squares / job.num_steps - (mean * mean).sum(axis=0), 0)
        entropy = -(pi * np.log(np.maximum(pi, np.finfo(pi.dtype).tiny))).sum(axis=0)
        return Statistics(variance, entropy)

    return run
