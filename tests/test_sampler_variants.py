"""The sparsest sampler against HiGHS on every support, the closest one against scipy and by duality."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from preferences import complementary

import ipodyn
from ipodyn._numerics.matrix_game_highs import highs_game
from ipodyn._ranking.sampler_variants import _closest


def matrices(rng, number, K):
    """Random matrices in which response 0 beats all others, every other one on a coarse grid."""
    P = rng.uniform(size=(number, K, K))
    P[::2] = np.round(4 * P[::2]) / 4
    P[:, 0] = np.maximum(np.maximum(P[:, 0], 1 - P[:, 0]), 0.55)
    return complementary(P)


def best_margin(P, pairs, support):
    """Of all distributions on the support, by HiGHS."""
    game = (P[:, None] - P[None])[pairs][:, support]
    column, _ = highs_game(game, np.ones(len(game), bool))
    return (game @ column).min()


def check_sparsest(P, criterion, pairs, share, by_enumeration=True):
    K = len(P)
    found = ipodyn.sparsest_sampler(P, criterion, fraction=share)
    best = best_margin(P, pairs, list(range(K)))
    score = P @ np.asarray(found.mu)
    margin = (score[:, None] - score[None])[pairs].min()
    assert margin >= share * best - 1e-9 and abs(float(found.margin) - margin) < 1e-14
    support = np.flatnonzero(np.asarray(found.mu) > 0)
    supports = itertools.combinations(range(K) if by_enumeration else support, len(support) - 1)
    assert len(support) == 1 or all(best_margin(P, pairs, list(s)) < share * best + 1e-9 for s in supports)


def pairs_of_winner(K):
    pairs = np.zeros((K, K), bool)
    pairs[0, 1:] = True
    return pairs


@pytest.mark.slow
def test_no_smaller_support_has_the_margin(rng):
    for P, share in zip(matrices(rng, 20, 3), rng.choice([0.3, 0.6, 0.95], 20), strict=True):
        check_sparsest(P, "condorcet", pairs_of_winner(3), share)


def by_scipy(P, pairs, near, share):
    """The same convex programme for SLSQP, from the best sampler."""
    K, rows = len(P), (P[:, None] - P[None])[pairs]
    column, _ = highs_game(rows, np.ones(len(rows), bool))
    margin = share * (rows @ column).min()
    safe = 0.99 * column + 0.01 / K
    found = scipy.optimize.minimize(
        lambda x: (x * np.log(np.maximum(x, 1e-300) / near)).sum(),
        safe,
        jac=lambda x: np.log(np.maximum(x, 1e-300) / near) + 1,
        bounds=[(1e-12, 1)] * K,
        constraints=[
            {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(K)},
            {"type": "ineq", "fun": lambda x: rows @ x - margin, "jac": lambda x: rows},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x, found.fun, margin


def test_closest_is_certified_and_that_of_scipy(rng):
    K = 3
    for P, near in zip(matrices(rng, 20, K), rng.dirichlet(np.ones(K), 20), strict=True):
        found = ipodyn.closest_sampler(P, "condorcet", near=near, fraction=0.7)
        mu, kl, margin = by_scipy(P, pairs_of_winner(K), near, 0.7)
        score = P @ np.asarray(found.sampler.mu)
        assert (score[0] - score[1:]).min() >= margin - 1e-11
        assert (
            found.result == ipodyn.RESULTS.successful and float(found.gap) < 1e-10
        )  # so the divergence is the least one, whatever scipy says
        assert float(found.kl) <= kl + 1e-9
        np.testing.assert_allclose(found.sampler.mu, mu, atol=2e-5)  # SLSQP knows the optimum by its value only


def test_closest_leaves_alone_what_is_good_enough(rng):
    P = matrices(rng, 1, 3)[0]
    strong = ipodyn.design_sampler(P, "condorcet").mu
    np.testing.assert_allclose(ipodyn.closest_sampler(P, "condorcet", near=strong).sampler.mu, strong, atol=1e-9)
    cycle = ipodyn.problems.three_cycle(0.2)
    near = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(ipodyn.closest_sampler(cycle, "smith", near=near).sampler.mu, near, atol=1e-15)
    for verb in (ipodyn.closest_sampler, ipodyn.sparsest_sampler):
        with pytest.raises(RuntimeError, match="No sampling distribution meets"):
            jax.block_until_ready(jax.tree.leaves(verb(cycle, "order")))
        with pytest.raises(ValueError, match="must be in"):
            verb(P, fraction=1.0)


@pytest.mark.slow
def test_larger_ones(rng):
    for P in matrices(rng, 10, 5):
        check_sparsest(P, "condorcet", pairs_of_winner(5), 0.8)
    for P in matrices(rng, 5, 9):
        check_sparsest(P, "condorcet", pairs_of_winner(9), 0.8, by_enumeration=False)
    K, number = 5, 400
    P, near = matrices(rng, number, K), rng.dirichlet(np.ones(K), number)
    pairs = jnp.asarray(pairs_of_winner(K))
    for share in (0.1, 0.5, 0.9, 0.99):
        solve = jax.jit(jax.vmap(lambda P, near, share=share: _closest(P, pairs, near, jnp.asarray(share))))
        sampler, gap = solve(P, near)
        short = share * sampler.bound - sampler.margin
        # The certificate speaks of both, up to the roundings of two sums of products of numbers below 1.
        assert bool((short <= jnp.maximum(gap, 0) + 16 * np.finfo(float).eps).all())
        # Near share = 1 the admissible set is thin, and one in a thousand is still on its way after all steps.
        strict = np.mean((gap < 1e-9) & (short < 1e-11))
        assert float(gap.max()) < 1.5e-8 and strict > (0.99 if share == 0.99 else 0.9999)
