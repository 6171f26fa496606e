"""A kind of evidence is one file: one made here goes through maps, stores, tables and pictures as they are."""

import csv
import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
import ipodyn._maps.store
from ipodyn import plot
from ipodyn._maps.evidence import registry
from ipodyn._maps.evidence.evidence import Boundary, Code, Evidence, Panel, Request, Variable
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem, as_dataset
from ipodyn._maps.statistics import MapStatistics
from ipodyn._maps.store import Store

xarray = pytest.importorskip("xarray")
pytest.importorskip("zarr")
pytest.importorskip("matplotlib")

ALPHA, BETA = [0.1, 0.5, 0.9], [0.5, 2.0, 6.0]


@dataclasses.dataclass(frozen=True)
class FirstRound(Evidence):
    """How far the first round goes, as a multiple of `unit`, and whether an unstable loop goes farther than that."""

    unit: float = 0.02

    variables = (
        Variable(
            "leap",
            "largest change of a probability in the first round",
            averaged=True,
            largest=True,
            certifies="short",
            panel=Panel("first leap", "units"),
            boundary=Boundary("leap = 1, {median}", ("the first matrix to leap far",)),
        ),
        Variable(
            "haste",
            "whether the loop hurries",
            codes=(Code("calm"), Code("hasty", "the loop is unstable and hurries", "hurry")),
        ),
    )
    uses = ("radius",)

    @classmethod
    def asked(cls, grid, request):
        return cls()

    def attributes(self, grid):
        return {"leap_unit": self.unit}

    def cells(self, tile, index, given=None):
        loop, policy0 = tile.loops(index)
        one_round = loop.round()
        after = one_round.policy(one_round(one_round.start(policy0)))
        return {"leap": jnp.abs(after - policy0).max(axis=0) / self.unit}

    def compute(self, patch, found):
        leap = super().compute(patch, found)["leap"]
        return {"leap": leap, "haste": ((leap > 1) & (found["radius"] >= 1)).astype(np.int8)}


@pytest.fixture
def P(rng, monkeypatch):
    monkeypatch.setattr(registry, "KINDS", (*registry.KINDS, FirstRound))
    return random_P(rng, 6, 3, edge=0.02)


def leaps(P, start):
    """By the round as the paper writes it, (matrices, alphas, betas)."""
    found = np.empty((len(P), len(ALPHA), len(BETA)))
    for m, i, j in np.ndindex(*found.shape):
        logits = ALPHA[i] * np.log(start) + BETA[j] * P[m] @ start
        policy = np.exp(logits - logits.max())
        found[m, i, j] = np.abs(policy / policy.sum() - start).max() / FirstRound.unit
    return found


def test_a_map_and_its_store_hold_it(P, tmp_path, monkeypatch):
    start = np.array([0.5, 0.3, 0.2])
    found = ipodyn.stability_map(P, alpha=ALPHA, beta=BETA, policy0=start, num_steps=50)
    # A round of order 1 in float64, divided by 0.02.
    np.testing.assert_allclose(found.leap.values, leaps(P, start), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.haste.values, (found.leap.values > 1) & (found.radius.values >= 1))
    assert 0 < found.haste.values.sum() < found.haste.size
    assert found.haste.dtype == np.int8 and found.haste.attrs["flag_meanings"] == "calm hasty"
    assert found.leap.attrs == {"long_name": "largest change of a probability in the first round", "units": "1"}
    assert found.attrs["leap_unit"] == FirstRound.unit

    monkeypatch.setattr(ipodyn._maps.store, "POINTS_PER_PIECE", 18)
    problem = MapProblem.of(Grid.of(P, alpha=ALPHA, beta=BETA, policy0=start), Request(num_steps=50))
    store = Store.open(tmp_path / "run", problem)
    store.write(store.regions[0], problem.compute)
    again = Store.open(tmp_path / "run", problem)
    assert len(again.pending()) == len(again.regions) - 1 == 2
    assert (again.load().haste.values[2:] == -1).all() and np.isnan(again.load().leap.values[2:]).all()
    for region in again.pending():
        again.write(region, problem.compute)
    with xarray.open_zarr(tmp_path / "run" / "map.zarr", consolidated=False, chunks=None) as opened:
        for read in (again.load(), opened):
            for name in found.data_vars:
                np.testing.assert_array_equal(read[name].values, found[name].values)
                assert read[name].attrs == found[name].attrs
    other = dataclasses.replace(problem, evidence=(*problem.evidence[:-1], FirstRound(unit=0.03)))
    with pytest.raises(ValueError, match="different inputs"):
        Store.open(tmp_path / "run", other)


def test_tables_and_pictures_show_it(P, tmp_path, capsys):
    from ipodyn._cli.app import run

    np.save(tmp_path / "P.npy", P)
    grid = ["--alpha", "0.1:0.9:3", "--beta", "0.5:9:3", "--lam", "1", "--rounds", "50", "--dtype", "float64"]
    assert run(["map", "--preferences", str(tmp_path / "P.npy"), *grid, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    with xarray.open_zarr(tmp_path / "out" / "map.zarr", consolidated=False, chunks=None) as opened:
        found = opened.load()
    leap, haste = found.leap.values, found.haste.values
    assert f"{haste.sum()} cells: the loop is unstable and hurries" in said
    assert "short" in next(line for line in said.splitlines() if line.startswith("alpha")).split()
    with open(tmp_path / "out" / "summary.csv") as file:
        cells = list(csv.DictReader(file))
    columns = {
        "mean_leap": leap.mean(axis=0),
        "std_leap": leap.std(axis=0),
        "fraction_short": (leap < 1).mean(axis=0),
        "fraction_hasty": haste.mean(axis=0),
    }
    for name, values in columns.items():  # six digits
        np.testing.assert_allclose([float(row[name]) for row in cells], values.ravel(), rtol=1e-5, err_msg=name)
    with open(tmp_path / "out" / "matrices.csv") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["largest_leap"]) for row in rows], leap.max(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose([float(row["fraction_hasty"]) for row in rows], haste.mean(axis=(1, 2)), rtol=1e-5)

    figure = plot.stability_map(found)
    axes = {axes.get_title(loc="left"): axes for axes in figure.axes}
    shown = np.asarray(axes["Mean first leap"].collections[0].get_array())
    np.testing.assert_allclose(shown, leap.mean(axis=0).T, rtol=1e-12)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "leap = 1, median matrix" in words and "5 % of the matrices hurry" in words
    assert {"Mean variance over time", "Fraction that converges"} <= axes.keys()  # what was there stays


def test_evidence_is_computed_after_what_it_uses(P, monkeypatch):
    """Whatever the order in which kinds stand, which is that of the variables alone."""
    grid = Grid.of(P, alpha=ALPHA, beta=BETA)
    problem = MapProblem.of(grid, Request(num_steps=20))
    reference = problem.compute()
    for kinds in itertools.islice(itertools.permutations(registry.KINDS), 0, None, 31):
        monkeypatch.setattr(registry, "KINDS", kinds)
        other = MapProblem.of(grid, Request(num_steps=20))
        ordered = [type(evidence).__name__ for evidence in registry.in_order(other.evidence)]
        assert ordered.index("FixedPoints") < ordered.index("Rollouts") < ordered.index("Agreement")
        assert ordered.index("FixedPoints") < ordered.index("FirstRound")
    found = other.compute()
    assert found.keys() == reference.keys()
    for name, values in reference.items():
        np.testing.assert_array_equal(found[name], values)


def test_evidence_in_a_circle_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Backwards(FirstRound):
        variables = (Variable("radius", ""),)
        uses = ("leap",)

    with pytest.raises(ValueError, match="use one another's variables"):
        registry.in_order([FirstRound(), Backwards()])


def test_variables_that_nobody_knows_are_what_they_say(P):
    """A dataset from elsewhere: its own names of codes are counted, its other variables left alone."""
    problem = MapProblem.of(Grid.of(P, alpha=ALPHA, beta=BETA), Request(rollouts=False))
    data = as_dataset(problem, problem.compute())
    dims = ("matrix", "alpha", "beta")
    data["own"] = (dims, np.tile([0, 1, 1], (6, 3, 1)), {"flag_values": [0, 1], "flag_meanings": "no yes"})
    data["note"] = ("matrix", np.arange(6))
    stats = MapStatistics.of(data)
    np.testing.assert_array_equal(stats.fractions("own")["yes"], np.tile([0.0, 1.0, 1.0], (3, 1)))
    assert "note" not in stats.variables and not list(stats.noted())[1:]
