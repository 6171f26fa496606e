"""The store continues where it stopped, never mixes runs, and recomputes what is damaged."""

import json

import jax
import numpy as np
import pytest

import ipodyn
import ipodyn._store
from ipodyn._stability_map import as_dataset, map_problem
from ipodyn._store import Store


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(ipodyn._store, "POINTS_PER_REGION", 24)
    P = jax.vmap(lambda key: ipodyn.problems.random(key, 3))(jax.random.split(jax.random.key(1), 10))
    return map_problem(P, alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0], lam=0.8, num_steps=60)


def fill(store, at_most=None):
    for region in store.pending()[:at_most]:
        store.write(region, store.problem.compute(region.first, region.stop))


def assert_complete(store, problem):
    found, direct = store.load(), as_dataset(problem, problem.compute())
    assert set(found.data_vars) == set(direct.data_vars)
    for name in direct.data_vars:
        np.testing.assert_array_equal(found[name].values, direct[name].values)
        assert found[name].attrs == direct[name].attrs
        assert found[name].dtype == direct[name].dtype
    for name in direct.coords:
        np.testing.assert_array_equal(found[name].values, direct[name].values)


def test_fills_and_loads(problem, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    assert [region.stop - region.first for region in store.regions] == [4, 4, 2]
    fill(store)
    assert store.pending() == []
    assert_complete(store, problem)
    assert store.load().attrs["num_steps"] == 60


def test_continues_where_it_stopped(problem, tmp_path):
    fill(Store.open(tmp_path / "run", problem), at_most=2)
    again = Store.open(tmp_path / "run", problem)
    assert [region.index for region in again.pending()] == [2]
    unfinished = again.load()
    assert np.isnan(unfinished.variance.values[8:]).all() and (unfinished.regime.values[8:] == -1).all()
    fill(again)
    assert_complete(again, problem)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_chunk_is_computed_again(problem, tmp_path, damage):
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    chunk = tmp_path / "run" / "map.zarr" / "entropy" / "c" / "1" / "0" / "0"
    content = chunk.read_bytes()
    if damage == "truncate":
        chunk.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        chunk.write_bytes(content[:-8] + bytes(255 - byte for byte in content[-8:]))
    else:
        chunk.unlink()
    again = Store.open(tmp_path / "run", problem)
    assert [region.index for region in again.pending()] == [1]
    fill(again)
    assert_complete(again, problem)


def test_a_half_written_mark_does_not_count(problem, tmp_path):
    store = Store.open(tmp_path / "run", problem)
    fill(store)
    mark = tmp_path / "run" / "regions" / "00000.json"
    mark.write_text(mark.read_text()[:20])
    assert [region.index for region in Store.open(tmp_path / "run", problem).pending()] == [0]


def test_two_writers_fill_one_store(problem, tmp_path):
    first, second = Store.open(tmp_path / "run", problem), Store.open(tmp_path / "run", problem)
    for store, region in zip((first, second, first), first.regions, strict=True):
        store.write(region, problem.compute(region.first, region.stop))
    assert_complete(second, problem)


def _changed(problem, what):
    grid = problem.grid
    options = {"alpha": grid.alpha, "beta": grid.beta, "lam": float(grid.lam), "num_steps": 60}
    P = np.moveaxis(np.asarray(grid.P), -1, 0).copy()
    if what == "one entry":
        P[3, 0, 1] += 1e-9
        P[3, 1, 0] -= 1e-9
    elif what == "dtype":
        P = P.astype(np.float32)
    elif what == "thresholds":
        options["thresholds"] = ipodyn.RegimeThresholds(collapse_share=0.2)
    elif what == "objective":
        options["objective"] = ipodyn.DPO()
    else:
        options[what] = {"alpha": [0.1, 0.8], "lam": 0.7, "num_steps": 61}[what]
    return map_problem(P, **options)


@pytest.mark.parametrize("what", ["one entry", "dtype", "thresholds", "objective", "alpha", "lam", "num_steps"])
def test_another_run_is_refused_and_untouched(problem, tmp_path, what):
    fill(Store.open(tmp_path / "run", problem), at_most=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds another run") as error:
        Store.open(tmp_path / "run", _changed(problem, what))
    assert "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_foreign_folders_are_refused(problem, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds no run"):
        Store.open(tmp_path / "papers", problem)
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        Store.open(tmp_path / "file", problem)


def test_manifest_is_json_of_the_parameters(problem, tmp_path):
    Store.open(tmp_path / "run", problem)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["attributes"]["lam"] == 0.8 and len(manifest["hash"]) == 64
