"""Statistics gathered block by block against NumPy on the whole map, whatever the cut."""

import itertools

import numpy as np
import pytest

import ipodyn
import ipodyn._maps.statistics
from ipodyn._maps.evidence.registry import described
from ipodyn._maps.statistics import MapStatistics

xarray = pytest.importorskip("xarray")

FLAGS = {0: "converges", 1: "oscillates", 2: "collapses", 3: "unresolved"}


@pytest.fixture
def fields(rng, monkeypatch):
    """23 matrices on a grid of 3 x 2 cells, with holes; blocks of 5 matrices."""
    monkeypatch.setattr(ipodyn._maps.statistics, "_POINTS_PER_BLOCK", 5 * 6)
    shape = (23, 3, 2)
    found = {name: rng.normal(1, 0.3, shape) for name in ("variance", "entropy", "radius", "contraction_bound")}
    found["radius"][rng.random(shape) < 0.3] = np.nan
    found["radius"][:, 2, 1] = np.nan  # a cell without any number
    found["entropy"] += 1e6  # where a sum of squares would lose all digits of the spread
    found["regime"] = rng.integers(0, 4, shape).astype(np.int8)
    return found


def gathered(fields, cuts):
    count = len(fields["regime"])
    stats = MapStatistics([described(name, {}) for name in fields], np.arange(3), np.arange(2), count, attrs={})
    edges = [0, *cuts, count]
    pieces = ({n: x[a:b] for n, x in fields.items()} for a, b in itertools.pairwise(edges))
    sizes = []
    for block in stats.blocks(pieces):
        sizes.append(len(block["regime"]))
        stats.add(block)
    assert sizes == [5, 5, 5, 5, 3]
    return stats


@pytest.mark.filterwarnings("ignore:.*empty slice|Degrees of freedom|All-NaN|Mean of empty")
def test_against_numpy_on_the_whole(fields):
    stats = gathered(fields, [3, 4, 17])
    for name in ("variance", "entropy", "radius"):
        mean, std = stats.moments(name)
        np.testing.assert_allclose(mean, np.nanmean(fields[name], 0), rtol=1e-13)
        # deviations of 0.3 on values of 1e6: their rounding, 1e-10, is what differs
        np.testing.assert_allclose(std, np.nanstd(fields[name], 0), rtol=1e-8)
    for name in ("radius", "contraction_bound"):
        least, largest = stats.extremes(name)
        np.testing.assert_array_equal(least, np.nanmin(fields[name], 0))
        np.testing.assert_array_equal(largest, np.nanmax(fields[name], 0))
        np.testing.assert_array_equal(stats.fraction_below_one(name), (fields[name] < 1).mean(0))
        np.testing.assert_allclose(stats.median(name), np.nanmedian(fields[name], 0), rtol=1e-15)
    for code, name in FLAGS.items():
        np.testing.assert_array_equal(stats.counts("regime")[name], (fields["regime"] == code).sum(0))


def test_the_cut_changes_no_bit(fields):
    """Else the tables of a run that was interrupted could differ from those of one that was not."""
    one = gathered(fields, [])
    for cuts in ([1, 2, 3], [5, 10], [11], [22]):
        other = gathered(fields, cuts)
        for name in ("variance", "entropy", "radius"):
            for first, second in zip(one.moments(name), other.moments(name), strict=True):
                np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(one.sample("radius"), other.sample("radius"))


def test_medians_of_a_sample(fields, monkeypatch):
    """Of large maps only some matrices are kept, each at most once, the same ones whatever the cut."""
    monkeypatch.setattr(ipodyn._maps.statistics, "_SAMPLED_POINTS", 1)
    monkeypatch.setattr(ipodyn._maps.statistics, "_LEAST_SAMPLE", 7)
    one, other = gathered(fields, [2, 9]), gathered(fields, [])
    assert one.sample_size == 7
    np.testing.assert_array_equal(one.sample("contraction_bound"), other.sample("contraction_bound"))
    rows = [np.flatnonzero((fields["contraction_bound"] == row).all((1, 2))) for row in one.sample("contraction_bound")]
    assert len({int(place) for row in rows for place in row}) == 7 and all(len(row) == 1 for row in rows)


def test_of_a_dataset():
    found = ipodyn.stability_map(
        ipodyn.problems.three_cycle(0.4), alpha=[0.2, 0.9], beta=[1.0, 6.0], num_steps=100, policy0=[0.5, 0.3, 0.2]
    )
    stats = MapStatistics.of(found.transpose("beta", "matrix", "alpha"))
    np.testing.assert_array_equal(stats.moments("entropy")[0], found.entropy.values[0])
    np.testing.assert_array_equal(stats.fractions()["oscillates"], found.regime.values[0] == 1)
