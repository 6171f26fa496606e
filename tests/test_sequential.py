"""Sequential design: the martingale by exact sums, error rates and savings by simulation, on made and real matrices."""

import itertools
import math

import jax
import numpy as np
import pytest
import real_data as convert
from preferences import complementary, random_P, shuffled

import ipodyn
import ipodyn.data
from ipodyn._ranking.sequential import Evidence, _left_to_compare, log_marginal, mixture_interval
from ipodyn._ranking.sequential_runs import _wins

K = 4


def condorcet_matrices(rng, number, K):
    """Random matrices whose response 0 beats all others by at least 0.02, relabelled at random."""
    P = rng.uniform(size=(number, K, K))
    P[:, 0] = 0.52 + 0.48 * P[:, 0]
    return shuffled(rng, complementary(P))


def tops(P, criterion):
    """The Smith sets by a path to the top, written anew: (runs, K) bool; empty without a Condorcet winner if asked."""
    K = P.shape[1]
    at_least = P >= 0.5
    for k in range(K):  # Warshall: i reaches j through responses that are not beaten
        at_least = at_least | (at_least[:, :, k, None] & at_least[:, None, k, :])
    smith = at_least.all(axis=2)
    return smith if criterion == "smith" else smith & (smith.sum(axis=1) == 1)[:, None]


def violations(P, runs, criterion):
    """Which certified samplers break the criterion on the truth, by their scores."""
    score = np.einsum("rij,rj->ri", P, runs.mu)
    top = tops(P, criterion)
    asked = top.any(axis=1) & ~top.all(axis=1)
    lowest = np.where(top, score, np.inf).min(axis=1)
    highest = np.where(top, -np.inf, score).max(axis=1)
    return runs.certified & asked & ~(lowest > highest)


def both_rules(P, criterion, rng, **options):
    """On the same labels: the k-th comparison of a pair has one outcome."""
    seed = int(rng.integers(2**63))
    return [ipodyn.sequential_runs(P, criterion, key=seed, rule=rule, **options) for rule in ("adaptive", "uniform")]


def share_on_other_labels(adaptive, P, criterion, rng, **options):
    """The share with fewer comparisons where the uniform rule has labels of its own: its luck is no longer shared."""
    uniform = ipodyn.sequential_runs(P, criterion, key=int(rng.integers(2**63)), rule="uniform", **options)
    return share_with_fewer(adaptive, uniform)


def share_with_fewer(adaptive, uniform):
    """Of all runs: certified by the adaptive rule with fewer comparisons than by the uniform one (or its limit)."""
    return (adaptive.certified & (adaptive.comparisons < uniform.comparisons)).mean()


def test_martingale_has_mean_one():
    """Sum over the outcomes of n comparisons of probability times ratio, for the true p; and one step ahead."""
    for n in (1, 7, 40):
        wins = np.arange(n + 1)
        ratio = np.exp(log_marginal(wins, n - wins))  # the probability times this over the likelihood
        assert abs(sum(math.comb(n, w) * ratio[w] for w in wins) - 1) < 1e-12
        ahead = np.exp(log_marginal(wins + 1, n - wins)) + np.exp(log_marginal(wins, n - wins + 1))
        np.testing.assert_allclose(ahead, ratio, rtol=1e-12)


def test_intervals_are_the_level_sets():
    wins, losses = (x.ravel() for x in np.meshgrid(np.arange(12), np.arange(12)))
    lower, upper = mixture_interval(wins, losses, 0.01)
    p = np.linspace(0, 1, 2001)[1:-1, None]
    inside = wins * np.log(p) + losses * np.log1p(-p) > log_marginal(wins, losses) + np.log(0.01)
    clear = (np.abs(p - lower) > 1e-9) & (np.abs(p - upper) > 1e-9)
    np.testing.assert_array_equal(((lower < p) & (p < upper))[clear], inside[clear])


def test_intervals_hold_at_all_times_at_once(rng):
    """2,000 paths of 2,000 comparisons looked at after each: at most 10 % ever miss p (3 standard deviations more)."""
    p = rng.uniform(0.05, 0.95, 2000)[:, None]
    wins = np.cumsum(rng.uniform(size=(2000, 2000)) < p, axis=1)
    losses = np.arange(1, 2001) - wins
    log_ratio = log_marginal(wins, losses) - wins * np.log(p) - losses * np.log1p(-p)
    missed = (log_ratio >= -np.log(0.1)).any(axis=1).mean()
    assert 0.01 < missed < 0.1 + 3 * math.sqrt(0.1 * 0.9 / 2000)


def test_all_pairs_are_covered_at_once(rng):
    """15 pairs at delta 0.3, looked at after each of 100 comparisons: in 7 of 10 runs no interval ever misses.

    Intervals at 0.3 each would miss somewhere in nearly every run. Labels are given to whole rounds, one a pair.
    """
    runs, K = 60, 6
    P = random_P(rng, runs, K)
    evidence, covered = Evidence(runs, K, 0.3), np.ones(runs, bool)
    run, i, j = (x.ravel() for x in np.nonzero(np.triu(np.ones((runs, K, K), bool), 1)))
    for _ in range(100):
        won = (rng.uniform(size=run.size) < P[run, i, j]).astype(int)
        evidence.add(run, i, j, won, 1 - won)
        covered &= ((evidence.lower <= P) & (evidence.upper >= P)).all(axis=(1, 2))
    assert 0.7 - 3 * math.sqrt(0.3 * 0.7 / runs) < covered.mean() < 1


def test_limits_never_widen():
    """All intervals so far hold together, so what 30 wins excluded stays excluded after 30 losses, and conversely."""
    evidence, run, zero, one = Evidence(2, 2, 0.1), np.arange(2), np.zeros(2, int), np.ones(2, int)
    limits = []
    for won in [1] * 30 + [0] * 30:  # the second run is the mirror image of the first
        evidence.add(run, zero, one, np.array([won, 1 - won]), np.array([1 - won, won]))
        limits.append((evidence.lower[:, 0, 1].copy(), evidence.upper[:, 0, 1].copy()))
    lower, upper = np.swapaxes(limits, 0, 1)
    assert (np.diff(lower, axis=0) >= 0).all() and (np.diff(upper, axis=0) <= 0).all()
    assert lower[-1, 0] == lower[29, 0] > 0.8  # 30 wins in a row at error 0.1; the counts alone, 30 to 30, say 0.33
    assert upper[-1, 1] == upper[29, 1] < 0.2
    assert mixture_interval(np.array([30]), np.array([30]), 0.1)[0] < 0.4


def test_what_is_left_to_compare_is_what_it_takes():
    """Shares of 0.65: from 40 comparisons on, the forecast against the count at which 1/2 leaves the interval."""
    counts = np.arange(20, 400, 20)
    wins, losses = (0.35 * counts).astype(int), (0.65 * counts).astype(int)
    evidence = Evidence(len(counts), 2, 0.1)
    evidence.wins[:, 0, 1], evidence.wins[:, 1, 0] = wins, losses
    left = _left_to_compare(evidence, np.arange(len(counts)), np.full((len(counts), 2, 2), 0.15))[:, 0, 1]
    reached = counts[(mixture_interval(wins, losses, 0.1)[1] < 0.5).argmax()]
    open_ = (counts >= 40) & (counts < reached)
    assert open_.sum() >= 2
    np.testing.assert_allclose((counts + left)[open_], reached, rtol=0.25)  # the logarithm's growth is left out
    assert (left[counts >= reached] < left[0] / 4).all()


def test_equal_generators_give_equal_labels(rng):
    """Two responses have one pair, so that both rules are the same; longer runs go on with the same labels."""
    P = random_P(rng, 8, 2)
    adaptive, uniform = both_rules(P, "condorcet", rng, delta=0.1, max_comparisons=100)
    np.testing.assert_array_equal(adaptive.comparisons, uniform.comparisons)
    np.testing.assert_array_equal(adaptive.certified, uniform.certified)
    streams = rng.integers(2**64, size=3, dtype=np.uint64)
    p, zero = np.array([0.2, 0.5, 0.9]), np.zeros(3, int)
    whole = _wins(streams, zero, np.array([4000, 4000, 4000]), p)
    parts = _wins(streams, zero, np.array([1, 70, 0]), p) + _wins(
        streams, np.array([1, 70, 0]), np.array([3999, 3930, 4000]), p
    )
    np.testing.assert_array_equal(whole, parts)
    assert (np.abs(whole / 4000 - p) < 4 * np.sqrt(p * (1 - p) / 4000)).all()


@pytest.mark.slow
def test_adaptive_rule_errs_less_than_promised_and_saves(rng):
    P = condorcet_matrices(rng, 64, K)
    adaptive, uniform = both_rules(P, "condorcet", rng, delta=0.1, max_comparisons=6_000)
    for runs in (adaptive, uniform):
        assert violations(P, runs, "condorcet").sum() <= 6  # 0.1 of 64
        assert runs.covered.mean() > 0.9 - 3 * math.sqrt(0.1 * 0.9 / 64)
    assert adaptive.certified.mean() > 0.9
    assert share_with_fewer(adaptive, uniform) >= 0.8


def test_one_at_a_time(rng):
    """The class: the winner is on top of the certified sampler for all matrices in the box, and P is among them."""
    P = np.asarray(ipodyn.problems.bradley_terry(rng.permuted([3.0, 1.0, 0.0, 0.5])))
    design = ipodyn.SequentialDesign(K, "condorcet", delta=0.05)
    while not design.certified and design.comparisons < 20_000:
        i, j = design.next_pair()
        design.record(i, j, bool(rng.uniform() < P[i, j]))
    assert design.certified
    assert (design.lower <= P).all() and (design.upper >= P).all()
    assert design.wins.sum() == design.comparisons
    winner = int(np.flatnonzero(np.atleast_2d(tops(P[None], "condorcet"))[0])[0])
    sampler = design.sampler
    assert bool(sampler.feasible) and int((P @ np.asarray(sampler.mu)).argmax()) == winner


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="`rule` is 'greedy'"):
        ipodyn.SequentialDesign(3, rule="greedy")
    with pytest.raises(ValueError, match="`criterion` is 'borda'"):
        ipodyn.SequentialDesign(3, "borda")
    with pytest.raises(ValueError, match="two different responses"):
        ipodyn.SequentialDesign(3).record(1, 1, True)


@pytest.mark.slow
@pytest.mark.parametrize("K", [4, 6])
def test_promise_and_savings_over_many_runs(rng, K):
    """600 runs a size at delta 0.1."""
    P = condorcet_matrices(rng, 600, K)
    adaptive, uniform = both_rules(P, "condorcet", rng, delta=0.1, max_comparisons=100_000)
    for name, runs in (("adaptive", adaptive), ("uniform", uniform)):
        errors = violations(P, runs, "condorcet").sum()
        print(
            f"K={K} {name}: certified {runs.certified.mean():.3f}, errors {errors}/600, "
            f"covered {runs.covered.mean():.3f}"
        )
        print("   comparisons, quartiles:", np.quantile(runs.comparisons, [0.25, 0.5, 0.75]))
        assert errors <= 60
        assert runs.covered.mean() > 0.9 - 3 * math.sqrt(0.1 * 0.9 / 600)
    print(f"   fewer than uniform: {share_with_fewer(adaptive, uniform):.3f}")
    assert share_with_fewer(adaptive, uniform) >= 0.8


def print_runs(name, runs, errors):
    print(f"{name}: certified {runs.certified.mean():.3f}, covered {runs.covered.mean():.3f}, errors {errors}")
    print("   comparisons, quartiles:", np.quantile(runs.comparisons, [0.25, 0.5, 0.75]))


@pytest.mark.slow
def test_smith_sets(rng):
    """600 random matrices of any Smith set; 1 or 2 in 100 are so close to ties that nobody certifies them.

    With labels of its own the uniform rule is beaten in about 80 % of all runs (0.807 of 1,800 other matrices); 600
    know that to 0.033, two standard deviations.
    """
    P = random_P(rng, 600, K)
    options = {"delta": 0.1, "max_comparisons": 50_000}
    adaptive, uniform = both_rules(P, "smith", rng, **options)
    for name, runs in (("smith adaptive", adaptive), ("smith uniform", uniform)):
        errors = violations(P, runs, "smith").sum()
        print_runs(name, runs, f"{errors}/600")
        assert errors <= 60
        assert runs.certified.mean() > 0.95
        assert runs.covered.mean() > 0.9 - 3 * math.sqrt(0.1 * 0.9 / 600)
    same, other = share_with_fewer(adaptive, uniform), share_on_other_labels(adaptive, P, "smith", rng, **options)
    print(f"   fewer than uniform: {same:.3f} on the same labels, {other:.3f} on others")
    assert same >= 0.83
    assert other >= 0.8 - 2 * math.sqrt(0.8 * 0.2 / 600)
    assert np.median(adaptive.comparisons) < 0.8 * np.median(uniform.comparisons)


@pytest.mark.slow
def test_orders(rng):
    """Random matrices whose order some sampler keeps by 0.02; elsewhere no number of comparisons certifies one."""
    P = random_P(rng, 1500, K)
    found = jax.jit(jax.vmap(lambda P: ipodyn.design_sampler(P, "order", floor=0.0, throw=False)))(P)
    P = P[np.asarray(found.margin) > 0.02][:300]
    adaptive, uniform = both_rules(P, "order", rng, delta=0.1, max_comparisons=100_000)
    for name, runs in (("order adaptive", adaptive), ("order uniform", uniform)):
        score = np.einsum("rij,rj->ri", P, runs.mu)
        wrong = (P > 0.5) & ~(score[:, :, None] > score[:, None, :])
        errors = (runs.certified & wrong.any(axis=(1, 2))).sum()
        print_runs(name, runs, f"{errors}/{len(P)}")
        assert errors <= 0.1 * len(P)
        assert runs.covered.mean() > 0.9 - 3 * math.sqrt(0.1 * 0.9 / len(P))
    print(f"   fewer than uniform: {share_with_fewer(adaptive, uniform):.3f}")
    assert adaptive.certified.mean() > 0.85
    assert share_with_fewer(adaptive, uniform) >= 0.75
    assert np.median(adaptive.comparisons) < 0.7 * np.median(uniform.comparisons)


@pytest.mark.slow
def test_real_tournaments(rng, best_extracts, tmp_path):
    """Groups of models from the arena's human votes and from the mean of QLoRA's per-prompt tournaments."""
    votes = np.genfromtxt(
        best_extracts.folder / "arena_ppr_votes.csv", delimiter=",", dtype=None, names=True, encoding="utf-8"
    )
    votes = votes[votes["judge"] == "human"]
    arena = np.full((20, 20), 0.5)
    for a, b, won, lost, ties in zip(
        *(votes[c] for c in ("model_a", "model_b", "wins_a", "wins_b", "ties")), strict=True
    ):
        arena[a, b] = (won + ties / 2) / (won + lost + ties)
        arena[b, a] = 1 - arena[a, b]
    qlora = ipodyn.data.load_pairs(convert.qlora(best_extracts.folder, tmp_path), both_orders=True).P.mean(axis=0)
    chosen = rng.permutation(list(itertools.combinations(range(20), 4)))[:500]
    groups = [arena[np.ix_(g, g)] for g in chosen] + [qlora[np.ix_(g, g)] for g in itertools.combinations(range(7), 4)]
    P = np.stack(groups)
    P = P[np.any(tops(P, "condorcet"), axis=1)]
    adaptive, uniform = both_rules(P, "condorcet", rng, delta=0.1, max_comparisons=100_000)
    for name, runs in (("adaptive", adaptive), ("uniform", uniform)):
        errors = violations(P, runs, "condorcet").sum()
        print(f"real {name}: {len(P)} groups, certified {runs.certified.mean():.3f}, errors {errors}")
        print("   comparisons, quartiles:", np.quantile(runs.comparisons, [0.25, 0.5, 0.75]))
        assert errors <= 0.1 * len(P)
    print(f"   fewer than uniform: {share_with_fewer(adaptive, uniform):.3f}")
    assert share_with_fewer(adaptive, uniform) >= 0.8
