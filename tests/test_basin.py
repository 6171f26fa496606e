"""Certified basins: the formula by hand, and states in them that must stay and approach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax, xlogy

import ipodyn
from ipodyn import DPO, MRS

# Stable at this beta (rho = 0.997) with a cycle beside it: the fixed point is not reached from everywhere.
BISTABLE = np.array([[0, 0.351, -0.449, 0.192], [0, 0, 0.243, -0.426], [0, 0, 0, -0.09], [0, 0, 0, 0]])


def bistable():
    P = 0.5 + BISTABLE - BISTABLE.T
    return MRS(P, alpha=0.3, beta=11.085, lam=1.0, pi_ref=softmax([-0.92, 0.03, 1.24, -0.34]))


def binary_kl(a, b):
    return xlogy(a, a / b) + xlogy(1 - a, (1 - a) / (1 - b)) if b < 1 else np.inf


def kl_from(policy, logits):
    moved = logits - np.log(policy)
    return logsumexp(np.log(policy) + moved, axis=-1) - np.sum(policy * moved, axis=-1)


def test_the_radius_of_the_ball_by_hand():
    loop = bistable()
    star = ipodyn.fixed_point(loop)
    local = ipodyn.stability(loop, star.policy)
    for rate in (None, 0.999):
        found = ipodyn.certified_basin(loop, star, rate=rate)
        q = (1 + float(local.radius) ** 2) / 2 if rate is None else rate
        gamma = np.sqrt(q - 0.3**2) / (11.085 * float(local.omega))
        np.testing.assert_allclose(found.rate, q, rtol=1e-12)
        expected = min(binary_kl(p, gamma * p) for p in np.asarray(star.policy))
        np.testing.assert_allclose(found.kl, expected, rtol=1e-6)
    assert float(ipodyn.certified_basin(loop, star.policy, rate=0.99).kl) == 0  # below rho^2


def test_the_ball_is_all_where_convergence_is_certified_at_the_rate():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)  # certified at 0.52
    star = ipodyn.fixed_point(loop)
    wide, narrow = (ipodyn.certified_basin(loop, star, rate=rate) for rate in (0.53, 0.51))
    assert float(wide.kl) == np.inf and 0 < float(narrow.kl) < np.inf
    assert bool(wide.contains(np.array([0.998, 0.001, 0.001]))) and not bool(wide.contains(np.array([0.5, 0.5, 0.0])))
    two = MRS(ipodyn.problems.two_responses(0.9), alpha=0.3, beta=50.0, lam=1.0)
    assert float(ipodyn.certified_basin(two, ipodyn.fixed_point(two)).kl) == np.inf


@pytest.mark.parametrize("K", [4, pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_no_state_leaves_and_none_is_slower(rng, K):
    """Random directions out to the edge of the ball, in NumPy; loops that are not certified globally."""
    M = 200
    fields = random_loops(rng, M, K, beta=(1.0, 40.0))

    def parts(key, *fields):
        loop = loop_of(*fields)
        star = ipodyn.fixed_point(loop)
        basin = ipodyn.certified_basin(loop, star)
        return star.policy, basin.kl, basin.rate, ipodyn.convergence_certificate(loop).certified

    star, kl, rate, certified = map(np.asarray, jax.jit(jax.vmap(parts, in_axes=(None,) + (0,) * 6))(0, *fields))
    use = ~certified & (kl > 0) & np.isfinite(kl) & (star.min(axis=1) > 1e-6)
    assert use.sum() >= 10
    P, alpha, beta, lam, pi_ref, pi_0 = (x[use] for x in fields)
    star, kl, rate = star[use], kl[use], rate[use]
    closest = 0.0
    for _ in range(15):
        direction = rng.normal(size=star.shape) * 10 ** rng.uniform(-1, 1, star.shape)
        goal = kl * rng.uniform(0.02, 1, len(kl))
        size = np.array(
            [
                brentq(lambda t, p=p, d=d, g=g: kl_from(p, np.log(p) + t * d) - g, 0, 1e4)
                for p, d, g in zip(star, direction, goal, strict=True)
            ]
        )
        logits = np.log(star) + size[:, None] * direction
        before = kl_from(star, logits)
        mu = lam[:, None] * softmax(logits, axis=1) + (1 - lam[:, None]) * pi_0
        after = alpha[:, None] * logits + (1 - alpha[:, None]) * np.log(pi_ref)
        after = kl_from(star, after + beta[:, None] * np.einsum("mij,mj->mi", P - 0.5, mu))
        seen = before > 1e-8
        ratio = after[seen] / (before * rate)[seen]
        assert np.all(ratio <= 1 + 1e-7)
        closest = max(closest, ratio.max())
    assert closest > 0.5


@pytest.mark.slow
def test_no_start_that_cycles_is_in_the_ball(rng):
    loop = bistable()
    basin = ipodyn.certified_basin(loop, ipodyn.fixed_point(loop), rate=0.9999)
    away = rng.normal(size=(400, 4)) * 10 ** rng.uniform(-5, 0.5, (400, 1))
    starts = softmax(np.log(np.asarray(basin.policy)) + away, axis=1)
    finals = jax.jit(jax.vmap(lambda start: ipodyn.rollout(loop, start, num_steps=6000).final))(starts)
    cycles = np.max(np.abs(np.asarray(finals) - np.asarray(basin.policy)), axis=1) > 1e-2
    inside = np.asarray(jax.vmap(basin.contains)(starts))
    assert cycles.sum() > 20 and inside.sum() > 20
    assert not np.any(inside & cycles)


def test_unstable_loops_have_no_basin_and_wrong_inputs_a_clear_line():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    found = ipodyn.certified_basin(loop, jnp.full(3, 1 / 3))
    assert float(found.kl) == 0 and not bool(found.contains(jnp.full(3, 1 / 3)))
    with pytest.raises(ValueError, match="`policy` has shape"):
        found.contains(np.full(4, 0.25))
    with pytest.raises(ValueError, match="a basin is known for IPO"):
        ipodyn.certified_basin(MRS(loop.P, alpha=0.5, beta=2.0, lam=1.0, objective=DPO()), jnp.full(3, 1 / 3))
