"""JAX as a user would write it: `vmap` of a `lax.scan` per trajectory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ..jobs import Job, Statistics
from . import Runner

NAME = "vmapped scan"


@functools.partial(jax.jit, static_argnums=4)
def _program(P, alpha, beta, lam, num_steps):
    def trajectory(P, alpha, beta, lam):
        K = P.shape[0]
        uniform = jnp.full(K, 1 / K, P.dtype)

        def step(carry, _):
            policy, total, squares = carry
            mu = lam * policy + (1 - lam) * uniform
            logits = alpha * jnp.log(jnp.maximum(policy, jnp.finfo(policy.dtype).tiny)) + beta * (P @ mu)
            policy = jax.nn.softmax(logits)
            apart = policy - uniform
            return (policy, total + apart, squares + jnp.sum(apart**2)), None

        start = (uniform, jnp.zeros_like(uniform), jnp.zeros((), P.dtype))
        (policy, total, squares), _ = jax.lax.scan(step, start, None, length=num_steps)
        variance = jnp.maximum(squares / num_steps - jnp.sum((total / num_steps) ** 2), 0)
        return variance, jnp.sum(jax.scipy.special.entr(policy))

    return jax.vmap(trajectory)(P, alpha, beta, lam)


def prepare(job: Job) -> Runner:
    P, alpha, beta, lam = job.arrays()
    arrays = jax.device_put((np.ascontiguousarray(np.moveaxis(P, -1, 0)), alpha, beta, lam))

    def run() -> Statistics:
        variance, entropy = jax.block_until_ready(_program(*arrays, job.num_steps))
        return Statistics(np.asarray(variance), np.asarray(entropy))

    return run
