"""Structure functions against subset and permutation enumeration, a social-choice library, and theorems."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from preferences import complementary, shuffled

import ipodyn
from ipodyn._preferences.structure import as_matrix

pytestmark = pytest.mark.optimised

SIZES = [2, 3, 4, 5, 6]
GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "social_choice.json").read_text())


@jax.jit
@jax.vmap
def ALL(P):
    degrees = ipodyn.transitivity(P)
    return {
        "winner": ipodyn.condorcet_winner(P),
        "weak": ipodyn.weak_condorcet_winners(P),
        "smith": ipodyn.smith_set(P),
        "cycle": ipodyn.has_cycle(P),
        "strong": ipodyn.strong_order(P),
        "degrees": degrees,
        "holds": (degrees.weak, degrees.moderate, degrees.strong),
    }


NUMBER = 1000


def answers(P):
    """`ALL` of the first matrices of `P`, repeated up to NUMBER so that each K compiles once."""
    return jax.tree.map(lambda x: np.asarray(x)[: len(P)], ALL(np.resize(P, (NUMBER, *P.shape[1:]))))


def instances(rng, K):
    """A thousand matrices: coarse grids (many ties), continuous, and monotone ones with ties, intact or spoilt."""
    grid = complementary(rng.integers(0, 5, (400, K, K)) / 4)
    nearly_tied = complementary(0.5 + rng.choice([0, 0, 0, 0.25, -0.25], (200, K, K)))
    continuous = complementary(rng.uniform(size=(100, K, K)))
    values = np.sort(-np.sort(-rng.uniform(size=(300, K, K)), axis=1), axis=2)
    monotone = 0.5 + np.round(4 * (values - values.swapaxes(1, 2))) / 8  # rounding keeps order and skewness
    spoilt = monotone[:100].copy()
    spoilt[:, 0, K - 1], spoilt[:, K - 1, 0] = spoilt[:, K - 1, 0], spoilt[:, 0, K - 1].copy()
    monotone[:100] = spoilt
    return np.concatenate([grid, nearly_tied, continuous, shuffled(rng, monotone)])


def smith_by_subsets(P):
    """The smallest set that beats all outsiders, by trying the subsets in order of size."""
    K = P.shape[1]
    found = np.zeros(P.shape[:2], dtype=bool)
    missing = np.ones(len(P), dtype=bool)
    for size in range(1, K + 1):
        for members in itertools.combinations(range(K), size):
            outside = [j for j in range(K) if j not in members]
            dominant = (P[:, members][:, :, outside] > 0.5).all(axis=(1, 2)) & missing
            found[np.ix_(dominant, members)] = True
            missing &= ~dominant
    return found


def cycle_by_enumeration(P):
    """Whether any closed sequence of distinct responses has each beating the next."""
    K = P.shape[1]
    found = np.zeros(len(P), dtype=bool)
    for length in range(2, K + 1):
        for path in itertools.permutations(range(K), length):
            if path[0] == min(path):
                found |= (P[:, path, np.roll(path, -1)] > 0.5).all(axis=1)
    return found


def is_strong_order(P, order, strictly=False):
    """Whether each row is at least (more than, if strictly) every row after it in `order` (M, K), entry by entry."""
    rows = np.take_along_axis(P, np.broadcast_to(order, P.shape[:2])[:, :, None], axis=1)
    first, second = np.triu_indices(P.shape[1], 1)
    compare = np.greater if strictly else np.greater_equal
    return np.all(compare(rows[:, first], rows[:, second]), axis=(1, 2))


def least_excess(P, bound):
    """The least P[i, k] - bound(P[i, j], P[j, k]) over chains of distinct responses, by loops over them."""
    least = np.full(len(P), np.inf)
    for i, j, k in itertools.permutations(range(P.shape[1]), 3):
        chain = (P[:, i, j] >= 0.5) & (P[:, j, k] >= 0.5)
        excess = P[:, i, k] - bound(P[:, i, j], P[:, j, k])
        least = np.where(chain, np.minimum(least, excess), least)
    return least


@pytest.mark.parametrize("K", SIZES)
def test_agrees_with_brute_force(K, rng):
    P = instances(rng, K)
    found = answers(P)

    beats_others = (P > 0.5).sum(axis=2) == K - 1
    expected = np.where(beats_others.any(axis=1), beats_others.argmax(axis=1), -1)
    np.testing.assert_array_equal(found["winner"], expected)
    np.testing.assert_array_equal(found["weak"], (P >= 0.5).all(axis=2))
    np.testing.assert_array_equal(found["smith"], smith_by_subsets(P))
    cycle = cycle_by_enumeration(P)
    np.testing.assert_array_equal(found["cycle"], cycle)
    if K > 2:
        assert 0 < cycle.sum() < len(P)
        assert 0 < (expected >= 0).sum() < len(P)


@pytest.mark.parametrize("K", SIZES[:-1])
def test_strong_order_agrees_with_all_permutations(K, rng):
    P = instances(rng, K)
    strong = answers(P)["strong"]
    orders = [np.array(order) for order in itertools.permutations(range(K))]
    exists = np.any([is_strong_order(P, order) for order in orders], axis=0)
    strictly = np.any([is_strong_order(P, order, strictly=True) for order in orders], axis=0)
    np.testing.assert_array_equal(strong.holds, exists)
    np.testing.assert_array_equal(strong.strict, strictly)
    assert is_strong_order(P, np.asarray(strong.order))[exists].all()
    np.testing.assert_array_equal(np.sort(strong.order, axis=1), np.tile(np.arange(K), (len(P), 1)))
    # With or without a strong order the row sums fall along it; grids make them exact, else one rounding or two.
    sums = np.take_along_axis(P.sum(axis=2), strong.order, axis=1)
    assert (np.diff(sums, axis=1) < 1e-14).all()
    assert strictly.any()
    assert (exists & ~strictly).any()
    assert K == 2 or not exists.all()


@pytest.mark.parametrize("K", SIZES)
def test_transitivity_agrees_with_loops_over_chains(K, rng):
    P = instances(rng, K)
    degrees = answers(P)["degrees"]
    # The values are compared as computed, one subtraction each.
    np.testing.assert_allclose(degrees.weak_margin, least_excess(P, lambda p, q: 0.5), rtol=0, atol=1e-15)
    np.testing.assert_array_equal(degrees.moderate_margin, least_excess(P, np.minimum))
    np.testing.assert_array_equal(degrees.strong_margin, least_excess(P, np.maximum))
    np.testing.assert_array_equal(degrees.row_order, answers(P)["strong"].holds)


@pytest.mark.parametrize("K", SIZES[1:])
def test_degrees_imply_one_another(K, rng):
    P = instances(rng, K)
    found = answers(P)
    weak, moderate, strong = found["holds"]
    row_order, cycle = found["degrees"].row_order, found["cycle"]
    assert not (strong & ~moderate).any()
    assert not (moderate & ~weak).any()
    assert not (strong & ~row_order).any()
    assert not ((weak | row_order) & cycle).any()
    # Without ties the chain condition and the order of the rows are the same property.
    tied = (P == 0.5).sum(axis=(1, 2)) > K
    np.testing.assert_array_equal(strong[~tied], row_order[~tied])
    assert strong[~tied].any()
    assert (row_order & ~strong).any()  # the ties that the two read differently do occur


def test_residuals_recognise_their_models(rng):
    rewards = rng.normal(size=(1000, 5))
    gaps = rewards[:, :, None] - rewards[:, None, :]
    logistic = answers(1 / (1 + np.exp(-gaps)))["degrees"]
    linear = answers(0.5 + 0.05 * gaps)["degrees"]
    # Log-odds of size 10 at most, entries above 1e-5: rounding in P is magnified 1e5-fold at worst.
    assert np.max(logistic.bradley_terry_residual) < 1e-10
    assert np.min(logistic.linear_residual) > 1e-6
    assert np.max(linear.linear_residual) < 1e-14
    assert np.min(logistic.strong_margin) >= 0
    # One pair of a three-cycle moved by d off a linear P: the circulation d / 3 is what no potential removes.
    P = np.full((3, 3), 0.5)
    P[0, 1], P[1, 0] = 0.8, 0.2
    certain = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
    degrees = answers(np.stack([P, certain]))["degrees"]
    assert degrees.linear_residual[0] == pytest.approx(0.1, abs=1e-15)
    assert degrees.bradley_terry_residual[1] == np.inf


@pytest.mark.parametrize("votes", [64, 23], ids=["exact fractions", "rounded fractions"])
@pytest.mark.parametrize("K", SIZES[1:])
def test_agrees_with_social_choice_library(K, votes):
    cases = [case for case in GOLDEN["cases"] if case["K"] == K]
    assert len(cases) == 100
    margin = np.zeros((len(cases), K, K))
    above = np.triu_indices(K, 1)
    margin[:, above[0], above[1]] = [case["pairs"] for case in cases]
    margin -= margin.swapaxes(1, 2)
    found = answers(0.5 + margin / (2 * votes))

    def mask(name):
        return np.array([[i in case[name] for i in range(K)] for case in cases])

    np.testing.assert_array_equal(found["winner"], [case["condorcet_winner"] for case in cases])
    np.testing.assert_array_equal(found["weak"], mask("weak_condorcet_winners"))
    np.testing.assert_array_equal(found["smith"], mask("smith_set"))
    np.testing.assert_array_equal(found["cycle"], [case["has_cycle"] for case in cases])


def test_float32_gives_the_same_answers(rng):
    P = instances(rng, 4)
    exact = (np.round(P * 8) == P * 8).all(axis=(1, 2))  # eighths are the same number in both
    assert exact.sum() > 800
    double, single = answers(P), answers(P.astype(np.float32))
    assert single["degrees"].strong_margin.dtype == jnp.float32
    for a, b in zip(
        jax.tree.leaves({k: double[k] for k in ("winner", "weak", "smith", "cycle", "strong")}),
        jax.tree.leaves({k: single[k] for k in ("winner", "weak", "smith", "cycle", "strong")}),
        strict=True,
    ):
        np.testing.assert_array_equal(a[exact], b[exact])


def test_eager_jit_and_vmap_agree(rng):
    P = instances(rng, 4)
    batched = answers(P)
    for m in (3, 700):
        alone = {
            "winner": ipodyn.condorcet_winner(P[m]),
            "weak": ipodyn.weak_condorcet_winners(P[m]),
            "smith": ipodyn.smith_set(P[m]),
            "cycle": ipodyn.has_cycle(P[m]),
            "strong": ipodyn.strong_order(P[m]),
        }
        for name, value in alone.items():
            jax.tree.map(lambda one, many, m=m: np.testing.assert_array_equal(one, many[m]), value, batched[name])
        # Fused sums may round differently: the residuals are a few operations on numbers of size 1.
        jax.tree.map(
            lambda one, many, m=m: np.testing.assert_allclose(one, many[m], rtol=0, atol=1e-14),
            ipodyn.transitivity(P[m]),
            batched["degrees"],
        )


def test_rounding_of_the_two_entries_makes_no_two_cycle():
    below = np.nextafter(0.5, 0)
    P = np.array([[0.5, 0.5, 0.6], [below, 0.5, 0.5], [0.4, 0.5 + 1e-9, 0.5]])
    both = np.full((3, 3), 0.5)
    both[0, 1] = both[1, 0] = 0.5 + 1e-9
    found = answers(np.stack([P, both]))
    # 0 beats 1 by the last digit of the one entry that has it; 2 beats 1 although P[1, 2] is 1/2.
    assert found["winner"].tolist() == [0, -1]
    assert found["cycle"].tolist() == [False, False]
    assert found["smith"].tolist() == [[True, False, False], [True, True, True]]


def test_strong_order_sees_differences_that_row_sums_round_away():
    P = np.full((3, 3), 0.5)
    P[2, 1], P[1, 2] = 0.5 + 2.0**-53, 0.5 - 2.0**-53
    assert len(set(P.sum(axis=1))) == 1
    found = answers(P[None])["strong"]
    assert found.holds[0]
    assert found.order[0].tolist() == [2, 0, 1]


def test_equal_rows_stand_in_index_order_and_are_not_strict():
    found = answers(np.full((1, 4, 4), 0.5))["strong"]
    assert found.order[0].tolist() == [0, 1, 2, 3]
    assert found.holds[0]
    assert not found.strict[0]


@pytest.mark.parametrize("shape", [(2, 3), (4, 3, 3), (3,), (0, 0)])
def test_other_shapes_name_the_shape_and_the_cure(shape):
    with pytest.raises(ValueError, match=r"has shape .*jax\.vmap"):
        as_matrix(np.zeros(shape))


@settings(deadline=None, derandomize=True, max_examples=40)
@example(pairs=[2] * 10, order=[4, 3, 2, 1, 0])  # all ties
@example(pairs=[4] * 10, order=[1, 2, 3, 4, 0])  # a ladder of certainties
@given(
    pairs=st.lists(st.integers(0, 4), min_size=10, max_size=10),
    order=st.permutations(list(range(5))),
)
def test_renaming_the_responses_renames_the_answers(pairs, order):
    upper = np.zeros((1, 5, 5))
    upper[0][np.triu_indices(5, 1)] = np.array(pairs) / 4
    P = complementary(upper)[0]
    order = np.array(order)
    renamed = P[np.ix_(order, order)]  # response a of `renamed` is order[a] of P
    found = answers(np.stack([P, renamed]))
    for name in ("weak", "smith"):
        np.testing.assert_array_equal(found[name][1], np.asarray(found[name][0])[order])
    winner, renamed_winner = found["winner"].tolist()
    assert winner == (-1 if renamed_winner == -1 else order[renamed_winner])
    assert found["cycle"][0] == found["cycle"][1]
    assert found["strong"].holds[0] == found["strong"].holds[1]
    np.testing.assert_array_equal(found["degrees"].strong_margin[0], found["degrees"].strong_margin[1])
