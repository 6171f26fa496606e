"""Named problems against the answers that their docstrings state."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ipodyn
from ipodyn import problems

NUMBER = 8000
KEYS = jax.random.split(jax.random.PRNGKey(7), NUMBER)
RANDOM = [problems.random, problems.cyclic, problems.with_condorcet_winner, problems.strongly_transitive]


def draw(builder, K, dtype=None):
    """NUMBER matrices of a random builder, as NumPy."""
    return np.asarray(jax.jit(jax.vmap(lambda key: builder(key, K, dtype=dtype)))(KEYS))


WINNER, SMITH, CYCLE, STRONG, DEGREES = (
    jax.jit(jax.vmap(function))
    for function in (
        ipodyn.condorcet_winner,
        ipodyn.smith_set,
        ipodyn.has_cycle,
        ipodyn.strong_order,
        ipodyn.transitivity,
    )
)


def close_to_share(flags, share):
    """Whether the frequency of `flags` is within four standard errors of `share` (a fixed seed: no flakiness)."""
    flags = np.asarray(flags)
    return abs(flags.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(flags))


def cyclic_triple(P, i, j, k):
    """Whether i beats j beats k beats i, or the other way round."""
    forward = (P[:, i, j] > 0.5) & (P[:, j, k] > 0.5) & (P[:, k, i] > 0.5)
    return forward | ((P[:, i, j] < 0.5) & (P[:, j, k] < 0.5) & (P[:, k, i] < 0.5))


BUILDERS = {
    "three_cycle": lambda dtype: problems.three_cycle(np.array(0.3, dtype)),
    "cycle": lambda dtype: problems.cycle(5, np.array(0.5, dtype)),
    "two_responses": lambda dtype: problems.two_responses(np.array(0.9, dtype)),
    "bradley_terry": lambda dtype: problems.bradley_terry(np.array([0.0, 60.0, -1.5, 2.0], dtype)),
    "thurstone": lambda dtype: problems.thurstone(np.array([0.0, 12.0, -1.5, 2.0], dtype)),
    "overshadowed_winner": lambda dtype: problems.overshadowed_winner(4, np.array(0.1, dtype)),
} | {builder.__name__: lambda dtype, builder=builder: builder(jax.random.key(3), 5, dtype=dtype) for builder in RANDOM}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_builder_keeps_the_contract(dtype):
    eps = float(jnp.finfo(dtype).eps)
    compiled = jax.jit(lambda: {name: build(dtype) for name, build in BUILDERS.items()})()
    for name, P in compiled.items():
        assert P.dtype == dtype, name
        np.testing.assert_array_equal(ipodyn.check_preference(P, name=name, atol=4 * eps), P)
        if dtype == np.float64:  # once is enough, and compiling it operation by operation takes seconds
            # Compilation may fuse a multiplication and an addition: one rounding.
            np.testing.assert_allclose(P, BUILDERS[name](dtype), rtol=0, atol=2 * eps)


def test_every_public_builder_is_in_the_contract():
    public = {
        name
        for name, value in vars(problems).items()
        if callable(value) and getattr(value, "__module__", "") == problems.__name__ and not name.startswith("_")
    }
    assert public == set(BUILDERS)


def test_three_cycle_is_its_formula():
    expected = 0.5 + 0.2 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    np.testing.assert_allclose(problems.three_cycle(0.2), expected, rtol=0, atol=1e-16)
    np.testing.assert_array_equal(problems.cycle(3, 0.2), problems.three_cycle(0.2))


@pytest.mark.parametrize("K", [3, 5, 9])
def test_cycle_has_the_stated_spectrum_and_structure(K):
    a = 0.3
    P = np.asarray(problems.cycle(K, a))
    norm = np.linalg.norm(P - 0.5, 2)
    assert norm == pytest.approx(a / np.tan(np.pi / (2 * K)), rel=1e-13)
    # Uniform policy: S = I / K on the tangent space, so omega is the norm over K; at K = 3 its square is a^2 / 3.
    if K == 3:
        assert (norm / K) ** 2 == pytest.approx(a**2 / 3, rel=1e-13)
    np.testing.assert_allclose(P.sum(axis=1), K / 2, rtol=1e-14)  # uniform scores: the fixed point is uniform
    assert ((P > 0.5).sum(axis=1) == (K - 1) // 2).all()
    np.testing.assert_array_equal(np.roll(P, (1, 1), axis=(0, 1)), P)
    if K == 5:
        assert WINNER(P[None]).tolist() == [-1]
        assert SMITH(P[None]).all()
        assert CYCLE(P[None]).all()


def test_static_errors_name_the_size_and_the_cure():
    with pytest.raises(ValueError, match=r"`K` is 4, even: .* Use 3 or 5"):
        problems.cycle(4, 0.1)
    with pytest.raises(ValueError, match="`K` is 1: a cycle needs at least 3 responses"):
        problems.cycle(1, 0.1)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`K` is 2: a cycle needs at least 3"):
        problems.cyclic(key, 2)
    with pytest.raises(ValueError, match="`K` is 2: an overshadowed winner needs at least 3"):
        problems.overshadowed_winner(2, 0.1)
    for builder in (problems.random, problems.with_condorcet_winner, problems.strongly_transitive):
        with pytest.raises(ValueError, match=r"`K` is 1: .* at least 2"):
            builder(key, 1)
    with pytest.raises(TypeError, match="K"):
        problems.random(key, 3.0)  # pyright: ignore[reportArgumentType]


def test_two_responses_score_gap():
    P = np.asarray(problems.two_responses(0.8))
    np.testing.assert_allclose(P, [[0.5, 0.8], [0.2, 0.5]], rtol=1e-15)
    for share in (0.1, 0.5, 0.9):
        scores = P @ np.array([share, 1 - share])
        assert scores[0] - scores[1] == pytest.approx(0.3, abs=1e-15)


def test_bradley_terry_and_thurstone_are_their_models(rng):
    rewards = rng.normal(size=6) * 2
    gaps = rewards[:, None] - rewards[None, :]
    bradley_terry, thurstone = jax.jit(problems.bradley_terry), jax.jit(problems.thurstone)
    P = np.asarray(bradley_terry(rewards))
    np.testing.assert_allclose(P, 1 / (1 + np.exp(-gaps)), rtol=1e-14)
    np.testing.assert_allclose(np.log(P) - np.log(P.T), gaps, rtol=0, atol=1e-12)
    Q = np.asarray(thurstone(rewards))
    # Utilities with unit normal noise each: their difference has variance 2.
    np.testing.assert_allclose(Q, scipy.stats.norm.cdf(gaps, scale=np.sqrt(2)), rtol=1e-12)
    both = np.stack([P, Q])
    residual = DEGREES(both).bradley_terry_residual
    assert residual[0] < 1e-12
    assert residual[1] > 0.01
    found = STRONG(both)
    assert found.strict.all()
    np.testing.assert_array_equal(found.order, np.tile(np.argsort(-rewards), (2, 1)))
    # A common constant does not matter, and tiny probabilities keep their digits.
    np.testing.assert_allclose(bradley_terry(rewards + 7), P, rtol=1e-13)
    assert float(problems.bradley_terry(np.array([0.0, 60.0]))[0, 1]) == pytest.approx(np.exp(-60), rel=1e-12)


@pytest.mark.parametrize("K", [3, 4, 7])
def test_overshadowed_winner_changes_place_at_the_stated_strength(K):
    threshold = (K - 2) / (4 * (K - 1))
    for strength, top in ((0.9 * threshold, 1), (1.1 * threshold, 0)):
        P = np.asarray(problems.overshadowed_winner(K, strength))
        assert (P[0, 1:] > 0.5).all()
        assert P.mean(axis=1).argmax() == top
    scores = np.asarray(problems.overshadowed_winner(K, threshold)).mean(axis=1)
    assert scores[0] == pytest.approx(scores[1], abs=1e-15)


def test_random_pairs_are_uniform_and_cyclic_as_often_as_tournaments():
    P = draw(problems.random, 4)
    first, second = np.triu_indices(4, 1)
    for i, j in zip(first, second, strict=True):
        assert scipy.stats.kstest(P[:, i, j], "uniform").pvalue > 1e-4
    np.testing.assert_allclose(np.corrcoef(P[:, first, second].T), np.eye(6), atol=4 / np.sqrt(NUMBER))
    assert close_to_share(CYCLE(P), 1 - 24 / 64)  # 24 of 64 tournaments are orders
    assert close_to_share(CYCLE(draw(problems.random, 3)), 1 / 4)


def test_cyclic_always_has_a_cycle():
    P = draw(problems.cyclic, 3)
    assert cyclic_triple(P, 0, 1, 2).all()
    assert close_to_share(P[:, 0, 1] > 0.5, 1 / 2)  # either way round
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert scipy.stats.kstest(np.abs(P[:, *pair] - 0.5), "uniform", args=(0, 0.5)).pvalue > 1e-4
    P = draw(problems.cyclic, 4)
    assert np.asarray(CYCLE(P)).all()
    # Planted with probability 1/4; else one of its pairs may be planted, the other two are free: 3/4 x 1/4.
    for triple in itertools.combinations(range(4), 3):
        assert close_to_share(cyclic_triple(P, *triple), 7 / 16)


def test_with_condorcet_winner_always_has_one():
    P = draw(problems.with_condorcet_winner, 4)
    winner = np.asarray(WINNER(P))
    for response in range(4):
        assert close_to_share(winner == response, 1 / 4)
    np.testing.assert_array_equal(SMITH(P), winner[:, None] == np.arange(4))
    # The three others are a free tournament.
    assert close_to_share(CYCLE(P), 1 / 4)
    margins = P[np.arange(NUMBER), winner].max(axis=1) - 0.5
    assert scipy.stats.kstest((2 * margins) ** 3, "uniform").pvalue > 1e-4  # the largest of three uniforms


@pytest.mark.parametrize(("K", "dtype"), [(3, np.float64), (8, np.float32)])
def test_strongly_transitive_is_strict_with_the_stated_gap(K, dtype):
    P = draw(problems.strongly_transitive, K, dtype)
    found = STRONG(P)
    assert np.asarray(found.strict).all()
    assert (P >= 0).all()
    assert (P <= 1).all()
    order = np.asarray(found.order)
    rows = np.take_along_axis(P, order[:, :, None], axis=1)
    gaps = rows[:, :-1] - rows[:, 1:]
    assert gaps.min() >= 0.005 / (K - 1) - 4 * np.finfo(dtype).eps
    if K == 3:
        for permutation in itertools.permutations(range(3)):
            assert close_to_share((order == permutation).all(axis=1), 1 / 6)
    residual = np.asarray(DEGREES(P).bradley_terry_residual)
    assert np.median(residual) > 0.05  # log-odds: far from Bradley-Terry


def test_strengths_and_rewards_are_differentiable_and_batchable(rng):
    signs = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    np.testing.assert_array_equal(jax.jit(jax.jacobian(problems.three_cycle))(0.2), signs)
    stacked = jax.jit(jax.vmap(problems.three_cycle))(np.array([0.1, 0.4]))
    np.testing.assert_allclose(stacked, 0.5 + np.array([0.1, 0.4])[:, None, None] * signs, rtol=1e-15)
    rewards = rng.normal(size=3)
    gap = rewards[0] - rewards[1]
    logistic = jax.jit(jax.grad(lambda r: problems.bradley_terry(r)[0, 1]))(rewards)
    slope = 1 / (4 * np.cosh(gap / 2) ** 2)
    np.testing.assert_allclose(logistic, [slope, -slope, 0], rtol=1e-13)
    normal = jax.jit(jax.grad(lambda r: problems.thurstone(r)[0, 1]))(rewards)
    slope = float(scipy.stats.norm.pdf(gap, scale=np.sqrt(2)))
    np.testing.assert_allclose(normal, [slope, -slope, 0], rtol=1e-12)
    np.testing.assert_array_equal(jax.jit(jax.jacobian(problems.two_responses))(0.2), [[0, 1], [-1, 0]])
    slopes = jax.jit(jax.jacobian(lambda a: problems.overshadowed_winner(3, a)))(0.1)
    np.testing.assert_array_equal(slopes, [[0, 1, 1], [-1, 0, -1], [-1, 1, 0]])


@pytest.mark.parametrize("make", [problems.random, problems.cyclic, problems.strongly_transitive])
def test_a_size_is_a_number_not_an_answer(make):
    with pytest.raises(TypeError, match="`K` is a bool: give a static whole number"):
        make(jax.random.key(0), True)
