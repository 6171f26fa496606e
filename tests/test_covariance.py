"""Predicted fluctuations against SciPy's Lyapunov solver, Monte Carlo of one round, and long simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from preferences import complementary

import ipodyn
from ipodyn._equilibria.covariance import solve_lyapunov

K, PAIRS = 4, 1000
OBJECTIVES = {"ipo": (ipodyn.IPO(), None), "dpo": (ipodyn.DPO(), 1.0)}


def loop_of(objective, seed=0, alpha=0.7):
    """A loop around a mild random preference matrix that samples every response often."""
    rng = np.random.default_rng(seed)
    P = complementary(rng.uniform(0.25, 0.75, (K, K)))
    pi_ref, pi_0 = rng.dirichlet(np.full(K, 20.0), 2)
    return ipodyn.MRS(P, alpha=alpha, beta=1.0, lam=0.8, pi_ref=pi_ref, pi_0=pi_0, objective=objective)


def test_lyapunov_equation_as_scipy_solves_it(rng):
    for d in (2, 5):
        J = rng.normal(size=(d, d))
        J *= 0.95 / np.abs(np.linalg.eigvals(J)).max()
        Q = np.cov(rng.normal(size=(d, 20)))
        expected = scipy.linalg.solve_discrete_lyapunov(J, Q)
        np.testing.assert_allclose(
            solve_lyapunov(jnp.asarray(J), jnp.asarray(Q)), expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max()
        )


@pytest.mark.parametrize("name", ["ipo", pytest.param("dpo", marks=pytest.mark.slow)])
def test_one_round_noise_and_stationary_covariance(name):
    """Within 5 % of simulation at n = 1,000: the noise of one round, the covariance, its trace.

    The prediction is the first order in 1 / n: the next one is about 1 % of it here. 8,192 first rounds know the trace
    of a covariance over three directions to sqrt(2 / 24,576) = 0.9 %; 128 * 256 rounds, of which one in three counts
    as independent at alpha = 0.7, as well.
    """
    objective, ridge = OBJECTIVES[name]
    loop = loop_of(objective)
    star = ipodyn.fixed_point(loop).policy
    found = ipodyn.stationary_covariance(loop, star, num_pairs=PAIRS)
    assert bool(found.stable)

    orbits = ipodyn.finite_sweep(
        loop,
        star,
        key=jax.random.key(1),
        num_pairs=PAIRS,
        num_trajectories=128,
        num_steps=320,
        window=256,
        ridge=ridge,
        save=jnp.asarray,
    )
    paths = np.asarray(orbits.saved)
    # From the fixed point on, the first round is noise alone.
    many = ipodyn.finite_sweep(
        loop, star, key=jax.random.key(3), num_pairs=PAIRS, num_trajectories=8192, num_steps=1, window=1, ridge=ridge
    )
    first = np.log(np.asarray(many.final))
    first -= first.mean(axis=1, keepdims=True)
    noise = np.cov(first.T)
    assert abs(np.trace(noise) / np.trace(found.noise) - 1) < 0.05
    assert np.linalg.norm(noise - found.noise) < 0.08 * np.linalg.norm(found.noise)  # six entries, each to 1 to 2 %
    late = paths[:, 64:].reshape(-1, K)
    covariance = np.cov(late.T)
    assert np.linalg.norm(covariance - found.policy) < 0.05 * np.linalg.norm(found.policy)
    logits = np.log(late) - np.log(late).mean(axis=1, keepdims=True)
    assert abs(np.trace(np.cov(logits.T)) / np.trace(found.logits) - 1) < 0.05
    # The statistic that a sweep reports: about its own mean in the window, so about 1 % less.
    assert abs(float(orbits.across("window_variance").mean) / float(found.variance) - 1) < 0.05


def test_closed_form_for_the_three_cycle():
    """Uniform policy, K = 3: H = 2/3, M = 1/6 in each direction, J normal with |eigenvalues| = rho."""
    strength, alpha, beta, n = 0.3, 0.5, 2.0, 200
    loop = ipodyn.MRS(ipodyn.problems.three_cycle(strength), alpha=alpha, beta=beta, lam=1.0)
    found = ipodyn.stationary_covariance(loop, np.full(3, 1 / 3), num_pairs=n)
    squared_radius = alpha**2 + (beta * strength) ** 2 / 3
    noise = beta**2 * (1 / 6) / (2 / 3) ** 2 / n
    np.testing.assert_allclose(np.trace(found.noise), 2 * noise, rtol=1e-12)
    np.testing.assert_allclose(found.variance, 2 * noise / (1 - squared_radius) / 9, rtol=1e-12)
    np.testing.assert_allclose(found.amplification, 1 / (1 - squared_radius), rtol=1e-12)
    np.testing.assert_allclose(np.sum(found.policy, axis=1), 0, atol=1e-15)


def test_unstable_fixed_points_have_no_covariance():
    loops = jax.vmap(lambda beta: ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=beta, lam=1.0))(
        jnp.array([3.7, 3.8])  # critical at 3.75
    )
    found = jax.vmap(lambda loop: ipodyn.stationary_covariance(loop, jnp.full(3, 1 / 3), num_pairs=100))(loops)
    assert found.stable.tolist() == [True, False]
    assert np.isfinite(found.variance[0]) and np.isnan(found.variance[1])
    assert found.amplification[0] > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_covariance_of_many_matrices(name):
    """Twenty matrices, three alphas: predicted variances within 10 % of simulation at n = 1,000."""
    objective, ridge = OBJECTIVES[name]
    cases = [loop_of(objective, seed, alpha) for seed in range(20) for alpha in (0.0, 0.5, 0.9)]
    loops = jax.tree.map(lambda *fields: jnp.stack(fields), *cases)
    stars = jax.vmap(lambda loop: ipodyn.fixed_point(loop).policy)(loops)
    found = jax.vmap(lambda loop, star: ipodyn.stationary_covariance(loop, star, num_pairs=PAIRS))(loops, stars)
    orbits = ipodyn.finite_sweep(
        loops,
        stars,
        key=jax.random.key(2),
        num_pairs=PAIRS,
        num_trajectories=32,
        num_steps=1200,
        window=1024,
        ridge=ridge,
    )
    ratio = np.asarray(orbits.across("window_variance").mean / found.variance)
    mu = loops.lam[:, None] * stars + (1 - loops.lam)[:, None] * loops.pi_0
    often = np.asarray(2 * PAIRS * jnp.min(mu, axis=1)) >= 200  # comparisons a round of the rarest response
    assert found.stable.all() and often.sum() >= 40
    assert (np.abs(ratio - 1) < 0.1)[often].all(), ratio
    if name == "ipo":  # its equations are linear: the prediction holds with fewer comparisons too
        assert (np.abs(ratio - 1) < 0.1).all(), ratio


@pytest.mark.parametrize("name", OBJECTIVES)
def test_noise_of_two_responses_in_closed_form(name):
    """n comparisons of a pair drawn with chance w = 2 mu (1 - mu): its score has variance p q / (n w) for IPO, where
    the score is the share of wins, and 1 / (n w p q) for DPO, where it is that share's log-odds."""
    p, lam, alpha, beta, n = 0.8, 0.6, 0.3, 1.7, 500
    pi_0 = np.array([0.3, 0.7])
    loop = ipodyn.MRS(
        ipodyn.problems.two_responses(p), alpha=alpha, beta=beta, lam=lam, pi_0=pi_0, objective=OBJECTIVES[name][0]
    )
    star = np.asarray(ipodyn.fixed_point(loop).policy)
    found = ipodyn.stationary_covariance(loop, star, num_pairs=n)
    mu = lam * star + (1 - lam) * pi_0
    w = 2 * mu[0] * mu[1]
    expected = beta**2 / (n * w) * (p * (1 - p) if name == "ipo" else 1 / (p * (1 - p)))
    apart = np.array([1.0, -1.0])
    np.testing.assert_allclose(apart @ found.noise @ apart, expected, rtol=1e-10)
    # One direction, in which a round multiplies by alpha: two scores do not depend on how the pair is sampled.
    np.testing.assert_allclose(apart @ found.logits @ apart, expected / (1 - alpha**2), rtol=1e-10)


def test_noise_of_a_fit_that_misses(rng):
    """K = 3, not Bradley-Terry: the sandwich of DPO's noise by a sum over labelled pairs, one after the other."""
    P = complementary(rng.uniform(0.2, 0.8, (3, 3)))
    pi_ref, pi_0 = rng.dirichlet(np.full(3, 5.0), 2)
    loop = ipodyn.MRS(P, alpha=0.2, beta=0.7, lam=0.5, pi_ref=pi_ref, pi_0=pi_0, objective=ipodyn.DPO())
    star = np.asarray(ipodyn.fixed_point(loop).policy)
    mu = 0.5 * star + 0.5 * pi_0
    score = np.asarray(ipodyn.DPO().score(P, mu))
    H, M = np.zeros((3, 3)), np.zeros((3, 3))
    for winner in range(3):
        for loser in range(3):
            if winner != loser:
                chance = 2 * mu[winner] * mu[loser] * P[winner, loser]
                x = np.eye(3)[winner] - np.eye(3)[loser]
                upset = 1 / (1 + np.exp(x @ score))
                H += chance * upset * (1 - upset) * np.outer(x, x)
                M += chance * upset**2 * np.outer(x, x)
    inverse = np.linalg.pinv(H)
    found = ipodyn.stationary_covariance(loop, star, num_pairs=50)
    np.testing.assert_allclose(found.noise, 0.7**2 / 50 * inverse @ M @ inverse, rtol=1e-9)
