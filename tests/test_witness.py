"""Counterexamples: they are what they claim to be, and the worst of a set is the worst by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn
from ipodyn._ranking.criteria import check_criterion

NAMES = ("condorcet", "smith", "order")
AXIOMS = {"condorcet": ipodyn.condorcet_top, "smith": ipodyn.smith_top, "order": ipodyn.order_preserving}
NUMBER = 500


def build(mu, fraction):
    return {
        name: (
            ipodyn.witness(ipodyn.IPO(), mu, name, fraction=fraction),
            ipodyn.witness(ipodyn.DPO(), mu, name, fraction=fraction).scores,
        )
        if mu.size == 4
        else (ipodyn.witness(ipodyn.IPO(), mu, name, fraction=fraction), None)
        for name in NAMES
    }


BUILD = jax.jit(jax.vmap(build))


def smith_by_subsets(P):
    K = len(P)
    for size in range(1, K + 1):
        for inside in itertools.combinations(range(K), size):
            if all(P[i, j] > 0.5 for i in inside for j in range(K) if j not in inside):
                return set(inside)
    raise AssertionError("the full set is dominant")


@pytest.mark.parametrize("K", [3, 5, *(pytest.param(K, marks=pytest.mark.slow) for K in (4, 6, 7, 8))])
def test_every_sampling_distribution_has_a_counterexample(K, rng):
    """Theory: for every fixed full-support mu and K >= 3 there is a P that violates each; in NumPy throughout."""
    mu = rng.dirichlet(np.full(K, 0.5), NUMBER)
    mu = (mu + 1e-6) / (mu + 1e-6).sum(axis=1, keepdims=True)
    mu[:50] = 1 / K
    fraction = rng.uniform(0.01, 0.99, NUMBER)
    found = BUILD(mu, fraction)
    lows = {
        "condorcet": 1 - np.sort(mu, axis=1)[:, :2].sum(axis=1),
        "smith": 1 - np.sort(mu, axis=1)[:, : 2 if K == 3 else 3].sum(axis=1),
        "order": mu.max(axis=1),
    }
    for name in NAMES:
        got, dpo = jax.tree.map(np.asarray, found[name])
        P = got.P
        assert (P > 0).all() and (P < 1).all() and np.abs(P + P.swapaxes(1, 2) - 1).max() < 1e-15
        scores = np.einsum("mij,mj->mi", P, mu)
        np.testing.assert_allclose(got.scores, scores, atol=1e-15)
        i, j = got.pair.T
        rows = np.arange(NUMBER)
        # The promised violation, exactly: (1 - fraction) w / 2.
        np.testing.assert_allclose(scores[rows, i] - scores[rows, j], -(1 - fraction) * lows[name] / 2, atol=1e-14)
        np.testing.assert_allclose(got.margin, -(1 - fraction) * lows[name] / 2, atol=1e-14)
        assert (got.margin < 0).all() and (got.strength > 0).all()
        # The premises.
        beats = P > 0.5
        winner = np.where((beats.sum(axis=2) == K - 1).any(axis=1), (beats.sum(axis=2) == K - 1).argmax(axis=1), -1)
        if name == "condorcet":
            np.testing.assert_array_equal(winner, i)
        for matrix, a, b in list(zip(P, i, j, strict=True))[:60]:
            if name == "smith":
                smith = smith_by_subsets(matrix)
                assert a in smith and b not in smith and len(smith) == (1 if K == 3 else 3)
            if name == "order":
                at_least = matrix >= 0.5
                assert at_least[a, b] and not ((at_least @ at_least) & ~at_least).any()
        if name == "order":  # only the order breaks: the Condorcet winner stays on top
            assert (winner >= 0).all() and (scores.argmax(axis=1) == winner).all()
        if dpo is not None:
            gap = dpo[rows, j] - dpo[rows, i]
            # Theory: four times the gap of IPO at least; 1e-9: Newton at fits whose curvature is 1e-4.
            assert (gap >= 4 * (scores[rows, j] - scores[rows, i]) - 1e-9).all()


def test_the_limit_of_epsilon_is_sharp(rng):
    mu = rng.dirichlet(np.ones(3), NUMBER)
    for fraction, violated in ((0.999, True), (1.001, False)):
        for name, (got, _) in BUILD(mu, np.full(NUMBER, fraction)).items():
            assert ((np.asarray(got.margin) < 0) == violated).all(), name


CHECK = {
    name: jax.jit(jax.vmap(lambda P, mu, axiom=axiom: axiom(P, P @ mu), in_axes=(0, None)))
    for name, axiom in AXIOMS.items()
}


def worst_by_enumeration(name, mu, low, up, win):
    """The least margin over P whose every entry is at a bound, at 1/2, or a least win to either side of it."""
    K = len(mu)
    pairs = list(itertools.combinations(range(K), 2))
    values = []
    for i, j in pairs:
        marks = np.array([low[i, j], up[i, j], 0.5, 0.5 - win, 0.5 + win])
        values.append(np.unique(marks[(marks >= low[i, j] - 1e-15) & (marks <= up[i, j] + 1e-15)]))
    grid = np.array(list(itertools.product(*values)))
    grid = np.resize(grid, (5 ** len(pairs), len(pairs)))  # one compiled shape
    P = np.full((len(grid), K, K), 0.5)
    for place, (i, j) in enumerate(pairs):
        P[:, i, j], P[:, j, i] = grid[:, place], 1 - grid[:, place]
    found = CHECK[name](P, mu)
    return np.min(np.where(found.applies, found.margin, np.inf))


def box(rng, K):
    """Bounds as intervals around a random P, with exact ties and points among them; no end within 0.01 of 1/2."""
    centre, radius = rng.uniform(size=(K, K)), rng.choice([0.0, 0.1, 0.3, 0.6], size=(K, K))
    low, up = np.clip(centre - radius, 0.02, 0.98), np.clip(centre + radius, 0.02, 0.98)
    low, up = (np.where(np.abs(x - 0.5) < 0.01, 0.5, x) for x in (low, up))
    low, up = np.triu(low, 1), np.triu(up, 1)
    low, up = low + np.tril(1 - up.T, -1), up + np.tril(1 - low.T, -1)
    return low + np.eye(K) / 2, up + np.eye(K) / 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("K", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_worst_of_a_set_is_the_worst_by_enumeration(K, name, rng):
    violated = feasible = 0
    for _ in range(40 if K == 3 else 8):
        mu, (low, up), win = rng.dirichlet(np.ones(K)), box(rng, K), 0.005
        expected = worst_by_enumeration(name, mu, low, up, win)
        try:
            found = ipodyn.most_violating(ipodyn.IPO(), mu, low, up, name, least_win=win)
        except ValueError as error:
            assert "meets the premise" in str(error) and expected == np.inf
            continue
        assert expected < np.inf
        np.testing.assert_allclose(found.margin, expected, atol=1e-14)
        outside = np.maximum(low - found.P, found.P - up)
        assert outside.max() < 1e-15
        i, j = found.pair
        np.testing.assert_allclose(found.scores[i] - found.scores[j], found.margin, atol=1e-14)
        feasible += 1
        violated += float(found.margin) < 0
    assert feasible >= 5 and violated >= 2


@pytest.mark.slow
def test_worst_for_dpo(rng):
    """Certified by its own margin, inside the set, and no worse than thousands of random P or the IPO answer."""
    K, mu = 3, np.array([0.2, 0.3, 0.5])
    fits = jax.jit(jax.vmap(lambda P: ipodyn.condorcet_top(P, ipodyn.DPO().score(P, mu))))
    for centre in (np.array([0.6, 0.55, 0.7]), np.array([0.55, 0.9, 0.6])):
        P = np.full((K, K), 0.5)
        P[np.triu_indices(K, 1)] = centre
        P[np.tril_indices(K, -1)] = 1 - P.T[np.tril_indices(K, -1)]
        low, up = np.clip(P - 0.25, 0.02, 0.98), np.clip(P + 0.25, 0.02, 0.98)
        found = ipodyn.most_violating(ipodyn.DPO(), mu, low, up, least_win=0.01)
        assert np.maximum(low - found.P, found.P - up).max() < 1e-14
        ipo = ipodyn.most_violating(ipodyn.IPO(), mu, low, up, least_win=0.01)
        assert float(found.margin) <= 4 * float(ipo.margin) < 0

        upper = rng.uniform(low[np.triu_indices(K, 1)], up[np.triu_indices(K, 1)], size=(3000, K))
        many = np.full((3000, K, K), 0.5)
        for place, (i, j) in enumerate(itertools.combinations(range(K), 2)):
            many[:, i, j], many[:, j, i] = upper[:, place], 1 - upper[:, place]
        wins = np.abs(many - 0.5).min(axis=(1, 2), where=~np.eye(K, dtype=bool), initial=1) >= 0.01
        tried = fits(many)
        margins = np.where(tried.applies & wins, tried.margin, np.inf)
        assert float(found.margin) <= margins.min() + 1e-9 and margins.min() < 0


def test_a_safe_set_is_certified(rng):
    """Narrow intervals around a strongly transitive P: the exact worst margin is positive, and no P goes below."""
    P = np.asarray(ipodyn.problems.bradley_terry(np.array([2.0, 1.0, 0.0, -1.0])))
    mu = np.full(4, 0.25)
    found = ipodyn.most_violating(ipodyn.IPO(), mu, P - 0.01, P + 0.01, "order")
    inside = P + np.triu(rng.uniform(-0.01, 0.01, size=(5**6, 4, 4)), 1)
    inside = np.where(np.triu(np.ones((4, 4), bool), 1), inside, 1 - inside.swapaxes(1, 2))
    inside[:, range(4), range(4)] = 0.5
    margins = np.asarray(CHECK["order"](inside, mu).margin)
    assert 0 < float(found.margin) <= margins.min() < float(found.margin) + 0.02


def test_bounds_that_meet_in_a_rounded_point(rng):
    """A set of one matrix, whose opposite entries sum to 1 only up to rounding: its own margin comes back."""
    P = 1 / (1 + np.exp(-np.subtract.outer(np.array([1.3, 0.4, -0.7]), np.array([1.3, 0.4, -0.7]))))
    P[0, 2] += 2e-16
    P[2, 0] += 3e-16
    mu = rng.dirichlet(np.ones(3))
    found = ipodyn.most_violating(ipodyn.IPO(), mu, P, P)
    scores = P @ mu
    np.testing.assert_allclose(found.margin, scores[0] - scores[1:].max(), atol=1e-15)


def test_wrong_input_is_named():
    half = np.full((3, 3), 0.5)
    with pytest.raises(ValueError, match="every response must be sampled"):
        ipodyn.witness(ipodyn.IPO(), np.array([0.5, 0.5, 0.0]))
    with pytest.raises(ValueError, match="fewer than 3 responses"):
        ipodyn.witness(ipodyn.IPO(), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="leave nothing for P"):
        ipodyn.most_violating(ipodyn.IPO(), [0.3, 0.3, 0.4], half + 0.1, half + 0.1)
    with pytest.raises(ValueError, match="meets the premise of 'condorcet'"):
        ipodyn.most_violating(ipodyn.IPO(), [0.3, 0.3, 0.4], half, half)
    with pytest.raises(ValueError, match="admit 0 and 1"):
        ipodyn.most_violating(ipodyn.DPO(), [0.3, 0.3, 0.4], 0 * half, 2 * half)
    with pytest.raises(ValueError, match=r"`lower` has shape \(3, 3\) for 4"):
        ipodyn.most_violating(ipodyn.IPO(), jnp.full(4, 0.25), half, half)
    with pytest.raises(ValueError, match="give 7 at most"):
        ipodyn.most_violating(ipodyn.IPO(), np.full(8, 0.125), np.zeros((8, 8)), np.ones((8, 8)), "order")
    with pytest.raises(ValueError, match="`criterion` is 'borda'; it must be one of condorcet, smith, order"):
        check_criterion("borda")


def test_a_criterion_has_one_name():
    mu, half = np.array([0.5, 0.3, 0.2]), np.full((3, 3), 0.5)
    with pytest.warns(DeprecationWarning, match="argument `axiom` .* use `criterion`"):
        old = ipodyn.witness(ipodyn.IPO(), mu, axiom="order")  # pyright: ignore[reportCallIssue]
    np.testing.assert_array_equal(old.P, ipodyn.witness(ipodyn.IPO(), mu, criterion="order").P)
    with pytest.warns(DeprecationWarning, match="argument `axiom` .* use `criterion`"):
        old = ipodyn.most_violating(ipodyn.IPO(), mu, half - 0.2, half + 0.2, axiom="smith")  # pyright: ignore[reportCallIssue]
    np.testing.assert_array_equal(old.P, ipodyn.most_violating(ipodyn.IPO(), mu, half - 0.2, half + 0.2, "smith").P)
