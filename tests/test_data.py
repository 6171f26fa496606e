"""The recipe from ratings to preferences, sets and their filters, the report, and the synthetic set."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn.data

pytestmark = pytest.mark.optimised

SHAPE = (200, 4, 3)  # one for most tests: each new shape compiles the generator anew


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def a_set(P, **fields):
    M, K = P.shape[:2]
    report = ipodyn.data.LoadReport(M, M, {}, M, M, {}, M)
    return ipodyn.data.PreferenceSet(P, np.arange(M), np.tile(np.arange(K), (M, 1)), report, "by hand", **fields)


# ratings_to_preferences


def test_each_pair_is_decided_by_one_attribute(rng):
    ratings = rng.normal(size=SHAPE)
    P = np.asarray(ipodyn.data.ratings_to_preferences(jax.random.key(1), ratings))
    candidates = sigmoid(ratings[:, :, None, :] - ratings[:, None, :, :])
    gap = np.abs(candidates - P[..., None])
    i, j = np.triu_indices(4, 1)
    assert gap[:, i, j].min(axis=-1).max() < 1e-15
    chosen = gap[:, i, j].argmin(axis=-1)
    # 1,200 uniform draws from 3 attributes: each share is 1/3 with deviation 0.0136; five of those.
    np.testing.assert_allclose(np.bincount(chosen.ravel()) / chosen.size, 1 / 3, atol=5 * 0.0136)
    # Draws of two pairs of one matrix are independent: they agree on a third, deviation 0.033 over 200
    # matrices.
    agree = [(chosen[:, a] == chosen[:, b]).mean() for a, b in itertools.combinations(range(6), 2)]
    np.testing.assert_allclose(agree, 1 / 3, atol=5 * 0.034)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_complement_is_exact(rng, dtype, spread):
    ratings = (spread * rng.normal(size=SHAPE)).astype(dtype)
    for P in (
        ipodyn.data.ratings_to_preferences(jax.random.key(0), ratings),
        ipodyn.data.attribute_average(ratings),
    ):
        assert P.dtype == dtype
        np.testing.assert_array_equal(np.asarray(P + P.swapaxes(1, 2)), 1)
        np.testing.assert_array_equal(np.asarray(jnp.diagonal(P, axis1=1, axis2=2)), 0.5)
        assert bool(jnp.all((P >= 0) & (P <= 1)))


def test_equal_differences_give_equal_entries(rng):
    """Whichever of the two responses comes first: otherwise rounding decides about strong transitivity."""
    ratings = np.repeat(rng.integers(0, 5, size=(200, 4, 1)), 3, axis=2)
    P = np.asarray(ipodyn.data.ratings_to_preferences(jax.random.key(0), ratings))
    difference = ratings[:, :, None, 0] - ratings[:, None, :, 0]
    for value in range(-4, 5):
        assert len(np.unique(P[difference == value])) == 1


def test_integer_and_single_ratings_are_taken(rng):
    ratings = rng.integers(0, 5, size=SHAPE)
    key = jax.random.key(3)
    whole = ipodyn.data.ratings_to_preferences(key, ratings)
    np.testing.assert_array_equal(whole, ipodyn.data.ratings_to_preferences(key, ratings.astype(float)))
    assert ipodyn.data.ratings_to_preferences(key, ratings[0]).shape == (4, 4)
    assert not np.array_equal(whole, ipodyn.data.ratings_to_preferences(jax.random.key(4), ratings))


def test_recipe_transforms(rng):
    ratings = jnp.asarray(rng.normal(size=(6, 4, 3)))
    keys = jax.random.split(jax.random.key(0), 6)
    one_by_one = np.stack([ipodyn.data.ratings_to_preferences(k, r) for k, r in zip(keys, ratings, strict=True)])
    together = jax.jit(jax.vmap(ipodyn.data.ratings_to_preferences))(keys, ratings)
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=2e-16)
    # At a tie the slope is sigmoid'(0) = 1/4, whichever branch of the sigmoid the tie falls in.
    slope = jax.grad(lambda r: ipodyn.data.ratings_to_preferences(keys[0], r)[0, 1])(jnp.zeros((4, 3)))
    np.testing.assert_allclose(slope.sum(axis=1), [0.25, -0.25, 0, 0])


def test_average_is_the_expectation_of_the_recipe(rng):
    ratings = jnp.asarray(rng.normal(size=(4, 3)))
    draws = ipodyn.data.ratings_to_preferences(jax.random.key(0), jnp.broadcast_to(ratings, (4000, 4, 3)))
    # An entry lies in [0, 1], so its deviation is at most 1/2; five standard errors of 4,000 draws.
    np.testing.assert_allclose(draws.mean(axis=0), ipodyn.data.attribute_average(ratings), atol=5 * 0.5 / np.sqrt(4000))


def test_scale_divides_ratings(rng):
    ratings = rng.normal(size=SHAPE)
    key = jax.random.key(0)
    np.testing.assert_array_equal(
        ipodyn.data.ratings_to_preferences(key, ratings, scale=4),
        ipodyn.data.ratings_to_preferences(key, ratings / 4),
    )
    with pytest.raises(ValueError, match="`scale` is 0; it must be positive"):
        ipodyn.data.ratings_to_preferences(key, ratings, scale=0)


# PreferenceSet

CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
STRICT = np.array([[0.5, 0.6, 0.8], [0.4, 0.5, 0.7], [0.2, 0.3, 0.5]])
TIED = np.array([[0.5, 0.5, 0.8], [0.5, 0.5, 0.8], [0.2, 0.2, 0.5]])
WEAK = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.9], [0.4, 0.1, 0.5]])  # 0 over 1 over 2, but 0.6 < 0.9


def test_filters_keep_what_they_name():
    data = a_set(np.stack([CYCLE, STRICT, TIED, WEAK]))
    assert data.cyclic().prompts.tolist() == [0]
    assert data.strongly_transitive().prompts.tolist() == [1, 2]
    assert data.strongly_transitive(strict=True).prompts.tolist() == [1]
    assert data.kind("all") is data
    assert data.kind("cyclic").prompts.tolist() == [0]
    assert data.kind("st").prompts.tolist() == [1, 2]
    assert len(data) == 4 and len(data.kind("st").cyclic()) == 0
    assert data.kind("st").report.filters == (("strongly transitive", 2),)
    assert "strongly transitive: 2 kept, 2 removed" in str(data.kind("st").report)
    with pytest.raises(ipodyn.data.DataError, match="unknown kind 'ST': choose all, cyclic or st"):
        data.kind("ST")


def test_filters_treat_blocks_alike():
    """More matrices than fit one block, and not a multiple of it."""
    M = 20_000
    P = np.tile(STRICT, (M, 1, 1))
    where = np.array([0, 8_191, 8_192, 16_384, M - 1])
    P[where] = CYCLE
    assert a_set(P).cyclic().prompts.tolist() == where.tolist()


def test_set_checks_shapes():
    with pytest.raises(ipodyn.data.DataError, match=r"must have shape \(M, K, K\) in float64"):
        a_set(CYCLE[None].astype(np.float32))
    good = a_set(np.stack([CYCLE, STRICT]))
    with pytest.raises(ipodyn.data.DataError, match="one entry for each of the 2 matrices"):
        ipodyn.data.PreferenceSet(good.P, np.arange(3), good.responses, good.report, "by hand")


def test_saved_set_is_read_back_whole(tmp_path):
    data = ipodyn.data.synthetic_helpsteer(num_prompts=200).cyclic()
    path = tmp_path / "set.npz"
    data.save(path)
    back = ipodyn.data.load_preferences(path)
    for name in ("P", "prompts", "responses"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    assert (back.report, back.source, back.synthetic) == (data.report, data.source, True)
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        data.save(path)
    with pytest.raises(ipodyn.data.DataError, match=r"saved as \.npz; name the file set\.npz"):
        data.save(tmp_path / "set.zarr")
    with pytest.raises(ipodyn.data.DataError, match="does not exist; make it first"):
        data.save(tmp_path / "absent" / "set.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        a_set(CYCLE[None]).save(tmp_path / "set.npz")
    assert list(tmp_path.iterdir()) == []


# LoadReport


def test_report_refuses_sums_that_do_not_add_up():
    with pytest.raises(ValueError, match="rows: 10 read, but 7 used and 2 dropped"):
        ipodyn.data.LoadReport(10, 7, {"for no reason": 2}, 1, 1, {}, 1)
    with pytest.raises(ValueError, match="prompts: 2 read"):
        ipodyn.data.LoadReport(1, 1, {}, 2, 1, {}, 1)


def test_report_survives_json():
    report = ipodyn.data.LoadReport(5, 4, {"left over after groups of 4": 1}, 1, 1, {}, 1, notes=("a note",))
    report = report.filtered("cyclic", 0)
    assert ipodyn.data.LoadReport.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["rows_read"] == 5
    assert report.responses_left_over == 1
    assert str(report).splitlines() == [
        "rows      5 read, 4 used, 1 dropped",
        "            1 left over after groups of 4",
        "prompts   1 read, 1 used, 0 dropped",
        "matrices  1 made",
        "            cyclic: 0 kept, 1 removed",
        "note      a note",
    ]


# The synthetic set


def test_synthetic_set_has_both_kinds_and_says_what_it_is():
    data = ipodyn.data.synthetic_helpsteer()
    assert data.synthetic and "synthetic" in data.source
    assert data.P.shape == (1500, 4, 4)
    assert 60 <= len(data.cyclic()) <= 100
    assert len(data.strongly_transitive()) >= 300
    ipodyn.check_preference(data.P)
    assert data.report.rows_read == 6000 and data.report.rows_dropped == {}


def test_synthetic_ratings_have_the_shape_of_helpsteer():
    ratings = ipodyn.data.synthetic_ratings()
    assert ratings.shape == (1500, 4, len(ipodyn.data.HELPSTEER_ATTRIBUTES))
    assert set(np.unique(ratings)) == {0, 1, 2, 3, 4}
    correlation = np.corrcoef(ratings.reshape(-1, 5).T)
    assert correlation[0, 1] > 0.6 and correlation[3, 4] > 0.4  # helpful with correct, complex with verbose
    assert correlation[:3, 3:].max() < 0.5


def test_synthetic_set_is_the_recipe_on_its_ratings():
    """Same seed, same draws: the loaders' float64 path is `ratings_to_preferences` on the grid of 2**-40."""
    data = ipodyn.data.synthetic_helpsteer(5, num_prompts=200)
    ratings = ipodyn.data.synthetic_ratings(5, 200).reshape(-1, 5)
    P = ipodyn.data.ratings_to_preferences(jax.random.key(5), ratings[data.responses])
    np.testing.assert_allclose(data.P, P, rtol=0, atol=2**-41 + 1e-15)
    assert not np.array_equal(data.P, ipodyn.data.synthetic_helpsteer(6, num_prompts=200).P)
    with pytest.raises(ValueError, match="`num_prompts` is 0"):
        ipodyn.data.synthetic_helpsteer(num_prompts=0)
