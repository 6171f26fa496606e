"""Claims are judged by numbers: every judge on numbers made by hand, every claim wired to the right ones; trends."""

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("matplotlib")

from ipodyn import _reproduce as figures
from ipodyn._reproduce.trends import trend, way_there

CLAIMS = {claim.name: claim for claim in figures.CLAIMS}


def goes(up, down, lines_up, lines_down, *, lines=20, noisy=False):
    ends = {"first": 0.25, "last": 0.75, "from": 0.1, "to": 0.9, "lines": lines, "noisy": noisy}
    return {"up": up, "down": down, "lines_up": lines_up, "lines_down": lines_down, **ends}


def averaging(of_average, mean, exact):
    return {
        "variance_of_average": of_average,
        "mean_of_variances": mean,
        "exact_variance": exact,
        "error": 0.001,
        "realisations": 64,
    }


def certified(proved, oscillating, unresolved):
    return {"proved": proved, "proved_but_oscillating": oscillating, "proved_but_unresolved": unresolved}


def cell(fraction, matrices):
    return {"IPO/designed/condorcet": {"fraction": fraction, "matrices": matrices}}


def entropy(falls, rises, number=50):
    return {"entropy_falls": falls, "entropy_rises": rises, "with_optimum": number}


RISES, FALLS = "cyclic-alpha-ipo", "st-product-dpo"  # a claim that something grows, and one that something shrinks
JUDGED = [
    # Of the steps that move, nine in ten must go the claimed way, and no line the other way from end to end.
    (RISES, {"alpha": goes(0.95, 0.05, 1, 0)}, "agrees"),
    (RISES, {"alpha": goes(0.45, 0.05, 1, 0)}, "agrees"),
    (RISES, {"alpha": goes(0.95, 0.05, 0.95, 0.05)}, "agrees in part"),  # one line goes the other way
    (RISES, {"alpha": goes(0.8, 0.2, 1, 0)}, "agrees in part"),
    (RISES, {"alpha": goes(0.8, 0.2, 0.55, 0)}, "agrees in part"),
    (RISES, {"alpha": goes(0.8, 0.2, 0.5, 0)}, "disagrees"),  # half of the lines is not most
    (RISES, {"alpha": goes(0.05, 0.95, 0, 1)}, "disagrees"),
    (RISES, {"alpha": goes(0.0, 0.0, 0, 0)}, "inconclusive"),
    (FALLS, {"product": goes(0.05, 0.95, 0, 1)}, "agrees"),
    (FALLS, {"product": goes(0.05, 0.95, 0.05, 0.95)}, "agrees in part"),
    (FALLS, {"product": goes(0.95, 0.05, 1, 0)}, "disagrees"),
    # The average hides if it has less than half of the variance; the realisations keep it if they have more than half.
    ("averaging", averaging(0.01, 0.09, 0.1), "agrees"),
    ("averaging", averaging(0.06, 0.09, 0.1), "agrees in part"),  # not hidden
    ("averaging", averaging(0.01, 0.04, 0.1), "agrees in part"),  # not kept
    ("averaging", averaging(0.03, 0.04, 0.1), "disagrees"),
    ("averaging", averaging(0.0, 0.00009, 0.00009), "inconclusive"),
    # One counterexample refutes a proof; what is unresolved is none.
    ("contraction-st", certified(10, 0, 3), "agrees"),
    ("contraction-st", certified(10, 1, 0), "disagrees"),
    ("contraction-st", certified(0, 0, 0), "inconclusive"),
    ("designed-condorcet", cell(1.0, 500), "agrees"),
    ("designed-condorcet", cell(0.998, 500), "disagrees"),
    ("designed-condorcet", cell(None, 0), "inconclusive"),
    ("strict-order", {"strict": {"least_fraction_kept": 1.0, "matrices": 7}}, "agrees"),
    ("strict-order", {"strict": {"least_fraction_kept": 0.99, "matrices": 7}}, "disagrees"),
    ("strict-order", {"strict": {"matrices": 0}}, "inconclusive"),
    ("sharper-ipo-everywhere", entropy(0.7, 0.0), "agrees"),
    ("sharper-ipo-everywhere", entropy(0.6, 0.4), "agrees in part"),
    ("sharper-ipo-everywhere", entropy(0.5, 0.5), "disagrees"),
    ("sharper-ipo-everywhere", entropy(0.4, 0.6), "disagrees"),
    ("sharper-ipo-everywhere", entropy(0.0, 0.0, 0), "inconclusive"),
    ("sharper", {"condition_holds": 9, "rises_though_condition_holds": 0}, "agrees"),
    ("sharper", {"condition_holds": 9, "rises_though_condition_holds": 1}, "disagrees"),
    ("sharper", {"condition_holds": 0, "rises_though_condition_holds": 0}, "inconclusive"),
    ("premise", {"pairs_with_premise": 9, "of_them_shrunk": 0}, "agrees"),
    ("premise", {"pairs_with_premise": 9, "of_them_shrunk": 1}, "disagrees"),
    ("premise", {"pairs_with_premise": 0, "of_them_shrunk": 0}, "inconclusive"),
]


@pytest.mark.parametrize("case", range(len(JUDGED)), ids=lambda case: f"{JUDGED[case][0]}-{case}")
def test_verdicts_follow_the_numbers(case):
    name, findings, verdict = JUDGED[case]
    assert CLAIMS[name].judge(findings)[0] == verdict


# What stands next to the verdict: the numbers that it follows from.
SAID = [
    (RISES, {"alpha": goes(0.6, 0.2, 0.7, 0.1)}, "mean 0.25 at 0.1, 0.75 at 0.9; 75.0% of the steps that move go up, "
     "end to end 70% of 20 lines"),
    (FALLS, {"product": goes(0.6, 0.2, 0, 0, lines=1, noisy=True)}, "mean 0.25 at 0.1, 0.75 at 0.9; 25.0% of the steps "
     "that move go down (those beyond twice their sampling error)"),
    ("averaging", averaging(0.01, 0.09, 0.1), "variance 0.01 of the averaged policy, 0.09 ± 0.001 the mean over 64 "
     "realisations, 0.1 the exact loop"),
    ("contraction-st", certified(10, 1, 3), "1 of 10 loops that meet it oscillate, 3 are unresolved"),
    ("designed-condorcet", cell(0.998, 500), "holds for 99.80% of 500 matrices"),
    ("strict-order", {"strict": {"least_fraction_kept": 0.5, "matrices": 8}}, "kept for 50.00% of 8 matrices by the "
     "sampler that keeps it least"),
    ("sharper-ipo-everywhere", entropy(0.6, 0.4), "entropy falls on 60.0% of 50 matrices and rises on 40.0%"),
    ("sharper", {"condition_holds": 9, "rises_though_condition_holds": 1}, "entropy rises on 1 of 9 matrices that meet "
     "it"),
    ("premise", {"pairs_with_premise": 9, "of_them_shrunk": 1}, "the gap shrinks for 1 of 9 pairs that meet the "
     "premise"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(SAID)), ids=lambda case: SAID[case][0])
def test_the_numbers_stand_next_to_the_verdict(case):
    name, findings, words = SAID[case]
    assert CLAIMS[name].judge(findings)[1] == words


def everything(way):
    """What all figures would find if all that the paper says held (+1), or the opposite of it (-1)."""
    holds = way > 0
    fractions = {axiom: {"fraction": float(holds), "matrices": 9} for axiom in ("condorcet", "smith")}
    found = {
        "averaging-cyclic-ipo-finite": averaging(0.01, 0.1, 0.1) if holds else averaging(0.1, 0.01, 0.1),
        "ranking-audit": {f"IPO/designed/{axiom}": cell for axiom, cell in fractions.items()}
        | {"strict": {"least_fraction_kept": float(holds), "matrices": 9}},
    }
    sampled = {"condition_holds": 9, "rises_though_condition_holds": 0 if holds else 9}
    sampled |= {"pairs_with_premise": 9, "of_them_shrunk": 0 if holds else 9}
    sampled |= entropy(1.0, 0.0) if holds else entropy(0.0, 1.0)
    for variant in ("ipo", "dpo"):
        found[f"concentration-st-{variant}"] = sampled
    for structure, sign in (("cyclic", 1), ("st", -1)):
        # On cyclic preferences the variance grows with every parameter, on strongly transitive ones the entropy falls.
        trends = goes(1.0, 0.0, 1.0, 0.0) if sign * way > 0 else goes(0.0, 1.0, 0.0, 1.0)
        for variant in ("ipo", "dpo", "dpo-wide", "ipo-finite"):
            every = {name: trends for name in ("alpha", "product")}
            found[f"map-{structure}-{variant}"] = every | certified(9, 0 if holds else 9, 0)
        for parameter in ("alpha", "beta", "lam"):
            for variant in ("ipo", "dpo"):
                found[f"series-{parameter}-{structure}-{variant}"] = {parameter: trends}
    return found


def test_every_claim_is_wired_to_its_numbers():
    assert {item.verdict for item in figures.judge_claims(everything(+1))} == {"agrees"}
    against = {item.claim.name: item.verdict for item in figures.judge_claims(everything(-1))}
    assert set(against.values()) == {"disagrees"} and len(against) == len(CLAIMS)
    assert {item.verdict for item in figures.judge_claims({})} == {"not run"}


def test_what_a_claim_says_is_what_its_judge_asks():
    """The words name the parameter, the way and the quantity that stand in the name of the claim."""
    symbols = {"alpha": "larger α", "product": "larger βλ", "beta": "larger β alone", "lam": "larger λ alone"}
    for name, claim in CLAIMS.items():
        structure, _, rest = name.partition("-")
        parameter = rest.split("-")[0]
        if structure in ("cyclic", "st") and parameter in symbols:
            way = "more time-averaged variance" if structure == "cyclic" else "less final entropy"
            assert symbols[parameter] in claim.says and way in claim.says
            assert f"-{structure}-" in claim.figure and ("MRS-DPO" in claim.says) == ("dpo" in name)


def test_trend_counts_steps_and_lines():
    found = trend(np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 0.0]]), 0, np.arange(3.0))
    # Steps: +2, -1 and 0, -1; lines: +1 and -1.
    assert (found["up"], found["down"], found["lines_up"], found["lines_down"]) == (0.25, 0.5, 0.5, 0.5)
    assert (found["first"], found["last"], found["from"], found["to"]) == (0.5, 0.5, 0.0, 2.0)
    assert found["lines"] == 2 and not found["noisy"]


def test_a_trend_runs_along_the_axis_that_is_named():
    values = np.arange(6.0).reshape(2, 3)
    assert trend(values, 1, np.arange(3.0))["last"] == 3.5  # the mean of the last column
    samples = np.stack([values, values + 10])  # noise without any effect on differences
    found = trend(samples.mean(axis=0), 1, np.arange(3.0), samples=samples)
    assert found["lines"] == 2 and found["up"] == found["lines_up"] == 1


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_steps_within_rounding_of_the_largest_value_stand(unit):
    """A hundred-thousandth of the largest value, whatever the unit, and the floor where that is more."""
    for rest, moves in ((0.5e-5, 0.5), (1.5e-5, 1.0)):
        assert trend(unit * np.array([[0.0], [1.0 - rest], [1.0]]), 0, np.arange(3.0))["up"] == moves
        assert trend(unit * np.array([[1.0], [1.0 - rest]]), 0, np.arange(2.0))["lines_down"] == (moves == 1)
    assert trend(np.array([[0.0], [0.1], [0.3]]), 0, np.arange(3.0), floor=0.15)["up"] == 0.5
    assert trend(np.array([[0.0], [0.1], [0.3]]), 0, np.arange(3.0), floor=0.35)["lines_up"] == 0


def test_what_is_not_there_counts_neither_way():
    found = trend(np.array([[0.0, np.nan], [1.0, 1.0], [2.0, 0.0]]), 0, np.arange(3.0))
    # Three steps are known, +1 +1 -1, and one line.
    np.testing.assert_allclose([found["up"], found["down"]], [2 / 3, 1 / 3])
    assert (found["lines_up"], found["lines_down"], found["first"], found["last"]) == (1.0, 0.0, 0.0, 1.0)


def test_noise_is_measured_by_paired_differences():
    """Four samples whose step is d - 1 or d + 1: its standard error is sqrt(4 / 3) / sqrt(4), twice that 1.155."""
    for step, resolved in ((1.1, 0.0), (1.2, 1.0)):
        level = np.array([0.0, 50.0, 0.0, -50.0])  # common to both ends: no part of the error
        samples = np.stack([level, level + step + np.array([-1, 1, -1, 1])], axis=1)[:, :, None]
        found = trend(samples.mean(axis=0), 0, np.arange(2.0), samples=samples)
        assert found["up"] == found["lines_up"] == resolved and found["noisy"]
    # Steps that are lost in noise may add up to an end that is not: +1.1 with the noise of the first, then +1.1 with
    # its opposite.
    wobble = np.array([-1, 1, -1, 1.0])
    samples = np.stack([0 * wobble, 1.1 + wobble, 2.2 + 0 * wobble], axis=1)[:, :, None]
    found = trend(samples.mean(axis=0), 0, np.arange(3.0), samples=samples)
    assert (found["up"], found["lines_up"]) == (0.0, 1.0)


def test_a_trend_in_noise_counts_only_what_is_beyond_it(rng):
    """Steps of 1 under noise of 1: unresolved with 4 samples of one line, resolved with 400."""
    at = np.arange(11.0)
    for number, resolved in ((4, False), (400, True)):
        samples = at[None, :, None] + rng.normal(size=(number, 11, 50))
        found = trend(samples.mean(axis=0), 0, at, samples=samples)
        assert found["lines_up"] == 1 and found["lines_down"] == 0 and found["down"] < 0.03
        assert (found["up"] > 0.99) == resolved and found["noisy"]
    still = rng.normal(size=(400, 11, 50))
    # Of steps that are noise alone, twice the standard error lets through 4.6 %, half of them down.
    assert trend(still.mean(axis=0), 0, at, samples=still)["down"] < 0.05
    assert trend(1e-4 * at[:, None], 0, at, floor=2e-4)["up"] == 0


def test_the_way_from_the_start_explains_as_much_variance_as_one_round_elsewhere():
    """One round at one vertex and 199 at another: the largest variance that a single round can make."""
    path = np.zeros((200, 3))
    path[0, 0] = path[1:, 1] = 1
    variance = path.var(axis=0).sum()
    assert 0.99 * way_there("variance", 200) < variance <= way_there("variance", 200)
    assert way_there("entropy", 200) == 0  # of the last policy alone
