"""Single precision, as where x64 is off: default dtypes, and accuracy against float64 by a rule of this file.

The rule: a result may be off by ROUNDINGS roundings of float32 (1.2e-7) times the size of the numbers that enter it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P
from scipy.special import expit, logsumexp

import ipodyn
from ipodyn import DPO, IPO, MRS

EPS = 2.0**-23
ROUNDINGS = 16


@pytest.fixture(autouse=True)
def without_x64():
    with jax.enable_x64(False):
        yield


def softmax(z):
    return np.exp(z - logsumexp(z, axis=-1, keepdims=True))


def test_everything_is_float32_by_default():
    loop = MRS(np.array([[0.5, 0.7], [0.3, 0.5]]), alpha=0.5, beta=2, lam=1)
    found = ipodyn.rollout(loop, [0.9, 0.1], num_steps=20, save=ipodyn.entropy)
    leaves = [x for x in jax.tree.leaves((loop, found)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert {x.dtype for x in leaves} == {jnp.dtype("float32")}
    assert ipodyn.problems.three_cycle(0.3).dtype == jnp.float32
    assert ipodyn.entropy(np.array([0.5, 0.5])).dtype == jnp.float32  # NumPy's float64 becomes the default


def test_optima(rng):
    M, K = 500, 5
    P, beta = random_P(rng, M, K, edge=0.05).astype(np.float32), 10 ** rng.uniform(-2, 2, M).astype(np.float32)
    mu, ref = (rng.dirichlet(np.full(K, 0.5), M).astype(np.float32) for _ in range(2))

    def solve(P, mu, ref, b):
        return IPO().optimum(P, mu, ref, beta=b), DPO().solve(P, mu, ref, beta=b, throw=False), DPO().score(P, mu)

    ipo, dpo, score = jax.jit(jax.vmap(solve))(P, mu, ref, beta)
    P, mu, ref, beta = (x.astype(np.float64) for x in (P, mu, ref, beta))
    expected = softmax(np.log(ref) + beta[:, None] * np.einsum("mij,mj->mi", P, mu))
    size = 1 + beta[:, None] + np.abs(np.log(ref)).max(axis=1, keepdims=True)
    assert (np.abs(ipo - expected) <= ROUNDINGS * EPS * size).all()

    assert (dpo.result == ipodyn.RESULTS.successful).all()
    score = np.asarray(score, np.float64)
    misfit = np.einsum("mij,mj->mi", P - expit(score[:, :, None] - score[:, None, :]), mu)
    assert np.abs(misfit).max() <= ROUNDINGS * EPS
    expected = softmax(np.log(ref) + beta[:, None] * score)
    assert (np.abs(np.asarray(dpo.policy) - expected) <= ROUNDINGS * EPS * size * (1 + np.abs(score).max())).all()


def test_dpo_close_to_certainty(rng):
    """P within 1e-5 of 0 and 1, where the scores hold few digits: still solved, never a false alarm."""
    P = random_P(rng, 1000, 4).astype(np.float32)
    sure = np.triu(rng.uniform(size=P.shape) < 0.5, 1)
    P = np.where(sure, np.float32(1 - 1e-5), P)
    P = np.where(sure.swapaxes(1, 2), np.float32(1e-5), P)
    found = jax.jit(jax.vmap(DPO().solve_score))(P, rng.dirichlet(np.full(4, 0.3), 1000).astype(np.float32))
    assert (found.result == ipodyn.RESULTS.successful).all()
    assert np.asarray(found.residual).max() <= ROUNDINGS * EPS


def test_rollouts_follow_float64(rng):
    """Contractions: the rounding of a round is damped, so that 3,000 rounds are off by what 1 / (1 - q) of them add."""
    M, K = 100, 4
    P = random_P(rng, M, K).astype(np.float32)
    alpha, lam = rng.uniform(0, 0.9, M), rng.uniform(0.1, 1, M)
    contraction = alpha + 0.9 * (1 - alpha)
    beta = 1.8 * (1 - alpha) / lam / np.linalg.norm(P - 0.5, 2, axis=(1, 2))
    start = rng.dirichlet(np.ones(K), M)
    arrays = [x.astype(np.float32) for x in (alpha, beta, lam, start)]

    def run(P, alpha, beta, lam, start):
        found = ipodyn.rollout(MRS(P, alpha=alpha, beta=beta, lam=lam), start, num_steps=3000)
        return found, ipodyn.classify(found)

    found, regime = jax.jit(jax.vmap(run))(P, *arrays)
    P, alpha, beta, lam, start = (x.astype(np.float64) for x in (P, *arrays))
    z = np.log(start)
    for _ in range(3000):
        mu = lam[:, None] * softmax(z) + (1 - lam)[:, None] / K
        z = alpha[:, None] * z + beta[:, None] * np.einsum("mij,mj->mi", P - 0.5, mu)
        z -= z.max(axis=1, keepdims=True)
    size = 1 + np.abs(z).max(axis=1)
    bound = ROUNDINGS * EPS * size / (1 - contraction)
    assert (np.abs(found.final - softmax(z)).max(axis=1) <= bound).all()
    assert np.asarray(found.window_variance).max() < 1e-10  # at rest: sums about the policy, nothing cancels
    assert (np.asarray(regime) == ipodyn.Regime.converges).all()


def test_variance_of_a_small_wobble_is_exact():
    """A policy that moves by 1e-4 around 1/3: mean of squares minus square of the mean would keep no digit."""
    P = ipodyn.problems.three_cycle(0.4)
    beta = float(np.sqrt(3 * (1 - 0.5**2)) / 0.4)  # F2, on the boundary: it turns for long
    start = [1 / 3 + 1e-4, 1 / 3, 1 / 3 - 1e-4]
    found = ipodyn.rollout(MRS(P, alpha=0.5, beta=beta, lam=1.0), start, num_steps=600, save=lambda p: p)
    exact = np.asarray(found.saved, np.float64).var(axis=0).sum()
    assert 1e-9 < exact < 1e-7
    np.testing.assert_allclose(found.variance, exact, rtol=1e-4)


@pytest.mark.parametrize("objective", [IPO(), DPO()], ids=["IPO", "DPO"])
def test_a_hundred_thousand_rounds_at_extremes(objective):
    """alpha = 1 and beta = 1e4: logits of -1e9, and still a policy."""
    P = ipodyn.problems.strongly_transitive(jax.random.key(1), 3)
    num_steps = 100_000 if isinstance(objective, IPO) else 2000
    found = ipodyn.rollout(MRS(P, alpha=1.0, beta=1e4, lam=0.5, objective=objective), num_steps=num_steps)
    np.testing.assert_allclose(np.sum(found.final), 1, rtol=1e-6)
    assert ipodyn.Regime(int(ipodyn.classify(found))).name == "collapses"
    assert int(np.argmax(found.final)) == int(ipodyn.condorcet_winner(P))
