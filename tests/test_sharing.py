"""Tasks that know nothing of one another fill one store."""

import json
import os
import threading

import jax
import numpy as np
import pytest

import ipodyn
import ipodyn._maps.store
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem
from ipodyn._maps.store import Store

pytest.importorskip("typer")
pytest.importorskip("zarr")

from processes import assert_identical

from ipodyn import plot
from ipodyn._cli.app import run

JOB = ["map", "--problem", "random", "--limit", "10", "--alpha", "0:0.9:2", "--beta", "1:9:3", "--rounds", "60"]


@pytest.fixture
def sketch(monkeypatch):
    """A small picture in place of the map's."""
    monkeypatch.setattr(plot, "stability_map", lambda dataset: plot.simplex(np.full((1, 3), 1 / 3)))


def test_four_tasks_make_the_store_of_one_run(sketch, tmp_path, capsys, monkeypatch):
    assert run([*JOB, "--out", str(tmp_path / "one")]) == 0
    computed = []
    compute = MapProblem.compute

    def recorded(self, first, stop, **options):
        computed.extend(range(first, stop))
        return compute(self, first, stop, **options)

    monkeypatch.setattr(MapProblem, "compute", recorded)
    capsys.readouterr()
    for task, left in ((3, 4), (1, 2), (4, 1)):
        assert run([*JOB, "--out", str(tmp_path / "tasks"), "--task", f"{task}/4"]) == 0
        assert f"{left} of 5 regions are left to other tasks" in capsys.readouterr().out
        assert not (tmp_path / "tasks" / "map.png").exists()
    assert run([*JOB, "--out", str(tmp_path / "tasks"), "--task", "2/4"]) == 0
    assert "task 2 of 4: 1 of 5 regions" in capsys.readouterr().out
    assert sorted(computed) == list(range(10))  # every matrix once
    assert (tmp_path / "tasks" / "map.png").exists()
    assert_identical(tmp_path / "tasks", tmp_path / "one")
    # A run without --task finds nothing to do.
    assert run([*JOB, "--out", str(tmp_path / "tasks")]) == 0
    assert "all regions" in capsys.readouterr().out and len(computed) == 10


def test_a_run_completes_what_tasks_began(sketch, tmp_path, capsys):
    assert run([*JOB, "--out", str(tmp_path / "map"), "--task", "2/3"]) == 0
    assert run([*JOB, "--out", str(tmp_path / "map")]) == 0
    assert "1 of 4 regions" in capsys.readouterr().out
    assert (tmp_path / "map" / "map.png").exists()


def test_more_tasks_than_regions(sketch, tmp_path, capsys):
    assert run([*JOB, "--out", str(tmp_path / "map"), "--task", "30/30"]) == 0
    assert "task 30 of 30: 0 of 10 regions" in capsys.readouterr().out


WRONG = {
    "no total": (["--task", "3"], "--task is '3': write I/N"),
    "from zero": (["--task", "0/4"], "I from 1 to N"),
    "beyond the last": (["--task", "5/4"], "I from 1 to N"),
    "as text": (["--task", "a/b"], "write I/N"),
    "tasks of one job": (["--task", "1/2", "--distributed"], "give one of them"),
    "no address": (["--num-processes", "2", "--process-id", "0"], "--num-processes needs --coordinator"),
    "no number": (["--coordinator", "localhost:1234", "--process-id", "0"], "--coordinator needs --num-processes"),
    "no port": (["--coordinator", "localhost", "--num-processes", "2", "--process-id", "0"], "write HOST:PORT"),
    "process beyond": (["--coordinator", "h:1", "--num-processes", "2", "--process-id", "2"], "they run from 0 to 1"),
    "no process": (["--coordinator", "h:1", "--num-processes", "0", "--process-id", "0"], "start at least 1"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options(tmp_path, capsys, arguments, says):
    assert run(["map", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert list(tmp_path.iterdir()) == []


def problems(count):
    P = jax.vmap(lambda key: ipodyn.problems.random(key, 3))(jax.random.split(jax.random.key(1), 10))
    grids = [Grid.of(P, alpha=[0.1, 0.9], beta=[0.5, 2.0], lam=0.1 * k) for k in range(count)]
    return [MapProblem.of(grid, Request(num_steps=10)) for grid in grids]


def open_at_once(folder, jobs):
    """Every job opens the same folder at the same moment: the stores, or what was raised."""
    found: list = [None] * len(jobs)
    together = threading.Barrier(len(jobs))

    def work(k):
        together.wait()
        try:
            found[k] = Store.open(folder, jobs[k])
        except Exception as error:
            found[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_opening_at_the_same_moment(tmp_path):
    """Of one run all agree; of several exactly one gets the folder, and the others are told."""
    several = problems(6)
    for attempt in range(4):
        folder = tmp_path / f"same{attempt}"
        same = open_at_once(folder, [several[0]] * 6)
        assert all(isinstance(store, Store) for store in same), same
        assert {store.run for store in same} == {json.loads((folder / "run.json").read_text())["run"]}
        assert {path.name for path in folder.iterdir()} == {"run.json", "map.zarr"}
        found = open_at_once(tmp_path / f"other{attempt}", several)
        assert sum(isinstance(store, Store) for store in found) == 1
        assert all("holds another run" in str(error) for error in found if not isinstance(error, Store)), found


def test_without_hard_links(tmp_path, monkeypatch):
    link = os.link

    def refused(source, target):
        if target.name == "run.json":  # zarr has its own ways
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", refused)
    first, second = problems(2)
    assert Store.open(tmp_path / "map", first).run == Store.open(tmp_path / "map", first).run
    with pytest.raises(ValueError, match="another run"):
        Store.open(tmp_path / "map", second)


def test_the_manifest_decides_the_regions(tmp_path, monkeypatch):
    (problem,) = problems(1)
    first = Store.open(tmp_path / "map", problem, parts=4)
    assert [region.stop - region.first for region in first.regions] == [2] * 5
    again = Store.open(tmp_path / "map", problem, parts=10)
    assert again.regions == first.regions
    shares = [again.regions_of(part, 3) for part in range(3)]
    assert sorted((region for share in shares for region in share), key=lambda region: region.index) == again.regions
    assert len(again.missing()) == 5 and again.missing(shares[1]) == shares[1]


@pytest.mark.parametrize("M, cells", [(1, 20), (1500, 20), (20_000, 20), (40, 700)])
@pytest.mark.parametrize("parts", [1, 64])
def test_size_of_regions(M, cells, parts):
    """No larger than allowed, and enough of them for all processes and, in large jobs, for some dozens."""
    axis = np.linspace(0.1, 0.9, cells)
    problem = MapProblem.of(Grid.of(np.full((M, 2, 2), 0.5), alpha=axis, beta=axis))
    size, pieces = ipodyn._maps.store.division(problem.num_matrices, problem.grid.points_per_matrix, parts)
    regions = -(-M // size)
    assert pieces == 1  # to a region
    assert regions >= min(M, parts)
    assert size == 1 or size * cells**2 <= ipodyn._maps.store.POINTS_PER_PIECE
    if M == 20_000:
        assert regions >= 64
