"""Every exported map from policies to policies keeps one contract. A new map adds one line to MAPS."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import DPO, IPO, MRS

K = 3


class Map(NamedTuple):
    """`make(P, pi_ref, policy)`; `depth` says how many roundings may add up, `reverse` whether it has a gradient.

    `float32` is False where compiling once more is not worth it: the same code as of another line.
    """

    make: Callable
    depth: int = 8
    reverse: bool = True
    float32: bool = True


def round_of(objective, **parameters):
    return lambda P, ref, policy: MRS(P, pi_ref=ref, pi_0=ref, objective=objective, **parameters)(policy)


def rollout_of(objective):
    def run(P, ref, policy):
        loop = MRS(P, alpha=0.5, beta=1.0, lam=0.8, pi_ref=ref, objective=objective)
        return ipodyn.rollout(loop, policy, num_steps=20).final

    return run


MAPS = {
    "IPO.optimum": Map(lambda P, ref, mu: IPO().optimum(P, mu, ref, beta=2.0)),
    "DPO.optimum": Map(lambda P, ref, mu: DPO().optimum(P, mu, ref, beta=2.0), depth=100, float32=False),
    "gradient_optimum": Map(
        lambda P, ref, mu: ipodyn.gradient_optimum(IPO(), P, mu, ref, beta=2.0).policy, depth=2000, reverse=False
    ),
    "MRS IPO": Map(round_of(IPO(), alpha=0.5, beta=2.0, lam=0.8)),
    "MRS IPO alpha 0": Map(round_of(IPO(), alpha=0.0, beta=2.0, lam=1.0)),
    "MRS IPO alpha 1": Map(round_of(IPO(), alpha=1.0, beta=2.0, lam=0.0)),
    "MRS DPO": Map(round_of(DPO(), alpha=0.5, beta=2.0, lam=0.8), depth=100),
    "rollout final": Map(rollout_of(IPO()), depth=100),
    "rollout DPO": Map(rollout_of(DPO()), depth=500, float32=False),
}


CASES = [(name, dtype) for name in MAPS for dtype in ("float64", "float32") if dtype == "float64" or MAPS[name].float32]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_map_contract(rng, name, dtype):
    chosen, dtype = MAPS[name], np.dtype(dtype)
    P = complementary(rng.uniform(0.1, 0.9, size=(K, K))).astype(dtype)
    ref = rng.dirichlet(np.full(K, 2.0)).astype(dtype)
    policies = (0.9 * rng.dirichlet(np.ones(K), 3) + 0.1 / K).astype(dtype)
    tolerance = chosen.depth * float(jnp.finfo(dtype).eps)

    # One program for everything: where there is a gradient, the policies are the primal values beside it.
    def pulled(P, ref, policy, weight):
        if not chosen.reverse:
            return chosen.make(P, ref, policy), ()
        out, pull = jax.vjp(chosen.make, P, ref, policy)
        return out, pull(weight)

    program = jax.jit(jax.vmap(pulled, in_axes=(None, None, 0, 0)))
    points = np.concatenate([policies, *[policies[:2], np.eye(K, dtype=dtype)[:1]] * 2])
    weights = np.repeat([np.arange(K), np.arange(K), np.ones(K)], 3, axis=0).astype(dtype)
    every, gradients = program(P, ref, points, weights)
    out = every[:3]
    # keeps the simplex and the dtype
    assert every.dtype == dtype and every.shape == points.shape
    assert (np.asarray(out) >= 0).all()
    np.testing.assert_allclose(np.sum(out, axis=1), 1, rtol=8 * float(jnp.finfo(dtype).eps))
    # jit = eager, vmap = loop
    eager = np.stack([chosen.make(P, ref, policy) for policy in policies])
    assert eager.dtype == dtype
    np.testing.assert_allclose(out, eager, atol=tolerance)
    # names of responses mean nothing
    order = rng.permutation(K)
    renamed, _ = program(P[order][:, order], ref[order], points[:, order], weights[:, order])
    np.testing.assert_allclose(renamed[:3], out[:, order], atol=tolerance)
    # the gradient is finite inside and on a face, and that of the sum is zero: a policy stays one off the simplex too
    for leaf in gradients:
        assert np.isfinite(leaf).all() and leaf.dtype == dtype
        assert np.abs(leaf[3:5]).max() > 0 or name == "MRS IPO alpha 1"  # which does not sample from the policy
        np.testing.assert_allclose(leaf[6:], 0, atol=10 * tolerance)
