"""Loops under preferences that are known from counts: draws, regimes of draws, and the pairs it takes to tell apart."""

import types

import jax
import numpy as np
import pytest

import ipodyn
from ipodyn._diagnosis import detection as _detection

START = np.array([0.5, 0.3, 0.2])
KEY = jax.random.key(0)


def test_the_posterior_has_the_moments_of_its_beta():
    """Beta(W + a, L + a): 12 wins of 16, and the prior alone, within five standard errors of 500 draws."""
    for prior, a, b in ((1.0, 13, 5), (0.5, 12.5, 4.5)):
        wins = np.array([[0, 12], [4, 0]])
        draws = np.asarray(ipodyn.posterior_preferences(KEY, wins, num_draws=500, prior=prior))[:, 0, 1]
        spread = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
        assert abs(draws.mean() - a / (a + b)) < 5 * spread / 500**0.5
        assert abs(draws.std() - spread) < 5 * spread / 1000**0.5
    for prior, variance in ((1.0, 1 / 12), (0.5, 1 / 8)):  # uniform, arcsine; a square has a spread below 1 / 8
        draws = np.asarray(ipodyn.posterior_preferences(KEY, np.zeros((2, 2)), num_draws=500, prior=prior))[:, 0, 1]
        assert abs(draws.var() - variance) < 5 / 8 / 500**0.5 / 2**0.5 and abs(draws.mean() - 0.5) < 0.08


def test_draws_stand_where_their_pairs_do():
    """With a million comparisons of each pair a draw is the share of wins; a pair that one side always won stays."""
    share = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])
    wins = np.round(1e6 * share * (1 - np.eye(3)))
    for draw in (ipodyn.posterior_preferences, ipodyn.bootstrap_preferences):
        P = np.asarray(draw(KEY, wins, num_draws=64))
        np.testing.assert_allclose(P, np.broadcast_to(share, (64, 3, 3)), atol=5 * 0.5 / 1e6**0.5)
        np.testing.assert_array_equal(P + P.swapaxes(1, 2), 1)
        assert (P[:, np.arange(3), np.arange(3)] == 0.5).all() and len(set(P[:, 0, 1].tolist())) > 32
    P = np.asarray(ipodyn.bootstrap_preferences(KEY, np.array([[0, 7, 3], [0, 0, 0], [1, 0, 0]]), num_draws=64))
    assert (P[:, 0, 1] == 1).all() and (P[:, 1, 2] == 0.5).all()  # always won; never compared
    np.testing.assert_allclose(4 * P[:, 0, 2], np.round(4 * P[:, 0, 2]), atol=1e-12)  # shares of four comparisons
    assert 0.5 < P[:, 0, 2].mean() < 0.95


def test_probabilities_are_shares_of_the_draws():
    """Of 64 three-cycles 16 are too strong: the radius of each is known, and so is what it does."""
    strength = np.where(np.arange(64) % 4 == 1, 0.45, 0.1)
    P = np.stack([np.asarray(ipodyn.problems.three_cycle(a)) for a in strength])
    found = ipodyn.regime_probabilities(P, alpha=0.9, beta=4.0, lam=1.0, policy0=START, num_steps=500)
    np.testing.assert_allclose(found.radius, np.sqrt(0.9**2 + (4 * strength) ** 2 / 3), rtol=1e-9)
    assert float(found.stable) == 0.75 and np.asarray(found.result == ipodyn.RESULTS.successful).all()
    expected = np.where(strength > 0.4, ipodyn.Regime.oscillates, ipodyn.Regime.converges)
    np.testing.assert_array_equal(found.regime, expected)
    shares = np.zeros(4)
    shares[ipodyn.Regime.oscillates], shares[ipodyn.Regime.converges] = 0.25, 0.75
    np.testing.assert_array_equal(found.probability, shares)
    np.testing.assert_allclose(found.error, np.sqrt(shares * (1 - shares) / 64))
    # Skewed policies each in its own place: the fixed point of the loop by itself.
    pi_ref, pi_0 = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8])
    found = ipodyn.regime_probabilities(
        P, alpha=0.9, beta=4.0, lam=0.5, pi_ref=pi_ref, pi_0=pi_0, policy0=START, num_steps=500
    )
    loop = ipodyn.MRS(P[1], alpha=0.9, beta=4.0, lam=0.5, pi_ref=pi_ref, pi_0=pi_0)
    alone = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy).radius
    np.testing.assert_allclose(found.radius[1], alone, rtol=1e-9)


@pytest.mark.parametrize("number", [1, 5, 40])
def test_the_best_threshold_by_trying_all(rng, number):
    for shift in (0.0, 1.0, 5.0):
        low = np.round(rng.normal(size=number), 1)
        high = np.round(rng.normal(size=2 * number) + shift, 1)  # ties occur

        def error(threshold, low=low, high=high):
            return ((low > threshold).mean() + (high <= threshold).mean()) / 2

        tried = [error(value) for value in np.concatenate([low, high])]
        best, threshold = _detection.best_threshold(low, high)
        np.testing.assert_allclose([best, error(threshold)], min(tried), atol=1e-12)
    # What is apart is told apart in the middle.
    best, threshold = _detection.best_threshold(np.array([1.0, 2.0]), np.array([4.0, 9.0]))
    assert (best, threshold) == (0.0, 3.0)


def test_the_smallest_sample_is_that_from_which_on_all_suffice(monkeypatch):
    """Variances as made by hand: whether the loops can be told apart at each size, and what is asked of the sweep."""
    stable, unstable = (
        ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=beta, lam=1.0) for beta in (3.0, 4.5)
    )
    asked = {}

    def simulated(loops, policy0, *, key, **options):
        asked.update(options, beta=np.asarray(loops.beta))
        same, apart = np.array([1.0, 2, 3, 4]), np.array([11.0, 12, 13, 14])
        wild = [apart if tells else same for tells in telling]
        return types.SimpleNamespace(window_variance=np.stack([same] * len(telling) + wild))

    monkeypatch.setattr(_detection, "finite_sweep", simulated)
    for telling, value in (
        ([True, True, True], 10.0),
        ([False, True, True], 20.0),
        ([True, False, True], 30.0),  # that 10 suffice was luck
        ([False, False, True], 30.0),
        ([True, True, False], np.inf),
    ):
        found = ipodyn.smallest_sample(stable, unstable, key=KEY, num_pairs=[10, 20, 30], num_steps=100)
        assert found.value == value
        assert (found.result == ipodyn.RESULTS.successful) == (value < np.inf)
        assert (found.result == ipodyn.RESULTS.not_told_apart) == (value == np.inf)
        np.testing.assert_array_equal(found.error, np.where(telling, 0.0, 0.5))
        assert (found.unstable.mean(axis=1) > 10).tolist() == telling and found.stable.max() == 4
    np.testing.assert_array_equal(asked["num_pairs"], [10, 20, 30, 10, 20, 30])
    np.testing.assert_array_equal(asked["beta"], [3, 3, 3, 4.5, 4.5, 4.5])
    assert asked["window"] == 50 and asked["num_steps"] == 100
    other = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=1.0, lam=1.0, objective=ipodyn.DPO())
    with pytest.raises(ValueError, match="one number of responses and one objective"):
        ipodyn.smallest_sample(stable, other, key=KEY, num_pairs=[10])
