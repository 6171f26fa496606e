"""Intervals against scipy and exact binomial sums; robust samplers against matrices drawn from the box."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from preferences import complementary

import ipodyn
from ipodyn._ranking.criteria import criterion_pairs
from ipodyn._ranking.robust_sampler import possible_tops, robust_excess, subsets
from ipodyn._ranking.sampler import excess

K = 4
CRITERIA = ("condorcet", "smith", "order")


@jax.jit
@jax.vmap
def EXCESS(lower, upper):
    return tuple(robust_excess(lower, upper, criterion) for criterion in CRITERIA)


@jax.jit
@jax.vmap
def KNOWN(P):
    return excess(P, P), tuple(criterion_pairs(P, criterion) for criterion in CRITERIA)


@jax.jit
@jax.vmap
def TOPS(lower, upper):
    return possible_tops(lower, upper, "condorcet"), possible_tops(lower, upper, "smith")


def boxes(rng, number):
    """Boxes of width up to 0.4 around random matrices, within [0, 1]."""
    middle = complementary(rng.uniform(size=(number, K, K)))
    half = np.triu(rng.uniform(0, 0.2, (number, K, K)), 1)
    half = half + half.swapaxes(1, 2)
    lower = np.maximum(middle - half, 0.0)
    return lower, 1 - lower.swapaxes(1, 2)


def inside(rng, lower, upper):
    """One matrix in each box: each pair at a limit, at a tie where it may be, or between."""
    kind = rng.integers(0, 4, lower.shape)
    between = lower + rng.uniform(size=lower.shape) * (upper - lower)
    tie = np.where((lower <= 0.5) & (upper >= 0.5), 0.5, between)
    return complementary(np.choose(kind, [lower, upper, tie, between]))


def test_limits_equal_scipy_and_cover(rng):
    """Beta quantiles, and the coverage of 20 comparisons by summing the binomial, for simultaneous and single ones."""
    n = 20
    wins = np.arange(n + 1)
    for pairs, simultaneous in ((1, False), (3, True)):
        tail = 0.1 / pairs / 2
        lower, upper = np.zeros(n + 1), np.zeros(n + 1)
        for w in wins:
            counts = np.array([[0, w, 3], [n - w, 0, 2], [1, 2, 0]])
            found = ipodyn.preference_intervals(counts, confidence=0.9, simultaneous=simultaneous)
            lower[w], upper[w] = found.lower[0, 1], found.upper[0, 1]
            np.testing.assert_array_equal(found.lower + found.upper.T, 1.0)
        np.testing.assert_allclose(lower[1:], scipy.stats.beta.ppf(tail, wins[1:], n - wins[1:] + 1), atol=1e-12)
        np.testing.assert_allclose(upper[:-1], scipy.stats.beta.ppf(1 - tail, wins[:-1] + 1, n - wins[:-1]), atol=1e-12)
        p = rng.uniform(size=200)[:, None]
        covered = (scipy.stats.binom.pmf(wins, n, p) * ((lower <= p) & (p <= upper))).sum(axis=1)
        assert (covered >= 1 - 0.1 / pairs).all()


def test_never_compared_is_unknown():
    found = ipodyn.preference_intervals(np.zeros((3, 3), int))
    apart = ~np.eye(3, dtype=bool)
    assert (np.asarray(found.lower)[apart] == 0).all() and (np.asarray(found.upper)[apart] == 1).all()
    with pytest.raises(ValueError, match="must be in"):
        ipodyn.preference_intervals(np.zeros((3, 3)), confidence=1.0)


def test_a_known_matrix_is_a_box_of_no_width(rng):
    """The robust programme is then the programme of `design_sampler`, ties included."""
    P = complementary(np.concatenate([rng.uniform(size=(200, K, K)), rng.integers(0, 5, (200, K, K)) / 4]))
    coefficients, known = KNOWN(P)
    for (robust, pairs), expected in zip(EXCESS(P, P), known, strict=True):
        np.testing.assert_array_equal(pairs, expected)
        named = np.asarray(pairs)
        np.testing.assert_array_equal(np.asarray(robust)[named], np.asarray(coefficients)[named])


def test_possible_tops_are_those_of_the_matrices_in_the_box(rng):
    """All 3^6 orientations (win, tie, loss) of the pairs that a box leaves open."""
    lower, upper = boxes(rng, 40)
    condorcet, smith = (np.asarray(x) for x in TOPS(lower, upper))
    first, second = np.triu_indices(K, 1)
    signs = np.array(list(itertools.product((0.0, 0.5, 1.0), repeat=len(first))))
    relations = np.full((len(signs), K, K), 0.5)
    relations[:, first, second], relations[:, second, first] = signs, 1 - signs
    tops = np.asarray(jax.jit(jax.vmap(ipodyn.smith_set))(relations))
    for m in range(len(lower)):
        low, high = lower[m][first, second], upper[m][first, second]
        possible = (
            ((signs == 1) & (high > 0.5)) | ((signs == 0) & (low < 0.5)) | (signs == 0.5) & (low <= 0.5) & (high >= 0.5)
        )
        reached = tops[possible.all(axis=1)]
        for found, sets in ((condorcet[m], subsets(K, "condorcet")), (smith[m], subsets(K, "smith"))):
            expected = [(reached == s).all(axis=1).any() for s in sets]
            np.testing.assert_array_equal(found, expected)


def test_worst_case_bounds_every_matrix_in_the_box(rng):
    """For random mu: no matrix of the box falls below it where it names the pair; for orders it is attained."""
    lower, upper = boxes(rng, 200)
    mu = rng.dirichlet(np.ones(K), 200)
    answers = [(np.einsum("mijk,mk->mij", c, mu), np.asarray(p)) for c, p in EXCESS(lower, upper)]
    for _ in range(50):
        P = inside(rng, lower, upper)
        score = np.einsum("mij,mj->mi", P, mu)
        difference = score[:, :, None] - score[:, None, :]
        for (worst, pairs), named in zip(answers, KNOWN(P)[1], strict=True):
            named = np.asarray(named)
            assert not (named & ~pairs).any()
            assert (difference >= worst - 1e-14)[named].all()
    worst, pairs = answers[2]
    for i, j in itertools.permutations(range(K), 2):
        P = np.tile(
            0.5, (200, K, K)
        )  # rows i and j at their worst; P_ij at its lower limit, or at a tie if that is open
        P[:, i], P[:, j] = lower[:, i], upper[:, j]
        P[:, i, j] = np.maximum(lower[:, i, j], 0.5)
        P[:, j, i], P[:, i, i], P[:, j, j] = 1 - P[:, i, j], 0.5, 0.5
        difference = np.einsum("mk,mk->m", P[:, i] - P[:, j], mu)
        np.testing.assert_allclose(difference[pairs[:, i, j]], worst[pairs[:, i, j], i, j], atol=1e-14)


@pytest.mark.slow
def test_certified_samplers_hold_throughout_the_box(rng):
    """Counts of 400 a pair on a matrix with a clear winner: both paths certify, and drawn matrices comply."""
    P = np.array([[0.5, 0.7, 0.65], [0.3, 0.5, 0.8], [0.35, 0.2, 0.5]])
    wins = np.triu(rng.binomial(400, P), 1)
    wins = wins + np.tril(400 - wins.T, -1)
    found = ipodyn.preference_intervals(wins, confidence=0.95)
    lower, upper = np.asarray(found.lower), np.asarray(found.upper)
    for criterion in CRITERIA:
        samplers = [ipodyn.robust_sampler(lower, upper, criterion, method=m) for m in ("jax", "highs")]
        assert abs(float(samplers[0].margin - samplers[1].margin)) < 1e-9
        assert float(samplers[0].margin) > 0
        low, high = (np.broadcast_to(x, (500, 3, 3)) for x in (lower, upper))
        score = inside(rng, low, high) @ np.asarray(samplers[0].mu)
        assert (score[:, 0] - score[:, 1:].max(axis=1) >= float(samplers[0].margin) - 1e-14).all()
    nothing = ipodyn.preference_intervals(np.zeros((3, 3)))
    assert not ipodyn.robust_sampler(nothing.lower, nothing.upper, throw=False).feasible
    assert jnp.isfinite(ipodyn.robust_sampler(nothing.lower, nothing.upper, throw=False).margin)
