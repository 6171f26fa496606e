"""Pairs, matrices from them, chains and Smith sets: NumPy and JAX arrays alike, against loops over entries."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn._numerics.linear import transitive_closure
from ipodyn._preferences.pairs import both_ways, from_upper, pairs
from ipodyn._preferences.structure import smith_mask


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_a_matrix_of_its_upper_triangle(rng, K, make, dtype):
    upper = rng.uniform(size=(4, 2, K * (K - 1) // 2)).astype(dtype)
    P = from_upper(make(upper), K)
    assert isinstance(P, type(make(upper))) and P.dtype == dtype and P.shape == (4, 2, K, K)
    expected = np.full((4, 2, K, K), 0.5, dtype)
    for place, (i, j) in enumerate(itertools.combinations(range(K), 2)):
        expected[..., i, j], expected[..., j, i] = upper[..., place], 1 - upper[..., place]
    np.testing.assert_array_equal(P, expected)
    ahead, behind = both_ways(P)
    np.testing.assert_array_equal(ahead, upper)
    np.testing.assert_array_equal(behind, 1 - upper)
    assert list(zip(*pairs(K), strict=True)) == list(itertools.combinations(range(K), 2))


@pytest.mark.parametrize("K", [1, 2, 3, 4, 7])
def test_chains_lead_where_walking_does(rng, K):
    edges = rng.uniform(size=(K, K, 40)) < rng.uniform(0.05, 0.5, 40)
    found = transitive_closure(edges)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(transitive_closure(jnp.asarray(edges)), found)
    for case in range(40):
        for start in range(K):
            seen, todo = set(), [start]
            while todo:
                following = set(np.flatnonzero(edges[todo.pop(), :, case]).tolist()) - seen
                seen |= following
                todo.extend(following)
            assert set(np.flatnonzero(found[start, :, case])) == seen


def test_the_smith_set_of_relations_on_the_host(rng):
    P = complementary(rng.integers(0, 5, (60, 4, 4)) / 4)  # ties occur
    masks = smith_mask(np.moveaxis(P > 0.5, 0, -1))
    assert isinstance(masks, np.ndarray)
    np.testing.assert_array_equal(masks.T, [ipodyn.smith_set(matrix) for matrix in P])
