"""A loop over rounds on torch tensors (n, K), the way research code for preference games is written."""

import numpy as np

from ..jobs import Job, Statistics
from . import Runner, Unavailable

NAME = "torch"


def prepare(job: Job) -> Runner:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Unavailable("torch is not installed") from error

    arrays = job.arrays()
    P = torch.from_numpy(np.ascontiguousarray(np.moveaxis(arrays.P, -1, 0)))
    alpha, beta, lam = (torch.from_numpy(x)[:, None] for x in arrays[1:])

    @torch.inference_mode()
    def run() -> Statistics:
        uniform = torch.full((len(P), job.K), 1 / job.K)
        logits, policy = torch.zeros_like(uniform), uniform
        total, squares = torch.zeros_like(uniform), torch.zeros(len(P))
        for _ in range(job.num_steps):
            mu = lam * policy + (1 - lam) * uniform
            logits = torch.log_softmax(alpha * logits + beta * torch.bmm(P, mu[:, :, None])[:, :, 0], dim=-1)
            policy = logits.exp()
            apart = policy - uniform
            total += apart
            squares += (apart**2).sum(dim=-1)
        variance = (squares / job.num_steps - ((total / job.num_steps) ** 2).sum(dim=-1)).clamp(min=0)
        entropy = torch.special.entr(policy).sum(dim=-1)
        return Statistics(variance.numpy(), entropy.numpy())

    return run
