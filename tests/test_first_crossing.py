"""The search for a first crossing, on functions whose crossings are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipodyn._equilibria.first_crossing import BRACKET_STEPS, HUMP_STEPS, NUM_POINTS, first_crossing

EPS = float(np.finfo(np.float64).eps)


def search(height, parameters):
    """`height(t, *columns)` for every row of `parameters`; the carry counts the evaluations."""

    @jax.jit
    def run(columns):
        def function(t, count):
            return height(t, *columns), count + 1, jnp.ones(t.shape, bool)

        return first_crossing(function, jnp.zeros(columns.shape[1], jnp.int32), jnp.zeros(columns.shape[1]))

    return run(jnp.asarray(parameters.T))


def test_roots_of_smooth_functions(rng):
    """tanh(s (t - r)) + c (t - r)^3: one crossing, at r, however steep."""
    roots, slopes, bends = rng.uniform(0.01, 0.99, 200), np.exp(rng.uniform(-2, 5, 200)), rng.uniform(0, 5, 200)
    found = search(
        lambda t, r, s, c: jnp.tanh(s * (t - r)) + c * (t - r) ** 3, np.stack([roots, slopes, bends], axis=1)
    )
    assert bool(jnp.all(found.crosses & found.exists & ~found.starts_above))
    # |height| <= 4 eps, of a slope of at least exp(-2), or neighbouring numbers.
    np.testing.assert_allclose(found.t, roots, atol=40 * EPS)
    assert bool(jnp.all(found.below <= found.t)) and int(found.carry.max()) <= NUM_POINTS + 20


def test_it_is_the_first_of_many_against_a_dense_grid(rng):
    """Sums of cosines: on a grid 400 times as fine as the scan, the first value that is not below 0."""
    waves = rng.normal(size=(300, 4)) / np.arange(1, 5)
    level = rng.uniform(-1.5, 0.5, (300, 1))

    def height(t, a, b, c, d, e, xp=jnp):
        return e + a * xp.cos(4 * t) + b * xp.cos(9 * t + 1) + c * xp.cos(14 * t + 2) + d * xp.cos(19 * t + 3)

    parameters = np.concatenate([waves, level], axis=1)
    found = search(height, parameters)
    grid = np.linspace(0, 1, 400 * (NUM_POINTS - 1) + 1)
    above = height(grid[:, None], *parameters.T, xp=np) >= 0
    first, never = above.argmax(axis=0), ~above.any(axis=0)
    np.testing.assert_array_equal(found.starts_above, above[0])
    np.testing.assert_array_equal(found.crosses, ~never & ~above[0])
    crosses = np.asarray(found.crosses)
    assert crosses.sum() > 50 and never.sum() > 50 and above[0].sum() > 20
    t = np.asarray(found.t)
    assert np.all(t[crosses] <= grid[first[crosses]] + 4 * EPS) and np.all(t[crosses] >= grid[first[crosses] - 1])
    np.testing.assert_array_equal(np.asarray(found.below)[never], 1)
    np.testing.assert_array_equal(np.asarray(found.below)[above[0]], 0)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_narrow_maxima_between_two_points(rng, scale):
    """d - s (t - m)^2 is above 0 within sqrt(d / s) of m, down to a fiftieth of the scan's steps."""
    middle = rng.uniform(0.1, 0.9, 100)
    depth = scale * 10 ** rng.uniform(-5, -4, 100)
    curve = np.full(100, 100.0 * scale)
    found = search(lambda t, m, d, s: d - s * (t - m) ** 2, np.stack([middle, depth, curve], axis=1))
    assert bool(jnp.all(found.crosses))
    half = np.sqrt(depth / curve)
    assert half.max() < 0.05 / (NUM_POINTS - 1)
    # Where the height is a few eps, t is that over its slope 2 s h off, and over that the rounding of 100 t^2.
    np.testing.assert_allclose(found.t, middle - half, atol=1e-10)


def test_a_maximum_that_stays_below_is_left_again():
    """A maximum just below 0, then a crossing: the search goes on, and evaluates the maximum but once."""
    found = search(lambda t, m: jnp.maximum(-1e-3 - 50 * (t - m) ** 2, t - 0.9), np.array([[0.31], [0.5]]))
    np.testing.assert_allclose(found.t, 0.9, atol=4 * EPS)
    assert int(found.carry.max()) <= NUM_POINTS + HUMP_STEPS + 20


@pytest.mark.parametrize("top", [3.0, np.inf])
def test_jumps_are_closed_in_on(rng, top):
    """Where the height leaps over 0 the bracket closes: `below` is the last number before the jump."""
    jumps = rng.uniform(0.01, 0.99, 50)
    found = search(lambda t, r: jnp.where(t < r, -1e-6, top), jumps[:, None])
    assert bool(jnp.all(found.crosses))
    assert np.all(np.asarray(found.below) < jumps)
    # ILLINOIS_STEPS of which a third halve a step of the scan, and all after that.
    assert np.all(jumps - np.asarray(found.below) <= 2.0**-40 / (NUM_POINTS - 1))
    assert int(found.carry.max()) <= NUM_POINTS + BRACKET_STEPS + 2


def test_a_case_without_a_height_is_given_up_and_keeps_nobody_waiting():
    def function(t, count):
        return t - jnp.array([0.4, 0.6, 0.7]), count + 1, (t < 0.5) | jnp.array([True, False, True])

    found = jax.jit(lambda: first_crossing(function, jnp.zeros(3, jnp.int32), jnp.zeros(3)))()
    assert found.exists.tolist() == [True, False, True]
    np.testing.assert_allclose(found.t[np.array([0, 2])], [0.4, 0.7], atol=4 * EPS)
    assert float(found.t[1]) == pytest.approx(0.5, abs=1 / NUM_POINTS)


def test_a_batch_gives_what_its_cases_give_alone(rng):
    """No result depends on its neighbours."""

    @jax.jit
    def run(r, s):
        def function(t, carry):
            return jnp.expm1(s * (t - r)) + 0.1 * jnp.sin(9 * t), carry, jnp.ones(t.shape, bool)

        return first_crossing(function, None, jnp.zeros_like(r))

    r, s = rng.uniform(0.1, 0.9, 8), np.exp(rng.uniform(-1, 3, 8))
    whole = run(r, s)
    for i in range(8):
        alone = run(r[i : i + 1], s[i : i + 1])
        assert float(alone.t[0]) == float(whole.t[i]) and float(alone.below[0]) == float(whole.below[i])


def test_float32(rng):
    roots = rng.uniform(0.05, 0.95, 20).astype(np.float32)

    def function(t, carry):
        return t - jnp.asarray(roots), carry, jnp.ones(t.shape, bool)

    found = jax.jit(lambda: first_crossing(function, None, jnp.zeros(20, jnp.float32)))()
    assert found.t.dtype == jnp.float32
    np.testing.assert_allclose(found.t, roots, atol=4 * float(np.finfo(np.float32).eps))
