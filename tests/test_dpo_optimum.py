"""The Bradley-Terry fit behind DPO: scipy, extended precision, theorems, brute force, and its derivatives."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from preferences import complementary
from scipy.special import expit

import ipodyn
from ipodyn._objectives.bradley_terry import fit_scores, has_finite_scores

R = ipodyn.RESULTS
DPO = ipodyn.DPO()


def centred(x):
    return x - x.mean(axis=-1, keepdims=True)


NUMBER = 1000


@jax.jit
@jax.vmap
def _solved(P, mu):
    return DPO.solve_score(P, mu)


def solved(P, mu):
    """Solutions of all instances; repeated up to NUMBER, so that each K compiles once."""
    found = _solved(np.resize(P, (NUMBER, *P.shape[1:])), np.resize(mu, (NUMBER, *mu.shape[1:])))
    return jax.tree.map(lambda x: x[: len(P)], found)


def misfits(score, P, mu):
    E = P - expit(score[:, :, None] - score[:, None, :])
    return np.einsum("mij,mj->mi", E, mu)


@pytest.mark.parametrize("K", [2, 4, 9])
def test_stationarity(rng, K):
    P = complementary(rng.uniform(0.001, 0.999, size=(1000, K, K)))
    mu = rng.dirichlet(np.full(K, 0.3), 1000)
    found = solved(P, mu)
    assert (found.result == R.successful).all()
    assert np.abs(misfits(np.asarray(found.score), P, mu)).max() <= 1e-12
    assert np.asarray(found.residual).max() <= 1e-12
    np.testing.assert_allclose(np.sum(found.score, axis=1), 0, atol=1e-12)  # the gauge


def policy_of(P, mu, pi_ref, beta):
    return DPO.optimum(P, mu, pi_ref, beta=beta)


def scipy_optimum(P, mu, pi_ref, beta):
    weights = np.outer(mu, mu)

    def rates(h):
        return expit((h[:, None] - h[None, :]) / beta)

    def loss(h):
        return np.sum(weights * P * np.logaddexp(0, -(h[:, None] - h[None, :]) / beta))

    def gradient(h):
        return (weights * (rates(h) - P)).sum(axis=1) / beta

    def hessian(h):
        conductance = weights * rates(h) * rates(h).T / beta**2
        return np.diag(conductance.sum(axis=1)) - conductance

    options = {"gtol": 1e-9}
    rough = scipy.optimize.minimize(
        loss, np.zeros(len(mu)), jac=gradient, hess=hessian, method="trust-exact", options=options
    ).x
    # The loss is flat to rounding before h has ten digits: finish on the gradient, one response held.
    exact = scipy.optimize.root(
        lambda h: gradient(np.append(h, 0.0))[:-1] / mu[:-1], (rough - rough[-1])[:-1], tol=1e-14
    ).x
    logits = np.log(pi_ref) + np.append(exact, 0.0)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_equals_a_scipy_optimiser(rng):
    """The population loss minimised over h = log pi - log pi_ref by a trust-region Newton method of scipy."""
    M, K = 40, 5
    P = complementary(rng.uniform(0.02, 0.98, size=(M, K, K)))
    mu = np.concatenate([rng.dirichlet(np.full(K, skew), M // 2) for skew in (0.5, 5.0)]) * 0.99 + 0.01 / K
    pi_ref, beta = rng.dirichlet(np.ones(K), M), rng.uniform(0.2, 3, M)
    ours = jax.jit(jax.vmap(policy_of))(P, mu, pi_ref, beta)
    expected = np.stack([scipy_optimum(*x) for x in zip(P, mu, pi_ref, beta, strict=True)])
    np.testing.assert_allclose(ours, expected, atol=1e-8)


@pytest.mark.parametrize("K", [4, 9])
def test_bradley_terry_gives_the_rewards_back_for_every_sampler(rng, K):
    rewards = rng.normal(scale=2, size=(500, K))
    P = expit(rewards[:, :, None] - rewards[:, None, :])
    mu = rng.dirichlet(np.full(K, 0.05), 500) + 1e-14 * (np.arange(K) == 0)
    mu[:50] = np.eye(K)[rng.integers(K, size=50)]  # vertices: all other scores by continuity
    mu[50:100, 0] = 0
    mu[50:100, 1] = np.maximum(mu[50:100, 1], 1e-300)
    mu /= mu.sum(axis=1, keepdims=True)
    assert mu[100:].min() < 1e-12
    found = solved(P, mu)
    assert (found.result == R.successful).all()
    # P has 16 digits; slopes of the sigmoid down to exp(-12) leave 1e-11
    np.testing.assert_allclose(found.score, centred(rewards), atol=1e-10)


def test_zero_weight_is_the_limit_of_small_weight(rng):
    P = complementary(rng.uniform(0.05, 0.95, size=(200, 4, 4)))
    mu = rng.dirichlet(np.ones(4), 200)
    mu[:, 2] = 0
    mu /= mu.sum(axis=1, keepdims=True)
    nearly = mu * (1 - 1e-10) + 1e-10 * np.eye(4)[2]
    at, near = solved(P, mu), solved(P, nearly)
    assert (at.result == R.successful).all()
    np.testing.assert_allclose(at.score, near.score, atol=1e-7)  # 1e-10 times a derivative below 1e3


def extended_precision(P, mu, score):
    """Newton in long double from a score that is already close; misfits from the smaller of the two chances."""
    P, mu, r = (np.asarray(x, np.longdouble) for x in (P, mu, score))
    for _ in range(4):
        x = r[:, None] - r[None, :]
        rates = 1 / (1 + np.exp(-x))
        E = np.where(x > 0, rates.T - P.T, P - rates)
        slopes = rates * rates.T
        matrix = np.diag((slopes * mu).sum(axis=1)) - slopes * mu + mu[None, :]
        step = np.linalg.solve(matrix.astype(float), (E @ mu).astype(float))
        r = r + step
    return (r - r.mean()).astype(float)


def test_close_to_certainty(rng):
    """P within 1e-9 of 0 and 1: solved, and to the digits that P holds."""
    upper = rng.choice([1e-9, 3e-8, 0.3, 0.8, 1 - 2.0**-30], size=(1000, 4, 4))
    P, mu = complementary(upper), rng.dirichlet(np.full(4, 0.5), 1000)
    found = solved(P, mu)
    assert (found.result == R.successful).all()
    assert np.asarray(found.residual).max() <= 1e-14
    score = np.asarray(found.score)
    expected = np.stack([extended_precision(*x) for x in zip(P[:100], mu[:100], score[:100], strict=True)])
    # slopes down to 1e-9 turn the rounding 1e-16 of f into 1e-7
    np.testing.assert_allclose(score[:100], expected, atol=1e-6)
    rewards = np.linspace(10.0, -10.0, 4)  # gaps up to 20: chances of 2e-9
    P = expit(rewards[:, None] - rewards[None, :])[None]
    for mu in (np.full((1, 4), 0.25), np.array([[1e-6, 1e-9, 0.5, 0.5]])):
        np.testing.assert_allclose(solved(P, mu).score[0], rewards, atol=1e-8)


def finite_by_brute_force(P, mu):
    """Reachability by Boolean powers of the graph of wins among sampled responses; the others need a win and a loss."""
    inside = [i for i in range(len(mu)) if mu[i] > 0]
    reach = {(i, j) for i in inside for j in inside if i != j and P[i, j] > 0}
    for k, i, j in itertools.product(inside, repeat=3):  # Warshall
        if (i, k) in reach and (k, j) in reach:
            reach.add((i, j))
    connected = all((i, j) in reach for i in inside for j in inside if i != j)
    outside = [i for i in range(len(mu)) if mu[i] == 0]
    return connected and all(any(P[i, j] > 0 for j in inside) and any(P[i, j] < 1 for j in inside) for i in outside)


@pytest.mark.parametrize("K", [2, 4, 6])
def test_existence_is_strong_connectivity(rng, K):
    P = complementary(rng.choice([0.0, 1.0, 1.0, 0.5], size=(1000, K, K)))
    mu = rng.dirichlet(np.ones(K), 1000) * (rng.uniform(size=(1000, K)) < 0.8)
    mu[:, 0] += 1e-3
    mu /= mu.sum(axis=1, keepdims=True)
    expected = np.array([finite_by_brute_force(*x) for x in zip(P, mu, strict=True)])
    assert 0.05 < expected.mean() < 0.95
    ours = jax.jit(jax.vmap(has_finite_scores))(P, mu)
    np.testing.assert_array_equal(ours, expected)
    if K == 6:
        return
    found = solved(P, mu)
    np.testing.assert_array_equal(found.result == R.successful, expected)
    np.testing.assert_array_equal(found.result == R.diverging_scores, ~expected)
    assert np.abs(misfits(np.asarray(found.score), P, mu))[expected].max() <= 1e-12

    def answers(P, mu):
        return DPO.optimum(P, mu, jnp.full(K, 1 / K), throw=False), DPO.score(P, mu, throw=False)

    for numbers in jax.jit(jax.vmap(answers))(P, mu):
        np.testing.assert_array_equal(np.isnan(numbers), np.broadcast_to(~expected[:, None], (1000, K)))


def test_certain_cycle_has_a_closed_form():
    """Rock-paper-scissors without chance is strongly connected: by symmetry a tie under uniform data."""
    P = ipodyn.problems.three_cycle(0.5)
    np.testing.assert_allclose(DPO.score(P, jnp.full(3, 1 / 3)), 0, atol=1e-15)


def test_divergence_raises_or_is_data():
    P, half = jnp.array([[0.5, 1.0], [0.0, 0.5]]), jnp.full(2, 0.5)
    for verb in (lambda throw: DPO.score(P, half, throw=throw), lambda throw: DPO.optimum(P, half, half, throw=throw)):
        with pytest.raises(eqx.EquinoxRuntimeError, match="no finite optimum"):
            verb(True)
        assert np.isnan(verb(False)).all()
    assert bool(DPO.solve(P, half, half, throw=False).result == R.diverging_scores)


def test_guess_and_neighbours_do_not_change_the_answer(rng):
    P = complementary(rng.uniform(0.05, 0.95, size=(50, 4, 4)))
    mu, guess = rng.dirichlet(np.ones(4), 50), rng.normal(scale=5, size=(50, 4))
    cold = solved(P, mu).score
    warm = jax.jit(jax.vmap(lambda P, mu, g: fit_scores(P, mu, g).score))(P, mu, centred(guess))
    np.testing.assert_allclose(warm, cold, atol=1e-13)
    behind = fit_scores(jnp.moveaxis(jnp.asarray(P), 0, -1), jnp.asarray(mu.T)).score  # one loop for all
    np.testing.assert_allclose(behind.T, cold, atol=1e-13)


# Derivatives


def smooth_instances(rng, M, K):
    P = complementary(rng.uniform(0.05, 0.95, size=(M, K, K)))
    mu, pi_ref = 0.7 * rng.dirichlet(np.ones(K), (2, M)) + 0.3 / K
    dP = rng.normal(size=(M, K, K))
    dmu, dref = (0.1 * centred(x) for x in rng.normal(size=(2, M, K)))
    at = (P, mu, pi_ref, rng.uniform(0.2, 3, M))
    return at, (0.2 * (dP - dP.swapaxes(1, 2)), dmu, dref, rng.normal(size=M))


def test_derivatives_forward_reverse_and_central_differences_agree(rng):
    at, along = smooth_instances(rng, 100, 4)
    solve = jax.jit(jax.vmap(policy_of))
    forward = jax.jit(jax.vmap(lambda x, d: jax.jvp(policy_of, x, d)[1]))(at, along)
    step = 1e-5
    plus, minus = (solve(*(x + s * step * d for x, d in zip(at, along, strict=True))) for s in (1, -1))
    # truncation ~ step^2 times third derivatives ~ 100, and 1e-15 / step
    np.testing.assert_allclose(forward, (plus - minus) / (2 * step), atol=3e-8)
    np.testing.assert_allclose(np.sum(forward, axis=1), 0, atol=1e-13)
    weight = rng.normal(size=(100, 4))
    reverse = jax.jit(jax.vmap(lambda x, w: jax.vjp(policy_of, *x)[1](w)))(at, weight)
    pulled = sum(np.sum(g * d, axis=tuple(range(1, d.ndim))) for g, d in zip(reverse, along, strict=True))
    np.testing.assert_allclose(pulled, np.sum(weight * forward, axis=1), rtol=1e-10, atol=1e-12)


def test_score_jacobian_is_the_pseudo_inverse_formula(rng):
    """dr/dmu = L^+ diag(mu) E with the weighted Laplacian L: theory of the sampling sensitivity."""
    (P, mu, _, _), _ = smooth_instances(rng, 20, 4)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda mu, P: DPO.score(P, mu))))(mu, P)
    score = np.asarray(solved(P, mu).score)
    for m in range(20):
        r = score[m]
        rates = expit(r[:, None] - r[None, :])
        W = np.outer(mu[m], mu[m]) * rates * (1 - rates)
        L = np.diag(W.sum(axis=1)) - W
        formula = np.linalg.pinv(L) @ np.diag(mu[m]) @ (P[m] - rates)
        np.testing.assert_allclose(jacobian[m], formula, atol=1e-11)


@pytest.mark.slow
def test_second_derivatives_are_differences_of_first_ones(rng):
    at, along = smooth_instances(rng, 20, 4)

    def slope(*x):
        return jax.jvp(policy_of, x[:4], x[4:])[1]

    def bend(x, d):
        return jax.jvp(lambda *x: slope(*x, *d), x, d)[1]

    second = jax.jit(jax.vmap(bend))(at, along)
    step = 1e-5
    first = jax.jit(jax.vmap(slope))
    plus, minus = (first(*(x + s * step * d for x, d in zip(at, along, strict=True)), *along) for s in (1, -1))
    assert np.isfinite(second).all()
    np.testing.assert_allclose(second, (plus - minus) / (2 * step), atol=1e-6)  # fourth derivatives ~ 1e3


def test_what_converged_has_a_small_residual(rng):
    """P down to 1e-200, where Newton's equations lose their rank: NaN is a failure, never a success."""
    chance = np.exp(rng.uniform(np.log(1e-200), np.log(0.1), (1000, 3, 3)))
    chance = np.where(rng.random((1000, 3, 3)) < 0.5, chance, 1 - chance)
    P, mu = complementary(chance), rng.dirichlet(np.full(3, 0.2), 1000)
    found = jax.jit(DPO.solve_score)(jnp.moveaxis(jnp.asarray(P), 0, -1), jnp.asarray(mu.T))
    converged, good = np.asarray(found.converged), np.asarray(np.isfinite(np.asarray(found.score)).all(axis=0))
    assert converged.mean() > 0.1 and not good.all()  # both kinds are among them
    assert good[converged].all()
    assert (np.asarray(found.residual)[converged] <= 64 * np.finfo(float).eps).all()
