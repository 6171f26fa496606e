"""Where rollouts start, and that standing still on an unstable point is never called convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
from ipodyn import MRS, Regime
from ipodyn._loops.starts import default_start

CODE = {regime.name: int(regime) for regime in Regime}


def circulant(rng, K):
    """A random balanced matrix: shifting the responses leaves it as it is."""
    row = np.zeros(K)
    for step in range(1, (K + 1) // 2):
        row[step] = rng.uniform(-0.5, 0.5)
        row[K - step] = -row[step]
    return 0.5 + np.array([np.roll(row, i) for i in range(K)])


@pytest.mark.parametrize("K", [2, 3, 4, 5, 8, 16, 64])
def test_generic_start_has_a_part_in_every_mode(K):
    """All entries differ, so no permutation keeps it; every Fourier mode has a part, so no cyclic mode is missed."""
    start = np.asarray(ipodyn.generic_start(np.full(K, 1 / K)))
    offsets = np.log(start) - np.log(start).mean()
    assert np.ptp(offsets) <= 0.2 and np.ptp(offsets) > 0.1
    assert np.unique(start).size == K
    modes = np.abs(np.fft.fft(offsets))[1:] / np.sqrt(K)
    assert modes.min() > 1e-3  # a hundredth of the size of v


def test_generic_start_keeps_supports_batches_and_dtype():
    policies = np.array([[0.5, 0.0, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]], np.float32).T
    start = ipodyn.generic_start(policies)
    assert start.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(start) > 0, policies > 0)
    np.testing.assert_allclose(start.sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(start[:, 1], ipodyn.generic_start(policies[:, 1]), rtol=1e-6)


def test_default_start_is_legal_where_sampler_and_reference_are_disjoint():
    pi_0 = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).T
    pi_ref = np.array([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]]).T
    start = np.asarray(default_start(pi_0, pi_ref))
    np.testing.assert_array_equal(start > 0, np.array([[False, True, True], [True, True, False]]).T)
    P = ipodyn.problems.three_cycle(0.3)
    found = ipodyn.stability_map(P, alpha=[0.5], beta=[1.0], pi_0=[1.0, 0.0, 0.0], pi_ref=[0.0, 0.5, 0.5], num_steps=20)
    assert np.isfinite(found.variance.values).all()
    for pi_0 in (None, [1.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="`policy0` and `pi_ref` have no response in common"):
            ipodyn.stability_map(
                P,
                alpha=[0.5, 1.0],
                beta=[1.0],
                pi_ref=[0.0, 0.5, 0.5],
                pi_0=pi_0,
                policy0=[1.0, 0.0, 0.0],
                num_steps=20,
            )
    with pytest.raises(ValueError, match="`pi_0`, where the loop starts, and `pi_ref` have no response in common"):
        ipodyn.rollout(
            MRS(P, alpha=0.5, beta=1.0, lam=1.0, pi_0=np.eye(3)[0], pi_ref=np.array([0, 0.5, 0.5])), num_steps=20
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_balanced_cycle_at_alpha_one_oscillates_in_a_map(dtype):
    """From the uniform policy it stands still, all numbers being equal; no other start does."""
    P = np.asarray(ipodyn.problems.three_cycle(0.3), dtype)[None]
    found = ipodyn.stability_map(P, alpha=[1.0], beta=[1.0], lam=1.0)
    assert int(found.regime[0, 0, 0]) == CODE["oscillates"]
    assert found.attrs["start"] == "pi_0 moved off every symmetry by up to 10 %"
    held = ipodyn.stability_map(P, alpha=[1.0], beta=[1.0], lam=1.0, policy0=np.full(3, 1 / 3))
    assert int(held.regime[0, 0, 0]) == CODE["unresolved"]
    assert held.disagreement.attrs["flag_meanings"].split()[int(held.disagreement[0, 0, 0])] == "unstable_but_still"
    assert held.attrs["start"] == "uniform"
    # alpha = 1: the multipliers at the uniform policy are 1 +- i beta strength / sqrt(3).
    assert float(held.growth[0, 0, 0]) == pytest.approx(np.log1p(0.3**2 / 3) / 2, rel=1e-5)


def test_circulants_at_alpha_one_never_converge(rng):
    """With alpha = 1 nothing anchors the loop: every multiplier at the uniform fixed point is at least 1."""
    loops = []
    for _ in range(60):
        loops.append(circulant(rng, 5))
    alpha, beta = jnp.ones(60), jnp.asarray(np.geomspace(0.1, 30, 60))
    batch = jax.vmap(lambda P, alpha, beta: MRS(P, alpha=alpha, beta=beta, lam=1.0))(jnp.asarray(loops), alpha, beta)
    for start in (None, np.full(5, 0.2)):
        regimes = np.asarray(jax.vmap(ipodyn.classify)(ipodyn.sweep(batch, start, num_steps=1500)))
        assert set(regimes) <= {CODE["oscillates"], CODE["unresolved"]}
        assert start is not None or (regimes == CODE["oscillates"]).sum() > 10


def rest(P, alpha, beta, start, *, lam=1.0, objective=None, num_steps=64):
    """The orbit of a loop that starts at rest, or next to it."""
    loop = MRS(P, alpha=alpha, beta=beta, lam=lam, objective=objective)
    return ipodyn.rollout(loop, start, num_steps=num_steps)


@pytest.mark.parametrize("K", [3, 4, 5, 8])
def test_growth_at_a_fixed_point_is_the_log_of_the_radius(rng, K):
    """Against NumPy's eigenvalues of alpha + beta lam A S, the constants' own one left out."""
    for P in random_P(rng, 6, K, edge=0.02):
        alpha, beta, lam = rng.uniform(0.2, 0.9), rng.uniform(1, 8), rng.uniform(0.3, 1)
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam)
        star = np.asarray(ipodyn.fixed_point(loop).policy)
        S = np.diag(star) - np.outer(star, star)
        values = np.linalg.eigvals(alpha * np.eye(K) + beta * lam * (P - 0.5) @ S)
        found = ipodyn.rollout(loop, star, num_steps=1)
        # Modes close to one another are not told apart by 64 steps of a power iteration; never above the truth.
        truth = np.log(np.abs(values).max())
        assert truth - 1e-2 < float(found.growth) < truth + 1e-9


def test_growth_of_dpo_is_that_of_its_jacobian(rng):
    for P in random_P(rng, 4, 3, edge=0.1):
        loop = MRS(P, alpha=0.7, beta=rng.uniform(1, 4), lam=0.6, objective=ipodyn.DPO())
        star = ipodyn.fixed_point(loop).policy
        radius = float(ipodyn.stability(loop, star).radius)
        assert float(ipodyn.rollout(loop, star, num_steps=1).growth) == pytest.approx(np.log(radius), abs=1e-5)


def test_slow_convergence_is_convergence():
    """Radius 0.9999: it converges once its residual says so."""
    beta = np.sqrt(3 * (0.9999**2 - 0.36)) / 0.3
    found = rest(ipodyn.problems.three_cycle(0.3), 0.6, beta, np.array([1 / 3 + 1e-9, 1 / 3 - 1e-9, 1 / 3]))
    assert float(found.growth) == pytest.approx(np.log(0.9999), rel=1e-6)
    assert int(ipodyn.classify(found)) == Regime.converges


def test_neutral_rest_and_collapse_are_no_instability():
    """Ties at alpha = 1 leave a nudge where it is; a sure winner at alpha = 1 takes everything back."""
    ties = rest(np.full((3, 3), 0.5), 1.0, 2.0, [0.5, 0.3, 0.2])
    assert float(ties.growth) == 0 and int(ipodyn.classify(ties)) == Regime.converges
    order = ipodyn.problems.bradley_terry(jnp.array([1.0, 0.0, -1.0]))
    found = rest(order, 1.0, 2.0, [0.4, 0.3, 0.3], num_steps=600)
    assert float(found.growth) <= 0 and int(ipodyn.classify(found)) == Regime.collapses


def test_a_vertex_that_another_response_slowly_takes_back_is_not_held():
    """Response 2 beats the leader by 0.004: its logit gains 4e-4 a round, below `rise`, and comes back in the end."""
    P = 0.5 + np.array([[0, 0.3, -0.004], [-0.3, 0, 0.2], [0.004, -0.2, 0]])
    found = rest(P, 1.0, 0.1, [1 - 2e-12, 1e-12, 1e-12])
    assert 0 < float(found.rise) < 1e-3 and float(found.residual) < 1e-8
    assert float(found.growth) == pytest.approx(4e-4, rel=1e-6)
    assert int(ipodyn.classify(found)) == Regime.unresolved


@pytest.mark.parametrize("beta", [20.0, 60.0, 80.0])
def test_growth_beside_a_vertex_is_that_of_the_reference(beta):
    """Collapsed, nothing turns and deviations shrink by alpha a round: also where squares of what is left underflow."""
    P = np.asarray(ipodyn.problems.bradley_terry(np.linspace(3, 0, 4)), np.float32)
    orbit = ipodyn.rollout(ipodyn.MRS(P, alpha=0.6, beta=beta, lam=1.0), num_steps=200)
    assert orbit.final.dtype == np.float32 and float(orbit.final[0]) > 0.999
    assert float(orbit.growth) == pytest.approx(np.log(0.6), abs=1e-3)


def test_a_response_that_the_start_excludes_does_not_come_back():
    """With alpha = 1 it would win against both others, but a probability of 0 stays 0: the rest is no unstable one."""
    P = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.9, 0.9, 0.5]])
    loop = MRS(P, alpha=1.0, beta=2.0, lam=1.0)
    orbit = ipodyn.rollout(loop, [0.5, 0.5, 0.0], num_steps=60)
    assert float(orbit.final[2]) == 0 and float(orbit.growth) <= 0
    assert float(ipodyn.rollout(loop, [0.5, 0.499, 0.001], num_steps=60).final[2]) > 0.99  # let in, it takes over
