"""How far counts settle a diagnosis: draws of P from its posterior, and what is said of them."""

import dataclasses
import functools

import diagnosed
import jax
import numpy as np
import pytest
import scipy.stats
from diagnosed import ALPHA, BETA, LAM, K, radius, shared

import ipodyn
from ipodyn._diagnosis.diagnosis import checked_counts, sorted_quantile
from ipodyn._diagnosis.prompts import POSTERIOR_DRAWS, PRIOR, Prompts
from ipodyn._preferences.posterior import posterior_of_prompts


@pytest.fixture(scope="module")
def matrices():
    return diagnosed.matrices()


@pytest.fixture(scope="module")
def found():
    return diagnosed.found()


posterior_draws = functools.partial(posterior_of_prompts, num_draws=POSTERIOR_DRAWS, prior=PRIOR)


def table(wins, losses):
    """Counts (..., K, K) of those of the pairs i < j."""
    counts = np.zeros((*wins.shape[:-1], K, K))
    i, j = np.triu_indices(K, 1)
    counts[..., i, j], counts[..., j, i] = wins, losses
    return counts


def test_uncertainty_narrows_with_counts(matrices, found):
    sure = ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, 1_000_000))
    many, few, radius = sure.uncertainty, found.uncertainty, found.equilibrium.radius
    decided = np.abs(radius - 1) > 0.01
    assert ((many.stable_probability > 0.5) == found.equilibrium.stable)[decided].all()
    assert (np.minimum(many.stable_probability, 1 - many.stable_probability)[decided] < 0.02).all()
    assert (many.radius_high - many.radius_low <= few.radius_high - few.radius_low + 1e-3).all()
    assert ((many.radius_low <= radius + 1e-2) & (radius <= many.radius_high + 1e-2)).all()
    for part in ("preferences", "equilibrium", "limits"):
        jax.tree.map(np.testing.assert_array_equal, getattr(sure, part), getattr(found, part))


def test_the_posterior_is_jeffreys():
    """Moments of Beta(W + 1/2, L + 1/2), for pairs compared often, once and never: within five standard errors."""
    wins, losses = np.array([8.0, 1.0, 0.0]), np.array([2.0, 0.0, 0.0])
    number = 4000
    drawn = posterior_draws(0, np.arange(number), np.tile(table(wins, losses), (number, 1, 1))).reshape(-1, 3)
    expected = scipy.stats.beta(wins + 0.5, losses + 0.5)
    error = expected.std() / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected.mean()) < 5 * error).all()
    # The error of a variance is that of the squares; the fourth moments are at most those of a coin, 1 / 16.
    assert (np.abs(drawn.var(axis=0) - expected.var()) < 5 * 0.25 / np.sqrt(len(drawn))).all()


def test_draws_of_a_prompt_are_its_own(matrices, found):
    """What is drawn depends on the seed and the place of the prompt: not on what stands next to it, nor on blocks."""
    wins = np.random.default_rng(0).uniform(0, 9, (10, 3))
    counts = table(wins, wins[::-1])
    every = posterior_draws(5, np.arange(10), counts)
    some = posterior_draws(5, np.array([3, 7]), counts[[3, 7]])
    np.testing.assert_array_equal(some, every[[3, 7]])
    same = posterior_draws(5, np.arange(2), counts[[0, 0]])
    assert not np.isin(same[0], same[1]).any()  # equal prompts have draws of their own
    assert not np.isin(every, posterior_draws(6, np.arange(10), counts)).any()  # and so has another seed

    counts = np.full(matrices.shape, 50.0)
    prompts = Prompts.of(matrices, shared())
    radius = prompts.posterior_radius(np.arange(20), counts, 0)
    small = dataclasses.replace(prompts, size=8, blocks=2)
    # Vectors of another width round differently.
    np.testing.assert_allclose(small.posterior_radius(np.arange(15, 20), counts, 0), radius[15:], rtol=1e-9)
    np.testing.assert_array_equal(np.mean(radius < 1, axis=1), found.uncertainty.stable_probability[:20])


def test_uncertainty_is_that_of_the_draws(matrices, found):
    """Share and quantiles of the radius over draws of P, each solved by itself."""
    i, j = np.triu_indices(K, 1)
    for index in (9, 20):
        wins = 50 * matrices[index]
        drawn = posterior_draws(0, np.array([index]), wins[None])[0]
        P = np.full((len(drawn), K, K), 0.5)
        P[:, i, j], P[:, j, i] = drawn, 1 - drawn
        radii = radius(P)
        said = found.uncertainty
        assert said.stable_probability[index] == np.mean(radii < 1)
        quantiles = said.radius_low[index], said.radius_high[index]
        np.testing.assert_allclose(quantiles, np.quantile(radii, (0.05, 0.95)), rtol=1e-8)


def test_quantiles_next_to_draws_that_were_not_solved():
    rows = np.stack([np.arange(64.0), np.where(np.arange(64) < 60, np.arange(64), np.inf), np.full(64, np.inf)])
    for share, expected in ((0.05, [3.15, 3.15, np.inf]), (0.95, [59.85, np.inf, np.inf])):
        np.testing.assert_allclose(sorted_quantile(rows, share), expected)


def test_counts_that_make_no_sense_are_refused(matrices):
    for counts, words in ((np.ones((3, 3)), "must be \\(24, 3, 3\\)"), (-np.ones(matrices.shape), "0 or more")):
        with pytest.raises(ValueError, match=words):
            checked_counts(counts, matrices)
    with pytest.raises(ValueError, match="0 or more"):
        ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, np.nan))
