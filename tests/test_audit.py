"""The audit of whole sets against a count by hand in NumPy, and its picture."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import mixture, strongly_transitive

import ipodyn
from ipodyn import DPO, IPO

pytest.importorskip("xarray")
K, NUMBER = 3, 300


def by_hand(P, mu):
    """(number, 3) whether each axiom holds for the scores P mu, and whether it applies; from the definitions."""
    held, applies = np.ones((len(P), 3), bool), np.zeros((len(P), 3), bool)
    for m, (matrix, scores) in enumerate(zip(P, np.einsum("mij,mj->mi", P, mu), strict=True)):
        beats = matrix > 0.5
        winners = np.flatnonzero(beats.sum(axis=1) == K - 1)
        # With three responses the Smith set is one, two or all of them.
        sets = [{i} for i in winners] or [
            set(range(K)) - {k} for k in range(K) if beats[[i for i in range(K) if i != k], k].all()
        ]
        smith = sets[0] if sets else set(range(K))
        at_least = matrix >= 0.5
        transitive = not ((at_least.astype(int) @ at_least > 0) & ~at_least).any()
        pairs = (
            [(c, j) for c in winners for j in range(K) if j != c],
            [(i, j) for i in smith for j in set(range(K)) - smith],
            [(i, j) for i, j in np.argwhere(beats)] if transitive else [],
        )
        applies[m] = len(winners) > 0, len(smith) < K, transitive
        held[m] = [all(scores[i] - scores[j] > 1e-12 for i, j in named) for named in pairs]
    return held, applies


def test_shares_are_those_of_a_count_by_hand(rng):
    P = mixture(rng, NUMBER, K)
    ref = rng.dirichlet(np.ones(K), NUMBER)
    own = rng.dirichlet(np.ones(K))
    samplers = {"uniform": "uniform", "reference": "reference", "skewed": "skewed", "mine": own}
    found = ipodyn.audit(P, samplers=samplers, objectives=[IPO()], pi_ref=ref, atol=1e-12)
    top = P.mean(axis=2).argmax(axis=1)
    drawn = {
        "uniform": np.full((NUMBER, K), 1 / K),
        "reference": ref,
        "skewed": 0.9 * np.eye(K)[top] + 0.1 / K,
        "mine": np.tile(own, (NUMBER, 1)),
    }
    for name, mu in drawn.items():
        held, applies = by_hand(P, mu)
        of = found.sel(sampler=name, objective="IPO").transpose("matrix", "axiom")
        np.testing.assert_array_equal(of.applies, applies)
        np.testing.assert_array_equal(of.holds, held)
        np.testing.assert_array_equal(of.number, applies.sum(axis=0))
        np.testing.assert_allclose(of.fraction, (held & applies).sum(axis=0) / applies.sum(axis=0))
        assert ((of.fraction > 0) & (of.fraction < 1)).all()
    assert found.fraction.attrs["units"] == "1"


def test_on_policy_samples_from_its_own_optimum(rng):
    P = 0.5 + 0.9 * (mixture(rng, 60, K) - 0.5)
    found = ipodyn.audit(P, samplers=["on-policy"], objectives=[IPO()], beta=5.0)
    assert found.attrs["atol"] == np.finfo(float).eps ** 0.6 and found.attrs["beta"] == 5
    policy = np.full((60, K), 1 / K)
    for _ in range(4000):  # the relaxed map, in NumPy: it converges whatever beta
        weight = np.exp(5.0 * np.einsum("mij,mj->mi", P, policy))
        policy = 0.95 * policy + 0.05 * weight / weight.sum(axis=1, keepdims=True)
    held, applies = by_hand(P, policy)
    scores = np.einsum("mij,mj->mi", P, policy)
    clear = np.abs(scores[:, :, None] - scores[:, None, :] + np.eye(K)).min(axis=(1, 2)) > 1e-7
    np.testing.assert_array_equal(found.holds.values[clear, 0, 0], held[clear])
    assert clear.sum() > 20 and 0 < (held & applies).sum() < applies.sum()


def test_designed_samplers_meet_what_can_be_met(rng):
    P = mixture(rng, NUMBER, K)
    found = ipodyn.audit(P, samplers=["uniform", "designed"], objectives=[IPO()])
    fraction = found.fraction.sel(objective="IPO")
    assert (fraction.sel(sampler="designed", axiom=["condorcet", "smith"]) == 1).all()
    assert (fraction.sel(sampler="designed") >= fraction.sel(sampler="uniform")).all()
    assert float(fraction.sel(sampler="uniform", axiom="condorcet")) < 1


def test_strongly_transitive_sets_pass_whatever_is_sampled(rng):
    """Theory, and that the sampler may be a function of P."""
    P = strongly_transitive(rng, NUMBER, K)
    odd = lambda P: jax.nn.softmax(20 * P[0] - 7 * P[:, 1])  # noqa: E731
    found = ipodyn.audit(P, samplers={"uniform": "uniform", "odd": odd}, objectives=[IPO()])
    assert (found.fraction == 1).all() and (found.number == NUMBER).all()


def test_dpo_says_where_it_has_no_scores(rng):
    P = mixture(rng, NUMBER, K)
    found = ipodyn.audit(P, samplers=["uniform"], objectives=[IPO(), DPO()])
    ipo, dpo = (found.sel(objective=name, sampler="uniform") for name in ("IPO", "DPO"))
    connected = np.asarray(dpo.defined)[:, 0]
    # Strongly connected: the chances (P > 0) lead from everyone to everyone, by powers of the adjacency matrix.
    reach = np.linalg.matrix_power((P > 0).astype(int), K) > 0
    np.testing.assert_array_equal(connected, reach.all(axis=(1, 2)))
    assert 0 < connected.sum() < NUMBER and bool(ipo.defined.all())
    # Where both have scores they rank alike: clear margins have one sign.
    clear = connected[:, None] & (np.abs(ipo.margin.values) > 1e-9)
    np.testing.assert_array_equal(ipo.holds.values[clear], dpo.holds.values[clear])
    assert np.isnan(dpo.margin.values[~connected]).all() and not dpo.holds.values[~connected].any()
    np.testing.assert_array_equal(dpo.number, (found.applies.values & connected[:, None]).sum(axis=0))


@pytest.mark.slow
def test_real_judgements(rng, best_extracts, tmp_path):
    """A judge on seven models: what cannot fail does not, and uniform sampling does fail on some prompts."""
    import real_data as extracts

    P = ipodyn.data.load_pairs(extracts.qlora(best_extracts.folder, tmp_path), both_orders=True).P
    found = ipodyn.audit(P, objectives=[IPO()])
    fraction = found.fraction.sel(objective="IPO")
    assert (fraction.sel(sampler="designed", axiom=["condorcet", "smith"]) == 1).all()
    assert (fraction.sel(sampler=["uniform", "skewed"], axiom="smith") < 1).all()
    strong = np.asarray(jax.vmap(ipodyn.strong_order)(jnp.asarray(P)).holds)
    kept = found.holds.sel(axiom="order", objective="IPO").values[strong & found.applies.sel(axiom="order").values]
    assert kept.all() and len(kept) > (20 if best_extracts.published else 5)


def test_wrong_input_is_named(monkeypatch):
    P = ipodyn.problems.three_cycle(0.3)
    with pytest.raises(ValueError, match="there is no sampler 'unifrom': give one of uniform"):
        ipodyn.audit(P, samplers=["unifrom"])
    with pytest.raises(ValueError, match=r"`samplers\['mine'\]` has shape \(2,\): give \(3,\), or \(1, 3\)"):
        ipodyn.audit(P, samplers={"mine": [0.5, 0.5]})
    with pytest.raises(ValueError, match="must sum to 1"):
        ipodyn.audit(P, pi_ref=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="give each once"):
        ipodyn.audit(P, objectives=[IPO(), IPO()])
    with pytest.raises(ValueError, match="a sampler returned shape"):
        ipodyn.audit(P, samplers={"mine": lambda P: jnp.ones(2) / 2}, objectives=[IPO()])
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"needs xarray: pip install 'ipodyn\[io\]'"):
        ipodyn.audit(P)


def test_picture_shows_the_shares(rng):
    pytest.importorskip("matplotlib")
    xarray = pytest.importorskip("xarray")
    fraction = np.array([[[0.5, np.nan], [1.0, 0.9999]]])
    number = np.array([[[4, 0], [4, 3]]])
    data = xarray.Dataset(
        {
            "fraction": (("objective", "sampler", "axiom"), fraction),
            "number": (("objective", "sampler", "axiom"), number),
            "applies": (("matrix", "axiom"), np.array([[True, True]] * 4 + [[False, True]])),
        },
        {"objective": ["IPO"], "sampler": ["uniform", "mine"], "axiom": ["condorcet", "order"]},
        {"source": "a test", "synthetic": True},
    )
    figure = ipodyn.plot.audit(data)
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["50 %", "100 %"], ["none", "99.9 %\nof 3"]]
    assert figure.get_suptitle() == "SYNTHETIC data: a test"
    assert figure.axes[1].get_title(loc="left") == "Transitive order kept (5 matrices)"
    colours = np.asarray(figure.axes[0].images[0].get_array())
    assert colours[0, 0].sum() > colours[1, 0].sum()  # deeper for more
    with pytest.raises(ValueError, match="has no applies"):
        ipodyn.plot.audit(data.drop_vars("applies"))
