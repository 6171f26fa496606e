"""Voting rules against a social-choice library, enumeration and an optimiser; the split against least squares."""

import itertools
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from preferences import complementary, mixture

import ipodyn

optimize = pytest.importorskip("scipy.optimize")
GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "social_choice.json").read_text())
RULES = jax.jit(
    jax.vmap(lambda P: (ipodyn.borda_scores(P), ipodyn.copeland_scores(P), ipodyn.schwartz_set(P), ipodyn.smith_set(P)))
)
SPLIT = jax.jit(jax.vmap(ipodyn.hodge_split))


def golden(K):
    """The cases of the library with K responses, their preference matrices, and margins per unit of probability."""
    cases = [case for case in GOLDEN["cases"] if case["K"] == K]
    margin = np.zeros((len(cases), K, K))
    for matrix, case in zip(margin, cases, strict=True):
        matrix[np.triu_indices(K, 1)] = case["pairs"]
    votes = np.maximum(1, np.abs(margin).max(axis=(1, 2), keepdims=True))
    margin -= margin.swapaxes(1, 2)
    return cases, 0.5 + margin / (2 * votes), 2 * votes[:, 0]


@pytest.mark.parametrize("K", [3, 4, 5, 6])
def test_agrees_with_a_social_choice_library(K):
    cases, P, unit = golden(K)
    borda, copeland, schwartz, smith = map(np.asarray, RULES(P))
    # The library's Borda score is the row sum of margins.
    np.testing.assert_allclose((borda - 0.5) * (K - 1) * unit, [c["borda_scores"] for c in cases], atol=1e-12)
    np.testing.assert_array_equal(copeland, [c["copeland_scores"] for c in cases])
    np.testing.assert_array_equal(schwartz, [[i in c["schwartz_set"] for i in range(K)] for c in cases])
    assert (schwartz <= smith).all() and (schwartz < smith).any()
    for case, matrix in zip(cases[::2], P[::2], strict=True):
        lottery = ipodyn.maximal_lottery(matrix)
        assert_lottery(matrix, lottery)
        theirs = np.array(case["maximal_lottery"])
        if case["maximal_lottery_unique"]:
            np.testing.assert_allclose(lottery, theirs, atol=1e-9)
        assert entropy(lottery) >= entropy(theirs) - 1e-9


def entropy(p):
    return -np.sum(p[p > 0] * np.log(p[p > 0]))


def assert_lottery(P, lottery):
    np.testing.assert_allclose(lottery.sum(), 1, rtol=1e-14)
    assert (lottery >= 0).all() and (lottery @ (P - 0.5)).min() > -1e-10


def schwartz_by_subsets(P):
    """The union of the minimal sets that no outsider beats, by trying all subsets."""
    K = len(P)
    undominated = [
        set(inside)
        for size in range(1, K + 1)
        for inside in itertools.combinations(range(K), size)
        if not any(P[j, i] > 0.5 for i in inside for j in range(K) if j not in inside)
    ]
    minimal = [s for s in undominated if not any(other < s for other in undominated)]
    return [i in set().union(*minimal) for i in range(K)]


@pytest.mark.parametrize("K", [3, 4, 5, 6])
def test_schwartz_set_by_enumeration(K, rng):
    P = mixture(rng, 100, K)  # as many as there are golden cases: one compiled shape
    np.testing.assert_array_equal(RULES(P)[2], [schwartz_by_subsets(p) for p in P])


@pytest.mark.parametrize("K", [4, 5])
def test_maximal_lottery_is_the_most_even_one(K, rng):
    """Against SLSQP on the full polytope, which knows nothing of supports or duals."""
    several = 0
    for P in complementary(rng.choice([0.25, 0.5, 0.5, 0.75], (20, K, K))):
        lottery = ipodyn.maximal_lottery(P)
        assert_lottery(P, lottery)
        found = optimize.minimize(
            lambda p: np.sum(p * np.log(p + 1e-300)),
            np.full(K, 1 / K),
            jac=lambda p: np.log(p + 1e-300) + 1,
            bounds=[(1e-15, 1)] * K,
            constraints=[
                {"type": "eq", "fun": lambda p: p.sum() - 1},
                {"type": "ineq", "fun": lambda p, P=P: p @ (P - 0.5) + 1e-12, "jac": lambda p, P=P: (P - 0.5).T},
            ],
            options={"ftol": 1e-13, "maxiter": 500},
        )
        if found.success:  # SLSQP's tolerance: 1e-7 in entropy is 3e-4 in probability, by strong concavity
            assert entropy(lottery) >= -found.fun - 1e-6
            np.testing.assert_allclose(lottery, found.x, atol=2e-3)
            several += np.sum(lottery > 0) > 1
    assert several >= 5


def test_lottery_with_a_binding_inequality():
    """3 wins or ties with all; 1 ties with 3 and may share, but 2 beats 1: at most a quarter of the mass."""
    margin = np.array([[0, 3, 0, -3], [-3, 0, -3, 0], [0, 3, 0, -1], [3, 0, 1, 0]])
    np.testing.assert_allclose(ipodyn.maximal_lottery(0.5 + margin / 6), [0, 0.25, 0, 0.75], atol=1e-9)


def test_lottery_special_cases():
    assert ipodyn.maximal_lottery(np.full((4, 4), 0.5)).tolist() == [0.25] * 4
    assert ipodyn.maximal_lottery(ipodyn.problems.overshadowed_winner(4, 1e-6)).tolist() == [1, 0, 0, 0]
    with pytest.raises(ValueError, match="give one matrix"):
        ipodyn.maximal_lottery(np.full((2, 3, 3), 0.5))


def test_lottery_without_scipy_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"needs scipy: pip install 'ipodyn\[lp\]'"):
        ipodyn.maximal_lottery(ipodyn.problems.three_cycle(0.3))


@pytest.mark.parametrize("K", [3, 6])
def test_hodge_split_is_the_least_squares_one(K, rng):
    P = mixture(rng, 60, K)
    split = SPLIT(P)
    skew = P - 0.5
    first, second = np.triu_indices(K, 1)
    design = np.zeros((len(first), K))
    design[np.arange(len(first)), first], design[np.arange(len(first)), second] = 1, -1
    score = np.linalg.lstsq(design, skew[:, first, second].T)[0].T
    np.testing.assert_allclose(split.score, score, atol=1e-14)
    np.testing.assert_allclose(split.gradient + split.cyclic, skew, atol=1e-15)
    np.testing.assert_allclose(np.sum(split.gradient * split.cyclic, axis=(1, 2)), 0, atol=1e-14)
    # The cyclic part from its triangles alone: C_ij is the mean over k of the curl of (i, j, k).
    full = skew[:, :, :, None] + skew[:, None, :, :] + skew.swapaxes(1, 2)[:, :, None, :]
    np.testing.assert_allclose(split.cyclic, full.mean(axis=3), atol=1e-14)
    energies = np.sum(np.asarray(split.gradient) ** 2, axis=(1, 2)) / 2, np.sum(split.curl**2, axis=1) / K
    np.testing.assert_allclose(split.gradient_energy, energies[0], atol=1e-14)
    np.testing.assert_allclose(split.cyclic_energy, energies[1], atol=1e-14)
    np.testing.assert_allclose(energies[0] + energies[1], np.sum(skew**2, axis=(1, 2)) / 2, atol=1e-13)
    triangles = np.asarray(split.triangles)[0]
    assert triangles.tolist() == [list(t) for t in itertools.combinations(range(K), 3)]
    curl = np.stack([skew[:, i, j] + skew[:, j, k] + skew[:, k, i] for i, j, k in triangles], axis=1)
    np.testing.assert_allclose(split.curl, curl, atol=1e-15)
    total = np.sum(curl**2, axis=1, keepdims=True)
    np.testing.assert_allclose(split.fraction * total, curl**2, atol=1e-14)
    np.testing.assert_allclose(np.sum(split.fraction, axis=1), total[:, 0] > 0, atol=1e-14)


def test_hodge_split_names_the_cycle():
    """A linear ladder with one three-cycle added: the split gives both back."""
    score = np.array([0.1, 0.05, 0.0, -0.05, -0.1])
    cycle = np.zeros((5, 5))
    cycle[[1, 3, 4], [3, 4, 1]] = 0.2
    split = ipodyn.hodge_split(0.5 + score[:, None] - score[None, :] + cycle - cycle.T)
    np.testing.assert_allclose(split.score, score, atol=1e-15)
    np.testing.assert_allclose(split.cyclic, cycle - cycle.T, atol=1e-15)
    strongest = int(np.argmax(split.fraction))
    assert split.triangles[strongest].tolist() == [1, 3, 4] and abs(float(split.curl[strongest]) - 0.6) < 1e-14


def test_hodge_split_of_ties_and_pairs():
    split = ipodyn.hodge_split(np.full((3, 3), 0.5))
    assert split.fraction.tolist() == [0.0] and float(split.cyclic_fraction) == 0
    split = ipodyn.hodge_split(np.array([[0.5, 0.8], [0.2, 0.5]]))
    assert split.triangles.shape == (0, 3) and float(split.cyclic_energy) == 0
