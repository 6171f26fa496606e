"""Skewed sampling: the sufficient condition and its consequences, the identity that limits it, and the path itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import mixture, strongly_transitive

import ipodyn

K, NUMBER, BETA = 5, 400, 3.0
CONDITION = jax.jit(jax.vmap(lambda P, mu, other: ipodyn.concentration_condition(P, mu, other)))
ROWS = jax.jit(jax.vmap(ipodyn.row_gap_monotone))
DOMINATES = jax.jit(jax.vmap(ipodyn.dominates))
PATHS = {
    name: jax.jit(
        jax.vmap(
            lambda P, mu, other, ref, objective=objective: ipodyn.concentration(
                objective, P, mu, other, num=3, beta=BETA, pi_ref=ref
            )
        )
    )
    for name, objective in {"IPO": ipodyn.IPO(), "DPO": ipodyn.DPO()}.items()
}


def moved_up(rng, mu, order):
    """`mu` with some mass moved up the order across random cuts: dominates it, by construction."""
    rows = np.arange(len(mu))
    up = mu.copy()
    for cut in range(K - 1):
        better, worse = order[:, cut], order[:, cut + 1]
        step = rng.uniform(size=len(mu)) * up[rows, worse] * (rng.uniform(size=len(mu)) < 0.6)
        up[rows, better] += step
        up[rows, worse] -= step
    return up


def ranked(x, order):
    """(M, K, K) sorted along both axes by `order`."""
    rows = np.arange(len(x))[:, None, None]
    return x[rows, order[:, :, None], order[:, None, :]]


def majorises(p, q):
    """Whether p has at least as much on its top m responses, for every m."""
    top = [np.cumsum(-np.sort(-x, axis=1), axis=1) for x in (p, q)]
    return np.all(top[0] - top[1] > -1e-13, axis=1)


def test_condition_is_the_change_of_the_logit_gaps(rng):
    P, mu = mixture(rng, NUMBER, K), rng.dirichlet(np.ones(K), NUMBER)
    other, ref = rng.dirichlet(np.ones(K), NUMBER), rng.dirichlet(np.full(K, 3.0), NUMBER)
    found = jax.tree.map(np.asarray, CONDITION(P, mu, other))
    change = np.einsum("mijk,mk->mij", P[:, :, None] - P[:, None], other - mu)
    upper = np.triu(np.ones((K, K), bool), 1)
    np.testing.assert_allclose(
        ranked(found.gain, found.order), np.where(upper, ranked(change, found.order), 0), atol=1e-14
    )
    np.testing.assert_array_equal(found.violations, found.gain < -1e-13)
    np.testing.assert_array_equal(found.holds, ~found.violations.any(axis=(1, 2)))
    np.testing.assert_allclose(found.margin, ranked(found.gain, found.order)[:, upper].min(axis=1), atol=1e-15)

    path = jax.tree.map(np.asarray, PATHS["IPO"](P, mu, other, ref))
    gain = BETA * ranked(found.gain, found.order)[:, np.arange(K - 1), np.arange(1, K)]
    np.testing.assert_allclose(path.gap[:, 2] - path.gap[:, 0], gain, atol=1e-13)
    np.testing.assert_allclose(path.gap[:, 1], (path.gap[:, 0] + path.gap[:, 2]) / 2, atol=1e-13)
    # The policies are the optima, by the closed form in NumPy.
    for place, sampled in enumerate((mu, (mu + other) / 2, other)):
        weight = ref * np.exp(BETA * np.einsum("mij,mj->mi", P, sampled))
        policy = weight / weight.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(path.policy[:, place], policy, atol=1e-14)
        np.testing.assert_allclose(path.entropy[:, place], -np.sum(policy * np.log(policy), axis=1), atol=1e-13)
        np.testing.assert_allclose(path.top[:, place], policy.max(axis=1), atol=1e-14)


def test_where_the_condition_holds_the_policy_concentrates(rng):
    """Theory: a sorted policy whose gaps all grow is majorised by what becomes of it."""
    P = strongly_transitive(rng, NUMBER, K)
    order = np.asarray(jax.vmap(ipodyn.strong_order)(P).order)
    mu = rng.dirichlet(np.ones(K), NUMBER)
    # Mass moves up across the last cut alone: that gap stays (by the identity below), the others may grow.
    other = mu.copy()
    rows, amount = np.arange(NUMBER), mu[np.arange(NUMBER), order[:, -1]] * 0.9
    other[rows, order[:, -2]] += amount
    other[rows, order[:, -1]] -= amount
    found = CONDITION(P, mu, other)
    path = jax.tree.map(np.asarray, PATHS["IPO"](P, mu, other, np.full((NUMBER, K), 1 / K)))
    holds = np.asarray(found.holds)
    assert 10 < holds.sum() < NUMBER
    assert majorises(path.policy[:, 2], path.policy[:, 0])[holds].all()
    assert (path.entropy[holds, 2] <= path.entropy[holds, 0] + 1e-13).all()
    assert (path.top[holds, 2] >= path.top[holds, 0] - 1e-13).all()
    assert not majorises(path.policy[:, 2], path.policy[:, 0]).all()  # where it fails it can fail to concentrate


def test_monotone_row_gaps_and_dominance_enlarge_the_gap(rng):
    """Theory, pair by pair, with the premises and the conclusion checked in NumPy."""
    P = np.concatenate([strongly_transitive(rng, NUMBER // 2, K), mixture(rng, NUMBER // 2, K)])
    rows = jax.tree.map(np.asarray, ROWS(P))
    sorted_P = ranked(P, rows.order)
    gaps = sorted_P[:, :, None, :] - sorted_P[:, None, :, :]
    drop = (gaps[..., :-1] - gaps[..., 1:]).min(axis=3)
    upper = np.triu(np.ones((K, K), bool), 1)
    np.testing.assert_allclose(ranked(rows.drop, rows.order)[:, upper], drop[:, upper], atol=1e-15)
    np.testing.assert_array_equal(ranked(rows.pairs, rows.order), upper & (drop >= -1e-14))

    mu = rng.dirichlet(np.ones(K), NUMBER)
    other = moved_up(rng, mu, rows.order)
    assert DOMINATES(other, mu, rows.order).all()
    gain = np.asarray(CONDITION(P, mu, other).gain)
    assert (gain[rows.pairs] >= -1e-13).all() and rows.pairs.sum() > 100
    assert (gain[~rows.pairs] < -1e-3).sum() > 100  # the other gaps can shrink


def test_mass_that_moves_weighs_the_gaps_to_zero(rng):
    """The identity: sum over cuts of (mass across) * (change of the gap) = 0, whatever P, mu, mu' and the order."""
    P = mixture(rng, NUMBER, K)
    mu, other = rng.dirichlet(np.ones(K), (2, NUMBER))
    found = jax.tree.map(np.asarray, CONDITION(P, mu, other))
    neighbours = ranked(found.gain, found.order)[:, np.arange(K - 1), np.arange(1, K)]
    np.testing.assert_allclose(np.sum(found.crossing * neighbours, axis=1), 0, atol=1e-14)
    crossing = np.cumsum(np.take_along_axis(other - mu, found.order, axis=1), axis=1)[:, :-1]
    np.testing.assert_allclose(found.crossing, crossing, atol=1e-15)
    # So, if mass moves up across every cut, a gap that grows means another that shrinks.
    up = CONDITION(P, mu, (mu + np.eye(K)[found.order[:, 0]]) / 2)
    assert (up.crossing > 0).all() and not up.holds[np.abs(up.gain).max(axis=(1, 2)) > 1e-9].any()


def test_monotone_for_all_pairs_means_linear(rng):
    linear = rng.uniform(0, 0.5, size=(NUMBER // 2, K))
    P = np.concatenate([0.5 + linear[:, :, None] - linear[:, None, :], mixture(rng, NUMBER // 2, K)])
    potential = P.mean(axis=2)
    residual = np.abs(P - 0.5 - potential[:, :, None] + potential[:, None, :]).max(axis=(1, 2))
    holds = np.asarray(ROWS(P).holds)
    np.testing.assert_array_equal(holds, residual < 1e-8)  # the mixture has wins of 1e-9 alone, linear or not
    assert NUMBER // 2 <= holds.sum() < NUMBER


def test_dominance_against_its_definition(rng):
    """mu' dominates mu exactly if every increasing utility, here every top set, expects at least as much."""
    mu, other = rng.multinomial(8, np.full(K, 1 / K), (2, NUMBER)) / 8  # eighths: exact, and often equal
    order = rng.permuted(np.tile(np.arange(K), (NUMBER, 1)), axis=1)
    utilities = np.zeros((NUMBER, K, K))
    for m in range(K):
        np.put_along_axis(utilities[:, m], order[:, : m + 1], 1.0, axis=1)
    expected = np.einsum("mck,mk->mc", utilities, other - mu).min(axis=1) >= 0
    np.testing.assert_array_equal(DOMINATES(other, mu, order), expected)
    assert 0.05 < expected.mean() < 0.5 and DOMINATES(mu, mu, order).all()
    assert DOMINATES(mu.astype(np.float32), (mu + 1e-7).astype(np.float32), order).all()


@pytest.mark.slow
def test_dpo_path(rng):
    """On Bradley-Terry nothing moves; elsewhere the scores solve the likelihood equations of every point."""
    rewards = rng.normal(size=(NUMBER, K))
    P = 1 / (1 + np.exp(rewards[:, None, :] - rewards[:, :, None]))
    P[NUMBER // 2 :] = 0.5 + 0.9 * (mixture(rng, NUMBER // 2, K) - 0.5)
    mu, other = 0.9 * rng.dirichlet(np.ones(K), (2, NUMBER)) + 0.1 / K
    path = jax.tree.map(np.asarray, PATHS["DPO"](P, mu, other, np.full((NUMBER, K), 1 / K)))
    still = path.gap[: NUMBER // 2]
    assert np.ptp(still, axis=1).max() < 1e-11 and np.ptp(path.gap[NUMBER // 2 :], axis=1).max() > 0.1
    score = np.log(path.policy) / BETA
    rates = 1 / (1 + np.exp(score[:, :, None, :] - score[:, :, :, None]))
    misfit = np.einsum("msij,msj->msi", P[:, None] - rates, path.mu)
    np.testing.assert_allclose(misfit, 0, atol=1e-12)


@pytest.mark.slow
def test_failures_are_named():
    sure = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    third, other = np.full(3, 1 / 3), np.array([0.5, 0.25, 0.25])
    path = ipodyn.concentration(ipodyn.DPO(), sure, third, other, num=2, throw=False)
    assert jnp.isnan(path.gap).all() and jnp.isnan(path.entropy).all()
    assert (path.result == ipodyn.RESULTS.diverging_scores).all()
    with pytest.raises(ValueError, match="`num` is 1"):
        ipodyn.concentration(ipodyn.IPO(), sure, third, other, num=1)
