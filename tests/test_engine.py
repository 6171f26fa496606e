"""The blocked engine computes every point once, in order, whatever the blocks and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipodyn._engine.blocks import block_size, run_points

pytestmark = pytest.mark.optimised


def _square_and_row(scale, offset, index):
    value = index.astype(jnp.float64)
    return scale * value**2, jnp.stack([value + offset, value - offset])


@pytest.mark.parametrize("num_points", [1, 7, 64, 1000])
@pytest.mark.parametrize("size", [8, 64])
def test_points_come_in_order_once(num_points, size):
    squares, rows = run_points(_square_and_row, 3, jnp.asarray(0.5), num_points, size=size)
    expected = np.arange(num_points, dtype=np.float64)
    np.testing.assert_array_equal(squares, 3 * expected**2)
    np.testing.assert_array_equal(rows, np.stack([expected + 0.5, expected - 0.5]))


def test_devices_share_the_work():
    """All devices asked for are used, and a single one gives the same numbers."""
    assert jax.local_device_count() == 2
    both = run_points(_square_and_row, 3, jnp.asarray(0.5), 500, size=16)
    one = run_points(_square_and_row, 3, jnp.asarray(0.5), 500, size=16, devices=jax.local_devices()[:1])
    for a, b in zip(both, one, strict=True):
        np.testing.assert_array_equal(a, b)


def test_progress_reaches_the_total():
    seen = []
    run_points(
        _square_and_row, 3, jnp.asarray(0.5), 5000, size=8, progress=lambda done, total: seen.append((done, total))
    )
    done = [d for d, _ in seen]
    assert len(seen) > 2 and done == sorted(done) and seen[-1] == (5000, 5000)


def test_one_compilation_serves_changed_arguments():
    traces = []

    def kernel(static, arguments, index):
        traces.append(1)
        return arguments * index.astype(jnp.float32)

    for value in (1.0, 2.0, 3.0):
        run_points(kernel, None, jnp.asarray(value, jnp.float32), 100, size=32)
    first = len(traces)
    run_points(kernel, None, jnp.asarray(4.0, jnp.float32), 100, size=32)
    assert len(traces) == first


@pytest.mark.parametrize("num_points", [5, 1000])
def test_points_bring_their_own_values(num_points):
    """Each block sees the values of its points, on two devices, with several calls."""
    own = np.random.default_rng(num_points).normal(size=num_points)

    def kernel(static, arguments, index, own):
        return own * index.astype(own.dtype)

    found = run_points(kernel, None, (), num_points, size=8, blocks_per_call=3, points=own)
    np.testing.assert_array_equal(found, own * np.arange(num_points))


def test_points_made_as_they_are_wanted():
    """Rows made by a function of the indices, in full calls: one trace serves any number of points."""
    made, traces = [], []

    def kernel(static, arguments, index, own):
        traces.append(1)
        return jnp.sum(own, axis=-1)

    def rows(own):
        made.append(own.size)
        return np.stack([own, 10.0 * own], axis=-1)

    for num_points in (5, 100, 1000):
        found = run_points(kernel, None, (), num_points, size=8, blocks_per_call=3, full_calls=True, points=rows)
        np.testing.assert_array_equal(found, 11.0 * np.arange(num_points))
    assert len(traces) == 1 and set(made) == {2 * 3 * 8}  # never more at a time than a call on two devices takes


def test_blocks_shrink_as_matrices_grow():
    sizes = [block_size(K, 4) for K in (2, 3, 4, 8, 16, 64)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size & (size - 1) == 0 for size in sizes)
    assert block_size(4, 8) <= block_size(4, 4)
