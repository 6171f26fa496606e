"""How optima move with sampling: against finite differences, pseudoinverses, and the theorem on Bradley-Terry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary, mixture

import ipodyn
from ipodyn import DPO, IPO

K, NUMBER, BETA = 4, 200, 2.0


def sensitivities(objective):
    def one(P, mu, pi_ref):
        found = ipodyn.sampling_sensitivity(objective, P, mu, pi_ref=pi_ref, beta=BETA)
        policy = objective.optimum(P, mu, pi_ref, beta=BETA)
        through = jax.jacobian(lambda mu: objective.optimum(P, mu, pi_ref, beta=BETA))(mu)
        return found, policy, through

    return jax.jit(jax.vmap(one))


SENSITIVITIES = {"IPO": sensitivities(IPO()), "DPO": sensitivities(DPO())}
DISTANCE = jax.jit(jax.vmap(lambda P: (ipodyn.bradley_terry_distance(P), DPO().score(P, jnp.full(K, 1 / K)))))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cases(rng):
    P = 0.5 + 0.9 * (mixture(rng, NUMBER, K) - 0.5)
    mu = 0.8 * rng.dirichlet(np.ones(K), NUMBER) + 0.2 / K
    return P, mu, rng.dirichlet(np.full(K, 3.0), NUMBER)


def tangent_norm(D):
    """The largest singular value on changes of mu that sum to zero."""
    return np.linalg.norm(D - D.mean(axis=2, keepdims=True), 2, axis=(1, 2))


@pytest.mark.parametrize("name", ["IPO", "DPO"])
def test_implicit_formula(name, rng):
    P, mu, pi_ref = cases(rng)
    found, policy, through = map(np.asarray, SENSITIVITIES[name](P, mu, pi_ref))
    if name == "IPO":
        slope = P
    else:  # theory: L^+ diag(mu) E, by NumPy, from scores read off the policy
        score = (np.log(policy) - np.log(pi_ref)) / BETA
        rates = sigmoid(score[:, :, None] - score[:, None, :])
        weights = mu[:, :, None] * mu[:, None, :] * rates * (1 - rates)
        laplacian = np.eye(K) * weights.sum(axis=2, keepdims=True) - weights
        slope = np.linalg.pinv(laplacian, rcond=1e-12, hermitian=True) @ (mu[:, :, None] * (P - rates))
    jacobian = np.eye(K) * policy[:, :, None] - policy[:, :, None] * policy[:, None, :]
    expected = BETA * jacobian @ slope
    # Pseudoinverses of Laplacians with condition numbers of 1e3 or so.
    np.testing.assert_allclose(
        found - found.mean(axis=2, keepdims=True), expected - expected.mean(2, keepdims=True), atol=1e-11
    )
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(
        found - found.mean(axis=2, keepdims=True), through - through.mean(2, keepdims=True), atol=1e-12
    )

    change = rng.normal(size=mu.shape)
    change -= change.mean(axis=1, keepdims=True)
    step = 1e-5
    ahead, behind = (SENSITIVITIES[name](P, mu + s * step * change, pi_ref)[1] for s in (1, -1))
    # A central difference: step^2 times the third derivative, and rounding over step.
    np.testing.assert_allclose((ahead - behind) / (2 * step), np.einsum("mik,mk->mi", found, change), atol=1e-7)


def test_dpo_ignores_sampling_exactly_on_bradley_terry(rng):
    rewards = rng.normal(scale=1.5, size=(NUMBER, K))
    rewards[::4, 1] = rewards[::4, 0]  # ties
    P = sigmoid(rewards[:, :, None] - rewards[:, None, :])
    mu = 0.95 * rng.dirichlet(np.full(K, 0.5), NUMBER) + 0.05 / K
    uniform = np.full((NUMBER, K), 1 / K)
    found, policy, _ = SENSITIVITIES["DPO"](P, mu, uniform)
    assert np.abs(found).max() <= 1e-10
    np.testing.assert_allclose(
        policy, np.exp(BETA * rewards) / np.exp(BETA * rewards).sum(1, keepdims=True), atol=1e-12
    )
    assert np.max(DISTANCE(P)[0]) <= 1e-12
    # IPO depends on it all the same: the rows of P differ.
    assert tangent_norm(np.asarray(SENSITIVITIES["IPO"](P, mu, uniform)[0])).min() > 1e-6


def test_dpo_depends_on_sampling_elsewhere_at_least_so_much(rng):
    """The bound of the docstring, and a distance that is bounded below by the log-odds around triangles."""
    P = 0.5 + 0.9 * (complementary(rng.uniform(size=(NUMBER, K, K))) - 0.5)
    mu = 0.8 * rng.dirichlet(np.ones(K), NUMBER) + 0.2 / K
    found, policy, _ = map(np.asarray, SENSITIVITIES["DPO"](P, mu, np.full((NUMBER, K), 1 / K)))
    score = np.log(policy) / BETA
    misfit = np.abs(P - sigmoid(score[:, :, None] - score[:, None, :])).max(axis=(1, 2))
    bound = 2 * BETA * policy.min(1) * mu.min(1) / mu.max(1) * misfit / (1 + np.sqrt(K))
    assert (tangent_norm(found) >= bound).all() and bound.min() > 1e-6

    distance, uniform_score = map(np.asarray, DISTANCE(P))
    odds = np.log(P / (1 - P))
    curl = np.abs(odds[:, :, :, None] + odds[:, None, :, :] - odds[:, :, None, :]).max(axis=(1, 2, 3))
    reach = np.maximum(np.abs(odds).max((1, 2)), np.ptp(uniform_score, axis=1))
    slope = sigmoid(reach) * (1 - sigmoid(reach))  # the least slope of the sigmoid between P and its fit
    assert (distance >= slope * curl / 3).all() and (slope * curl).min() > 1e-3


def test_perturbed_bradley_terry(rng):
    """A little off Bradley-Terry, the sensitivity is little and in proportion: no threshold in between."""
    rewards = rng.normal(size=(NUMBER, K))
    uniform = np.full((NUMBER, K), 1 / K)
    cycle = np.zeros((K, K))
    cycle[[0, 1, 2], [1, 2, 0]] = 1
    exact = sigmoid(rewards[:, :, None] - rewards[:, None, :])
    sizes = [
        tangent_norm(np.asarray(SENSITIVITIES["DPO"](exact + e * (cycle - cycle.T), uniform, uniform)[0]))
        for e in (1e-6, 1e-4)
    ]
    # Linear up to relative changes of order e, 1e-4 times moderate constants.
    np.testing.assert_allclose(sizes[1] / sizes[0], 100, rtol=1e-2)


@pytest.mark.slow
def test_no_finite_fit():
    sure = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    third = np.full(3, 1 / 3)
    assert np.isnan(ipodyn.sampling_sensitivity(DPO(), sure, third, throw=False)).all()
    assert np.isnan(ipodyn.bradley_terry_distance(sure, throw=False))
    with pytest.raises(RuntimeError, match="no finite optimum"):
        ipodyn.bradley_terry_distance(sure)
