"""The noise floor: closed forms, simulation, and a bound that holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops

import ipodyn
from ipodyn import DPO, MRS


def kl_rows(star, policies):
    return np.sum(star * (np.log(star) - np.log(policies)), axis=-1)


def test_the_first_order_of_the_uniform_cycle():
    """Q = 3 / 8 on sum-zero vectors for beta = 1, S = 1 / 3, J = alpha and a rotation."""
    for alpha, beta, n in ((0.5, 1.0, 1000), (0.2, 3.0, 50)):
        loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=alpha, beta=beta, lam=1.0)
        squared = alpha**2 + (0.3 * beta) ** 2 / 3
        expected = beta**2 * 0.75 / 6 / (1 - squared) / n
        np.testing.assert_allclose(ipodyn.noise_floor(loop, num_pairs=n).kl, expected, rtol=1e-9)
        np.testing.assert_allclose(ipodyn.sample_size(loop, expected).pairs, n, rtol=1e-9)


@pytest.mark.slow
def test_the_estimate_is_half_the_trace_of_the_covariance(rng):
    for objective in (None, DPO()):
        loop = loop_of(*(x[0] for x in random_loops(rng, 1, 4, beta=(0.5, 1.0), edge=0.2)), objective=objective)
        star = ipodyn.fixed_point(loop).policy
        S = jnp.diag(star) - star[:, None] * star[None]
        covariance = ipodyn.stationary_covariance(loop, star, num_pairs=300).logits
        found = ipodyn.noise_floor(loop, num_pairs=300)
        np.testing.assert_allclose(found.kl, jnp.sum(S * covariance) / 2, rtol=1e-9)
    assert float(found.bound) == np.inf == float(ipodyn.sample_size(loop, 0.1).bound_pairs)  # DPO


@pytest.mark.slow
def test_the_bound_and_its_inverse(rng):
    """The worst mean square by brute force over samplers, the rest of the formula in NumPy."""
    loop = loop_of(*(x[0] for x in random_loops(rng, 1, 4, alpha=0.4, beta=(0.5, 1.0))))
    P, beta, n, K = np.asarray(loop.P), float(loop.beta), 20000.0, 4
    m = (1 - float(loop.lam)) * float(np.min(loop.pi_0))
    corners = np.eye(K)
    gaps = np.array([P @ mu for mu in corners])
    pairs = [(i, j) for i in range(K) for j in range(K) if i != j]
    worst = max(0.25 - (2 * P[i, j] - 1) * (g[i] - g[j]) + (g[i] - g[j]) ** 2 for g in gaps for i, j in pairs)
    d = np.linspace(0.02, 0.9, 45)
    rare = np.minimum((K - 1) * np.exp(-n * m * (d + (1 - d) * np.log(1 - d))), 1)
    V = np.min((K - 1) * beta**2 * worst / (2 * n * m * (1 - d) ** 2) + rare * beta**2 * K * (K + 1) ** 2 / 16)
    p = float(loop.alpha) ** 2 + float(ipodyn.convergence_certificate(loop).gain) ** 2
    found = ipodyn.noise_floor(loop, num_pairs=n)
    np.testing.assert_allclose(found.bound, V / (4 * (1 - np.sqrt(p)) ** 2), rtol=1e-9)
    back = ipodyn.sample_size(loop, float(found.bound))
    np.testing.assert_allclose(back.bound_pairs, n, rtol=1e-6)
    step = 1e-4
    slope = jax.grad(lambda kl: ipodyn.sample_size(loop, kl).bound_pairs)(found.bound)
    ends = [float(ipodyn.sample_size(loop, float(found.bound) * (1 + sign * step)).bound_pairs) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step * float(found.bound)), rtol=1e-4)


def test_nothing_is_promised_without_stability_or_data():
    cycle = ipodyn.problems.three_cycle(0.3)
    unstable = MRS(cycle, alpha=0.5, beta=8.0, lam=1.0)
    free = MRS(cycle, alpha=1.0, beta=1.0, lam=0.5)
    for loop in (unstable, free):
        found, size = ipodyn.noise_floor(loop, num_pairs=100), ipodyn.sample_size(loop, 0.01)
        assert all(float(x) == np.inf for x in (found.kl, found.bound, size.pairs, size.bound_pairs))
        slope = jax.grad(
            lambda beta, loop=loop: jnp.nan_to_num(
                ipodyn.noise_floor(MRS(loop.P, alpha=loop.alpha, beta=beta, lam=loop.lam), num_pairs=100.0).bound,
                posinf=0.0,
            )
        )(loop.beta)
        assert np.isfinite(slope)
    on_policy = MRS(cycle, alpha=0.5, beta=1.0, lam=1.0)
    assert float(ipodyn.noise_floor(on_policy, num_pairs=100).bound) == np.inf
    with pytest.raises(ValueError, match="`num_pairs` is 0"):
        ipodyn.noise_floor(on_policy, num_pairs=0)
    with pytest.raises(ValueError, match="`kl` is -1"):
        ipodyn.sample_size(on_policy, -1.0)


@pytest.mark.slow
def test_simulations_stay_below_the_bound_and_near_the_estimate(rng):
    """Loops on samples from their fixed points: 400 rounds of 8 trajectories each; the first 100 are left out."""
    M, K = 24, 4
    fields = random_loops(rng, M, K, alpha=0.6, beta=(0.3, 1.5), edge=0.1)
    fields = (*fields[:3], 0.9 * fields[3], *(0.5 * x + 0.5 / K for x in fields[4:]))

    def run(key, n, *fields):
        loop = loop_of(*fields)
        star = ipodyn.fixed_point(loop).policy
        floor = ipodyn.noise_floor(loop, num_pairs=n)

        def one(key):
            return ipodyn.finite_rollout(loop, star, key=key, num_pairs=n, num_steps=400, save=lambda x: x).saved

        return star, floor.kl, floor.bound, jax.vmap(one)(jax.random.split(key, 8))

    runs = jax.jit(jax.vmap(run, in_axes=(0, None) + (0,) * 6))
    for n, wide in ((100.0, 1.6), (1000.0, 1.25)):
        keys = jax.random.split(jax.random.key(0), M)
        star, kl, bound, paths = map(np.asarray, runs(keys, n, *fields))
        mean = kl_rows(star[:, None, None], paths[:, :, 100:]).mean(axis=(1, 2))
        assert np.isfinite(bound).sum() > 10
        assert np.all(mean <= bound)
        ratio = mean / kl
        assert 1 / wide < np.median(ratio) < wide and np.all(ratio < 3)
