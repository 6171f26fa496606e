"""Rounds of a few gradient steps: closed forms in NumPy, and where they harm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops
from scipy.special import softmax

import ipodyn
from ipodyn import DPO, MRS, InexactRound


def covariance(mu):
    return np.diag(mu) - np.outer(mu, mu)


def one_loop(rng, K, **changed):
    return loop_of(*(x[0] for x in random_loops(rng, 1, K, edge=0.1)), **changed)


def test_ipo_steps_are_a_matrix_power(rng):
    K, steps, rate = 4, 5, 0.3
    loop = one_loop(rng, K)
    policy = rng.dirichlet(np.ones(K))
    mu = np.asarray(loop.lam * policy + (1 - loop.lam) * loop.pi_0)
    full, z = np.log(np.asarray(loop(policy))), np.log(policy)
    power = np.linalg.matrix_power(np.eye(K) - 4 * rate * covariance(mu), steps)
    expected = softmax(full + power @ (z - full))
    few = InexactRound(loop, steps=steps, rate=rate)
    np.testing.assert_allclose(few(policy), expected, rtol=1e-10)
    centred = (full - z) - np.mean(full - z)
    np.testing.assert_allclose(few.residual(policy), np.linalg.norm(centred), rtol=1e-10)


def test_dpo_steps_follow_its_loss(rng):
    loop = one_loop(rng, 4, objective=DPO())
    policy = rng.dirichlet(np.ones(4))
    mu = loop.lam * policy + (1 - loop.lam) * loop.pi_0
    reference = jax.nn.softmax(loop.alpha * jnp.log(policy) + (1 - loop.alpha) * jnp.log(loop.pi_ref))
    gradient = jax.grad(lambda z: loop.objective.loss(z, loop.P, mu, reference, beta=loop.beta))(jnp.log(policy))
    after = InexactRound(loop, steps=1, rate=2.0)(policy)
    np.testing.assert_allclose(after, jax.nn.softmax(jnp.log(policy) - 2.0 * gradient), rtol=1e-10)


def test_the_spectrum(rng):
    """1 - Q (1 - J) on sum-zero vectors, J of the full round from its formula."""
    K, steps, rate = 4, 3, 0.2
    loop = one_loop(rng, K)
    star = np.asarray(ipodyn.fixed_point(loop).policy)
    A = np.asarray(loop.P) - 0.5
    J = float(loop.alpha) * np.eye(K) + float(loop.beta * loop.lam) * A @ covariance(star)
    mu = np.asarray(loop.lam * star + (1 - loop.lam) * loop.pi_0)
    Q = np.eye(K) - np.linalg.matrix_power(np.eye(K) - 4 * rate * covariance(mu), steps)
    basis = np.linalg.qr(np.c_[np.ones(K), np.eye(K)[:, :-1]])[0][:, 1:]
    expected = np.linalg.eigvals(basis.T @ (np.eye(K) - Q @ (np.eye(K) - J)) @ basis)
    found = ipodyn.stability(InexactRound(loop, steps=steps, rate=rate), star)
    np.testing.assert_allclose(np.sort_complex(found.eigenvalues), np.sort_complex(expected), atol=1e-7)
    np.testing.assert_allclose(found.radius, np.abs(expected).max(), atol=1e-7)


def test_uniform_data_make_it_a_damping(rng):
    loop = on_uniform_data(one_loop(rng, 3))
    few = InexactRound(loop, steps=4, rate=0.1)
    policy = rng.dirichlet(np.ones(3))
    s = 1 - (1 - 4 * 0.1 / 3) ** 4
    np.testing.assert_allclose(few(policy), ipodyn.damped(loop, s)(policy), rtol=1e-10)


def on_uniform_data(loop):
    """The loop with data from the uniform policy."""
    return MRS(loop.P, alpha=loop.alpha, beta=loop.beta, lam=0.0, pi_ref=loop.pi_ref)


def test_few_steps_can_make_a_stable_loop_unstable():
    """K = 5, alpha = 0.5, lam = 0.2, kappa lam omega = 1.4: rho = 0.860 after full rounds, above 1 after one step."""
    upper = [0.2151, 0.1674, 0.2491, -0.0426, 0.2206, -0.2835, -0.3507, 0.1439, -0.0821, -0.2492]
    A = np.zeros((5, 5))
    A[np.triu_indices(5, 1)] = upper
    A = A - A.T
    star = np.array([0.0520, 0.0046, 0.0442, 0.5578, 0.3414])
    pi_0 = np.array([0.0041, 0.4169, 0.0265, 0.5472, 0.0053])
    root = covariance(star) / np.sqrt(star)
    beta = 1.4 * 0.5 / 0.2 / np.linalg.norm(root.T @ A @ root, 2)
    pi_ref = softmax(np.log(star) - beta / 0.5 * A @ (0.2 * star + 0.8 * pi_0))
    loop = MRS(0.5 + A, alpha=0.5, beta=beta, lam=0.2, pi_ref=pi_ref, pi_0=pi_0)
    np.testing.assert_allclose(loop(star), star, atol=1e-9)
    assert float(ipodyn.stability(loop, star).radius) == pytest.approx(0.8602, abs=1e-4)
    few = InexactRound(loop, steps=1, rate=0.02)
    assert float(ipodyn.stability(few, star).radius) > 1.02
    # Interpolating logits by as little keeps it stable, and so it is seen in rollouts.
    start = softmax(np.log(star) + 1e-4 * np.arange(5.0))
    gentle = ipodyn.damped(loop, 0.02)
    distances = [np.abs(ipodyn.rollout(x, start, num_steps=400).final - star).max() for x in (few, gentle)]
    assert distances[0] > 1e-2 > 1e-5 > distances[1]


def test_without_an_anchor_rounds_freeze_and_the_residual_tells():
    loop = MRS(ipodyn.problems.three_cycle(0.4), alpha=1.0, beta=20.0, lam=1.0)
    few = InexactRound(loop, steps=2, rate=0.2)
    orbit = ipodyn.rollout(few, np.array([0.5, 0.3, 0.2]), num_steps=2000, window=100)
    assert float(orbit.window_variance) < 1e-6  # it looks as if it had converged
    assert float(few.residual(np.maximum(orbit.final, 1e-300))) > 1  # and is nowhere near


def test_published_settings_are_stabilised_by_damping():
    """beta = 500 and alpha = 2/3 on a cycle: unstable, and stable at less than the critical damping."""
    loop = MRS(ipodyn.problems.three_cycle(0.1), alpha=2 / 3, beta=500.0, lam=1.0)
    star = ipodyn.fixed_point(loop).policy
    critical = float(ipodyn.critical_damping(loop).value)
    assert float(ipodyn.stability(loop, star).radius) > 10 and critical < 1e-3
    radii = [float(ipodyn.stability(ipodyn.damped(loop, s * critical), star).radius) for s in (0.9, 1.1)]
    assert radii[0] < 1 < radii[1]
    few = InexactRound(loop, steps=1, rate=0.9 * critical * 3 / 4)  # uniform data: the same damping
    assert float(ipodyn.stability(few, star).radius) == pytest.approx(radii[0], rel=1e-7)


def test_wrong_arguments_have_one_clear_line():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
    with pytest.raises(ValueError, match="`steps` is 0; it must be a whole number"):
        InexactRound(loop, steps=0, rate=0.1)
    with pytest.raises(ValueError, match="`rate` is 0"):
        InexactRound(loop, steps=1, rate=0.0)
    with pytest.raises(ValueError, match="`policy0` excludes responses"):
        ipodyn.rollout(InexactRound(loop, steps=1, rate=0.1), np.array([0.5, 0.5, 0.0]), num_steps=2)
    with pytest.raises(ValueError, match="`pi_ref` excludes responses"):
        InexactRound(MRS(loop.P, alpha=0.5, beta=2.0, lam=1.0, pi_ref=np.array([0.5, 0.5, 0.0])), steps=1, rate=0.1)
