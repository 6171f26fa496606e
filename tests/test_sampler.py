"""Designed samplers against HiGHS, exact rational arithmetic, an exact rational simplex method, and duality."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn._numerics.matrix_game_highs import highs_game
from ipodyn._ranking.criteria import criterion_pairs
from ipodyn._ranking.sampler import conclude, design, excess

K, BATCH, CHUNK = 5, 500, 500
NONE = float("nan")  # the default floor


@jax.jit
@jax.vmap
def PAIRS(P):
    return criterion_pairs(P, "condorcet"), criterion_pairs(P, "smith"), criterion_pairs(P, "order")


@jax.jit
@jax.vmap
def DESIGN(P, pairs, floor):
    return design(excess(P, P), pairs, floor, jnp.asarray(0.0))


def instances(rng, number, K):
    """Continuous matrices, coarse ones with many ties, and ones whose margins are as small as 1e-7."""
    continuous = rng.uniform(size=(number // 2, K, K))
    coarse = rng.integers(0, 5, (number // 4, K, K)) / 4
    left = number - len(continuous) - len(coarse)
    sign = rng.choice([-1, 1], (left, K, K))
    near = 0.5 + sign * np.exp(rng.uniform(np.log(1e-7), np.log(0.5), (left, K, K)))
    return complementary(np.concatenate([continuous, coarse, near]))


def with_winner(P, rng):
    """The same matrices with one random response made to beat all others, by the margin that the pair has."""
    P, (M, K, _) = P.copy(), P.shape
    winner = rng.integers(0, K, M)
    wins = (np.arange(K)[None] == winner[:, None])[:, :, None] & ~np.eye(K, dtype=bool)
    strong = np.maximum(np.maximum(P, P.swapaxes(1, 2)), 0.5 + 1e-6)
    return np.where(wins, strong, np.where(wins.swapaxes(1, 2), 1 - strong, P))


def pairs_of(P, which):
    return np.concatenate([np.asarray(PAIRS(P[n : n + CHUNK])[which]) for n in range(0, len(P), CHUNK)])


def solved(P, pairs, floor=NONE):
    parts = [slice(n, n + CHUNK) for n in range(0, len(P), CHUNK)]
    found = [DESIGN(P[part], pairs[part], np.full(len(P[part]), floor)) for part in parts]
    found = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)
    result = np.asarray(found.result == ipodyn.RESULTS.successful)
    undecided = np.asarray(found.result == ipodyn.RESULTS.undecided)
    return jax.tree.map(np.asarray, found), result, undecided


def exact_margin(P, mu, pairs):
    """The least score difference of the floating-point numbers, without any rounding."""
    weights = [Fraction(float(m)) for m in mu]
    score = [sum((Fraction(float(p)) * m for p, m in zip(row, weights, strict=True)), Fraction(0)) for row in P]
    return min(score[i] - score[j] for i, j in np.argwhere(pairs))


def exact_value(P, pairs):
    """The value of the game as a rational number: Bland's simplex method on fractions."""
    B = [[Fraction(float(a)) - Fraction(float(b)) + 2 for a, b in zip(P[i], P[j], strict=True)] for i, j in
         np.argwhere(pairs)]  # fmt: skip
    # Minimising player of B > 0: maximise sum y, B.T y <= 1. The value of B is 1 / sum y.
    K, M = len(P), len(B)
    table = [[B[p][k] for p in range(M)] + [Fraction(int(k == c)) for c in range(K)] + [Fraction(1)] for k in range(K)]
    cost = [Fraction(-1)] * M + [Fraction(0)] * (K + 1)
    basis = list(range(M, M + K))
    while True:
        enter = next((c for c in range(M + K) if cost[c] < 0), None)
        if enter is None:
            return 1 / cost[-1] - 2
        ratios = [(table[k][-1] / table[k][enter], basis[k], k) for k in range(K) if table[k][enter] > 0]
        leave = min(ratios)[2]
        pivot = table[leave][enter]
        table[leave] = [x / pivot for x in table[leave]]
        for k in range(K):
            if k != leave and table[k][enter] != 0:
                factor = table[k][enter]
                table[k] = [a - factor * b for a, b in zip(table[k], table[leave], strict=True)]
        cost = [a - cost[enter] * b for a, b in zip(cost, table[leave], strict=True)]
        basis[leave] = enter


def test_condorcet_and_smith_are_always_met(rng):
    """2,000 matrices each; the margins of every tenth without rounding, and the rest in floating point."""
    for which, P in enumerate((with_winner(instances(rng, 2000, K), rng), instances(rng, 2000, K))):
        pairs = pairs_of(P, which)
        found, ok, _ = solved(P, pairs)
        named = pairs.any(axis=(1, 2))
        assert named.all() if which == 0 else (0 < named.sum() < 2000)
        assert ok.all() and found.feasible.all()
        np.testing.assert_array_equal(found.vacuous, ~named)
        np.testing.assert_allclose(found.mu.sum(axis=1), 1, atol=1e-14)
        assert (found.mu > 0).all() and (found.mu >= found.floor[:, None] * (1 - 1e-12)).all()
        score = np.einsum("mij,mj->mi", P, found.mu)
        margins = np.where(pairs, score[:, :, None] - score[:, None, :], np.inf).min(axis=(1, 2))
        assert (margins > 0).all()
        np.testing.assert_allclose(margins[named], found.margin[named], atol=1e-15)
        for m in np.flatnonzero(named)[::10]:
            assert exact_margin(P[m], found.mu[m], pairs[m]) > 0


def check_certificates(P, found, pairs, infeasible):
    """Weights of sum 1 on the pairs alone, under which no distribution puts the upper responses above the lower."""
    weights = found.certificate[infeasible]
    assert (weights >= 0).all() and (weights[~pairs[infeasible]] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1, atol=1e-12)
    reach = np.einsum("mij,mik->mk", weights, P[infeasible]) - np.einsum("mij,mjk->mk", weights, P[infeasible])
    assert (reach <= 4e-11).all()  # eps^(2/3), the accuracy promised of the bound


def test_both_paths_and_rational_arithmetic_agree_on_orders(rng):
    P = instances(rng, BATCH, K)
    pairs = np.asarray(PAIRS(P)[2])
    found, ok, undecided = solved(P, pairs)
    assert not undecided.any()
    infeasible = ~ok
    assert 0.1 < infeasible.mean() < 0.9
    check_certificates(P, found, pairs, infeasible)
    cyclic = np.asarray(jax.jit(jax.vmap(ipodyn.has_cycle))(P))
    assert infeasible[cyclic].all()
    for m in range(0, BATCH, 5):
        value = exact_value(P[m], pairs[m]) if m % 20 == 0 else None
        if value is not None:
            assert (value > 0) == ok[m]
            assert abs(float(value) - found.bound[m]) < 1e-10 or ok[m]
        if pairs[m].any():
            column, _ = highs_game((P[m][:, None] - P[m][None]).reshape(K * K, K), pairs[m].ravel())
            score = P[m] @ column
            highs = (score[:, None] - score[None])[pairs[m]].min()
            assert (highs > 1e-13) == ok[m]


def test_value_is_that_of_highs(rng):
    """With floors 0 and 0.02, to 1e-6 as promised and in fact to 1e-9; both sides of the gap enclose it."""
    P = instances(rng, BATCH, K)
    pairs = np.asarray(PAIRS(P)[2])
    for floor in (0.0, 0.02):
        found, _, _ = solved(P, pairs, floor)
        for m in np.flatnonzero(pairs.any(axis=(1, 2)))[::8]:
            game = P[m][:, None] - P[m][None]
            game = ((1 - K * floor) * game + floor * game.sum(axis=-1, keepdims=True)).reshape(K * K, K)
            column, row = highs_game(game, pairs[m].ravel())
            lower, upper = (game @ column)[pairs[m].ravel()].min(), (row @ game).max()
            assert upper - lower < 1e-12
            assert abs(found.margin[m] - lower) < 1e-9 and abs(found.bound[m] - upper) < 1e-9
            assert found.margin[m] <= upper + 1e-15 and found.bound[m] >= lower - 1e-15


def test_default_floor_costs_at_most_a_twentieth(rng):
    P = with_winner(instances(rng, BATCH, K), rng)
    pairs = np.asarray(PAIRS(P)[0])
    default, none = solved(P, pairs)[0], solved(P, pairs, 0.0)[0]
    assert (default.margin >= 0.95 * none.margin * (1 - 1e-9)).all()
    assert (default.floor > 0).all() and (default.floor <= 0.05 / K).all()


@pytest.mark.slow
def test_derivatives(rng):
    """The envelope theorem for the margin, implicit differentiation for mu, against central differences."""
    P = with_winner(complementary(rng.uniform(size=(1, K, K))), rng)[0]
    pairs = np.asarray(PAIRS(P[None])[0])[0]
    upper = rng.normal(size=(K, K))
    dP = np.triu(upper, 1) - np.triu(upper, 1).T

    @jax.jit
    def both(P, floor, smoothing):
        def answer(P):
            found = design(excess(P, P), jnp.asarray(pairs), floor, smoothing)
            return found.margin, found.mu

        return jax.jvp(answer, (P,), (dP,))

    step = 1e-6
    for smoothing, atol in ((0.0, 1e-6), (0.01, 1e-7)):  # at 0 the solver's own tolerance is in the difference
        floor, tau = jnp.asarray(0.01), jnp.asarray(smoothing)
        (ahead, behind), (_, tangent) = (both(P + s * dP, floor, tau)[0] for s in (step, -step)), both(P, floor, tau)
        if smoothing == 0:
            np.testing.assert_allclose(tangent[0], (ahead[0] - behind[0]) / (2 * step), atol=atol)
        np.testing.assert_allclose(tangent[1], (ahead[1] - behind[1]) / (2 * step), atol=atol)
        assert abs(tangent[1].sum()) < 1e-12


def test_public_function_says_what_it_did():
    P = ipodyn.problems.overshadowed_winner(3, 0.1)
    jaxed, highs = ipodyn.design_sampler(P, "condorcet"), ipodyn.design_sampler(P, "condorcet", method="highs")
    assert abs(float(jaxed.margin - highs.margin)) < 1e-9
    assert int((P @ highs.mu).argmax()) == 0
    cycle = ipodyn.problems.three_cycle(0.25)
    for method in ("jax", "highs"):
        assert bool(ipodyn.design_sampler(cycle, "smith", method=method).vacuous)
        found = ipodyn.design_sampler(cycle, "order", method=method, throw=False)
        assert not found.feasible and bool(found.result == ipodyn.RESULTS.unattainable)
        with pytest.raises(RuntimeError, match="No sampling distribution meets the criterion"):
            jax.block_until_ready(ipodyn.design_sampler(cycle, "order", method=method))
    with pytest.raises(ValueError, match="must be in"):
        ipodyn.design_sampler(P, floor=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 4, 6, 8])
def test_other_sizes(rng, K):
    """2,000 matrices a size and criterion: met exactly, the value of HiGHS for each fifth, orders decided alike."""
    P = instances(rng, 2000, K)
    winners = with_winner(P, rng)
    for which, matrices in enumerate((winners, P, P)):
        pairs = pairs_of(matrices, which)
        found, ok, undecided = solved(matrices, pairs, 0.0)
        assert not undecided.any()
        assert ok.all() or which == 2
        check_certificates(matrices, found, pairs, ~ok)
        for m in range(0, 2000, 5):
            if pairs[m].any():
                assert not ok[m] or exact_margin(matrices[m], found.mu[m], pairs[m]) > 0
                game = (matrices[m][:, None] - matrices[m][None]).reshape(K * K, K)
                column, _ = highs_game(game, pairs[m].ravel())
                value = (game @ column)[pairs[m].ravel()].min()
                assert abs(found.margin[m] - value) < 1e-6
                assert (value > 1e-13) == ok[m]


def test_a_margin_of_roundings_meets_nothing(rng):
    """In a cycle of three every order fails: the best margin is 0, where all scores tie, and rounding may lift it."""
    strength = rng.uniform(0.01, 0.5, (400, 3))
    lifted = 0
    for a, b, c in strength:
        A = np.array([[0, a, -c], [-a, 0, b], [c, -b, 0]])
        P, mu = jnp.asarray(0.5 + A), jnp.asarray(np.array([b, c, a]) / (a + b + c))  # A mu = 0
        pairs = P > P.T
        found = conclude(mu, pairs.astype(float) / 3, excess(P, P), pairs, jnp.zeros(()))
        lifted += int(found.margin > 0)
        assert not found.feasible and not bool(found.result == ipodyn.RESULTS.successful)
    assert lifted > 0


@pytest.mark.parametrize("K", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_single_precision_says_what_it_falls_short(rng, K):
    """The best margin, known in float64, is at most `gap` above the one found in float32, rounding aside."""
    P = with_winner(instances(rng, 500, K), rng).astype(np.float32)
    pairs = pairs_of(P, 0)
    design_single = jax.vmap(lambda P, pairs: design(excess(P, P), pairs, jnp.float32(0), jnp.float32(0)))
    single = jax.tree.map(lambda leaf: np.asarray(leaf, leaf.dtype), jax.jit(design_single)(P, pairs))
    gap = np.asarray(single.gap)
    exact = solved(P.astype(float), pairs, 0.0)[0]
    short = exact.margin - single.margin
    rounding = 8 * K * np.finfo(np.float32).eps
    assert (short <= gap + rounding).all()
    assert (gap >= -rounding).all() and gap.max() < 2e-3 and np.median(gap) < 1e-5
