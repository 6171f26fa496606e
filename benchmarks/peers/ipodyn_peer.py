"""ipodyn through its public API."""

import inspect
from typing import Any

import numpy as np

from ..jobs import Job, Statistics
from . import Runner

NAME = "ipodyn"


def takes(option: str) -> bool:
    """Whether `stability_map` of the installed ipodyn has this option."""
    import ipodyn

    return option in inspect.signature(ipodyn.stability_map).parameters


def only_rollouts() -> dict[str, Any]:
    """Options that keep a map to its rollouts, without fixed points."""
    return {"analytic": False} if takes("analytic") else {}


def whole_map(job: Job, **options: Any) -> Any:
    """The dataset of a job, from the uniform policy as in every peer; by default that of its rollouts."""
    import ipodyn

    K = job.P.shape[-1]
    options = options or only_rollouts()
    return ipodyn.stability_map(
        job.P,
        alpha=job.alpha,
        beta=job.beta,
        lam=job.lam,
        num_steps=job.num_steps,
        policy0=np.full(K, 1 / K),
        **options,
    )


def prepare(job: Job, **options: Any) -> Runner:
    options = {**only_rollouts(), **options}

    def run() -> Statistics:
        found = whole_map(job, **options)
        return Statistics(found.variance.values.ravel(), found.entropy.values.ravel())

    return run
