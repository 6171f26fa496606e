"""Ranking axioms against brute force over subsets and triples, at ties, and the theorems about score maps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary, mixture, strongly_transitive

import ipodyn
from ipodyn._ranking import axioms

AXIOMS = (ipodyn.condorcet_top, ipodyn.smith_top, ipodyn.order_preserving)
COMPILED = jax.jit(jax.vmap(lambda P, scores: tuple(axiom(P, scores) for axiom in AXIOMS)))
NUMBER = 600
SOME, REST = (3, 5), (4, 6, 7, 8)
SIZES = [*SOME, *(pytest.param(K, marks=pytest.mark.slow) for K in REST)]


def ALL(P, scores):
    """The three axioms, on a thousand cases at a time so that each K compiles once."""
    found = COMPILED(np.resize(P, (1000, *P.shape[1:])), np.resize(scores, (1000, *scores.shape[1:])))
    return jax.tree.map(lambda x: np.asarray(x)[: len(P)], found)


def condorcet_by_hand(P, scores):
    K = len(P)
    winners = [i for i in range(K) if all(P[i, j] > 0.5 for j in range(K) if j != i)]
    return bool(winners), [scores[c] - scores[j] for c in winners for j in range(K) if j != c]


def smith_by_hand(P, scores):
    K = len(P)
    for size in range(1, K + 1):
        for inside in itertools.combinations(range(K), size):
            outside = [j for j in range(K) if j not in inside]
            if all(P[i, j] > 0.5 for i in inside for j in outside):
                return bool(outside), [scores[i] - scores[j] for i in inside for j in outside]
    raise AssertionError("the full set is dominant")


def order_by_hand(P, scores):
    K = len(P)
    transitive = all(
        P[i, k] >= 0.5 for i, j, k in itertools.product(range(K), repeat=3) if P[i, j] >= 0.5 and P[j, k] >= 0.5
    )
    pairs = [(i, j) for i in range(K) for j in range(K) if P[i, j] > 0.5] if transitive else []
    return transitive, [scores[i] - scores[j] for i, j in pairs]


@pytest.mark.parametrize("K", SIZES)
def test_agrees_with_brute_force(K, rng):
    P = mixture(rng, NUMBER, K)
    # Integer scores tie often; a third has the majority order by construction.
    scores = rng.integers(0, K, (NUMBER, K)).astype(float)
    scores[::3] = (P[::3] > 0.5).sum(axis=2)
    found = ALL(P, scores)
    for got, by_hand in zip(found, (condorcet_by_hand, smith_by_hand, order_by_hand), strict=True):
        applies, gaps = zip(*(by_hand(*case) for case in zip(P, scores, strict=True)), strict=True)
        margin = np.array([min(gap, default=np.inf) for gap in gaps])
        np.testing.assert_array_equal(got.applies, applies)
        np.testing.assert_array_equal(got.margin, margin)  # differences of small integers are exact
        np.testing.assert_array_equal(got.holds, margin > 0)
        assert (~np.asarray(got.holds)).any() and ((margin == 0).any() or K > 5) and 0 < np.sum(applies) < NUMBER


@pytest.mark.parametrize("K", SIZES)
def test_strong_transitivity_keeps_the_order_whatever_is_sampled(K, rng):
    """Theory: exactly the strongly transitive P keep their order for every sampling distribution."""
    P = strongly_transitive(rng, 1000, K)
    mu = rng.dirichlet(np.full(K, 0.3), 1000)  # skewed: some entries near 1e-6
    scores = np.einsum("mij,mj->mi", P, mu)
    holds = [np.asarray(got.holds & got.applies) for got in ALL(P, scores)]
    assert np.all(holds)


@pytest.mark.parametrize("K", SIZES)
def test_without_strong_transitivity_some_sampling_breaks_the_order(K, rng):
    """The converse: a row that dips below a lower-ranked one at k is overtaken when mostly k is sampled."""
    P = mixture(rng, NUMBER, K)
    exact = np.abs(P - 0.5).min(axis=(1, 2), where=P != 0.5, initial=1) > 1e-6
    vertices = 0.99 * np.eye(K) + 0.01 / K
    scores = np.einsum("mij,vj->mvi", P, vertices)
    found = [ALL(P, scores[:, v])[2] for v in range(K)]
    applies = np.asarray(found[0].applies)
    worst = np.min([got.margin for got in found], axis=0)
    rows = P[:, :, None, :] - P[:, None, :, :]
    dip = np.where((P > 0.5)[..., None], rows, np.inf).min(axis=(1, 2, 3))  # below 0: not strongly transitive
    assert (worst[applies & exact & (dip >= 0)] > 0).all()
    # 0.99 of the dip, against at most 0.01 of a gap of 1; the grids make real dips at least 1/8.
    clear = applies & exact & (dip < -0.05)
    assert (worst[clear] < 0).all() and clear.sum() > 10 and (applies & exact & (dip >= 0)).sum() > 50


@pytest.mark.parametrize("K", [5, *(pytest.param(K, marks=pytest.mark.slow) for K in (3, 4, 6, 7, 8))])
def test_ipo_and_dpo_rank_alike(K, rng):
    """The Bradley-Terry fit with weights mu_i mu_j sorts as P mu does, with at least four times the gaps."""
    P = mixture(rng, NUMBER, K)
    P = 0.5 + 0.96 * (P - 0.5)  # keeps the order of P mu; finite fits
    mu = 0.9 * rng.dirichlet(np.ones(K), NUMBER) + 0.1 / K
    dpo = jax.jit(jax.vmap(lambda P, mu: ipodyn.DPO().score(P, mu)))(P, mu)
    ipo = np.einsum("mij,mj->mi", P, mu)
    ipo_gap = ipo[:, :, None] - ipo[:, None, :]
    dpo_gap = np.asarray(dpo[:, :, None] - dpo[:, None, :])
    # sigma' <= 1/4, so that a gap of scores is at least four times that of expected win rates; 1e-12: Newton's rounding
    assert np.all(np.where(ipo_gap > 0, dpo_gap - 4 * ipo_gap, 0) > -1e-12)
    for by_ipo, by_dpo in zip(ALL(P, ipo), ALL(P, dpo), strict=True):
        clear = np.abs(by_ipo.margin) > 1e-12
        np.testing.assert_array_equal(by_ipo.holds[clear], by_dpo.holds[clear])
        assert clear.sum() > 0.8 * NUMBER


def test_implications(rng):
    P = mixture(rng, NUMBER, 5)
    scores = rng.uniform(size=(NUMBER, 5))
    condorcet, smith, order = ALL(P, scores)
    winner = np.asarray(condorcet.applies)
    np.testing.assert_array_equal(condorcet.margin[winner], smith.margin[winner])
    both = winner & np.asarray(order.applies)
    assert (order.margin[both] <= condorcet.margin[both]).all() and both.sum() > 50
    # Nothing depends on a common constant, on the scale, or on the names of the responses.
    name = rng.permutation(5)
    renamed = ALL(P[:, name][:, :, name], 3 * scores[:, name] + 1)
    for one, other in zip((condorcet, smith, order), renamed, strict=True):
        np.testing.assert_array_equal(one.holds, other.holds)
        np.testing.assert_allclose(other.margin, 3 * one.margin, atol=1e-14)


def test_copeland_scores_are_smith_top(rng):
    P = mixture(rng, NUMBER, 5)
    condorcet, smith, order = ALL(P, jax.vmap(ipodyn.copeland_scores)(P).astype(float))
    assert condorcet.holds.all() and smith.holds.all() and order.holds.all()


def test_ties():
    ulp = np.spacing(0.5)
    tie, win = np.full((3, 3), 0.5), complementary(np.full((3, 3), 0.5 + ulp))
    even, ranked = np.zeros(3), np.array([3.0, 2.0, 1.0])
    condorcet, smith, order = ALL(np.stack([tie, tie, win, win]), np.stack([even, ranked, even, ranked]))
    # All tied: nobody wins, the Smith set is everyone, the order is trivially kept.
    assert not condorcet.applies[:2].any() and not smith.applies[:2].any() and order.applies[:2].all()
    assert (order.margin[:2] == np.inf).all() and order.holds[:2].all()
    # The smallest win there is in float64 is a win; tied scores then violate, ranked ones do not.
    for got in (condorcet, smith, order):
        assert (
            got.applies[2:].all() and got.margin[2:].tolist() == [0.0, 1.0] and got.holds[2:].tolist() == [False, True]
        )
    # A tie with anyone: no Condorcet winner; the one who ties is in the Smith set.
    P = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.4], [0.1, 0.6, 0.5]])
    condorcet, smith, order = ALL(P[None], ranked[None])
    assert not condorcet.applies.any() and not smith.applies.any() and not order.applies.any()
    # Tied responses may stand either way: 0 = 1 over 2.
    P = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.8], [0.1, 0.2, 0.5]])
    _, smith, order = ALL(np.stack([P] * 3), np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [2.0, 2.0, 1.0]]))
    assert order.applies.all() and order.holds.all() and smith.applies.all() and smith.holds.all()


def test_scores_that_are_not_plain_numbers():
    P = complementary(np.full((3, 3), 0.75))
    minus = float("-inf")
    condorcet, _, order = ALL(np.stack([P, P]), np.array([[np.nan, 0.0, 0.0], [0.0, minus, minus]]))
    assert np.isnan(condorcet.margin[0]) and not condorcet.holds[0]
    assert condorcet.holds[1] and order.margin[1] == 0 and not order.holds[1]  # both excluded: they tie


def test_single_precision_and_atol():
    P = complementary(np.full((3, 3), 0.75)).astype(np.float32)
    scores = np.array([1e-6, 0.0, -1.0], np.float32)
    found = ipodyn.condorcet_top(P, scores)
    assert found.margin.dtype == jnp.float32 and found.holds
    assert not ipodyn.condorcet_top(P, scores, atol=1e-5).holds


def test_shapes_are_named():
    with pytest.raises(ValueError, match=r"`scores` has shape \(2,\) for `P` of shape \(3, 3\)"):
        jax.eval_shape(lambda: axioms._check(jnp.full((3, 3), 0.5), jnp.zeros(2)))
