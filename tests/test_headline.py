"""The sentence that a user reads first: by prompts whose fate is known from theory."""

import math
import re

import numpy as np
import pytest
from diagnosed import ALPHA, BETA, LAM, cycle_of_radius, favourite_of_entropy, settled

import ipodyn
from ipodyn._diagnosis.headline import KINDS, ONE_ANSWER, OPEN, SETTLES, TURNS, headline, kinds


def diagnosis(prompts, **options):
    return ipodyn.diagnose(np.stack(prompts), **{"alpha": ALPHA, "beta": BETA, "lam": LAM, **options})


def said(prompts, names=None, rounds=None, **options):
    return headline(diagnosis(prompts, **options), np.arange(len(prompts)) if names is None else names, rounds=rounds)


TURNING, CALM, SINGLE = cycle_of_radius(1.2), cycle_of_radius(0.93), favourite_of_entropy(0.001)


def test_some_turn():
    line = said([TURNING, CALM, CALM])
    assert line.startswith("Not safe: 1 of 3 prompts never settle. Beta 1.9 instead of 5")
    assert " instead of 5 mends it for 100 %." in line
    assert "TRL beta 32 instead of 12 mends" in said([TURNING, CALM, CALM], tokens=60)  # 60 / 1.916, and up


def test_some_turn_and_some_end_on_one_answer():
    line = said([TURNING, SINGLE, SINGLE, CALM])
    assert line.startswith("Not safe: 1 of 4 prompts never settle, and 2 end on a single answer. Beta ")


def test_one_answer_is_not_called_unsafe():
    assert said([SINGLE, CALM]).startswith("Settles, but on one answer in 1 of 2 prompts. Beta ")


def test_safe_and_how_far():
    """With b = beta lam ||A|| / 2, ||A|| = a sqrt(3), alpha^2 + b^2 < 1 proves convergence: a < 0.126 here."""
    assert math.sqrt(1 - ALPHA**2) / (BETA * LAM * math.sqrt(3) / 2) == pytest.approx(0.1258, abs=1e-4)
    assert said([settled(0.1, 1)[0]] * 3) == "Safe: all 3 prompts settle, from any start (proven)."
    line = said([settled(0.1, 1)[0], cycle_of_radius(0.949)])
    assert line == "Safe near its aim: all 2 prompts settle; proven from any start for 1."


def test_no_proof_is_claimed_for_dpo():
    line = said([settled(0.01, 1)[0]] * 2, objective=ipodyn.DPO())
    assert line.startswith("Safe near its aim: all 2 prompts settle from nearby") and "proven" not in line


def test_what_cannot_turn():
    assert said([TURNING, SINGLE], lam=0.0).startswith("Cannot turn: nothing is sampled from the model.")
    one = said([TURNING, TURNING], alpha=0.0, lam=0.0, rounds=1)
    assert one == "Cannot turn: one round is no loop. It ends on one answer in no prompt."
    pair = np.array([[0.5, 1.0], [0.0, 0.5]])
    line = said([pair, np.full((2, 2), 0.5)], beta=50.0)
    assert line == "Cannot turn: two answers a prompt hold no circle. It ends on one answer in 1 of 2 prompts."


def test_without_an_anchor_the_next_rounds_count():
    """alpha = lam = 1 is Hedge: after n rounds pi ~ exp(n beta P pi), here by NumPy; one answer by 5 % of log 3."""
    P = np.stack([SINGLE, settled(0.2, 1)[0], favourite_of_entropy(0.5)])
    single = {}
    policy = np.full((3, 3), 1 / 3)
    for n in range(1, 11):
        weights = policy * np.exp(6 * np.einsum("mij,mj->mi", P, policy))
        policy = weights / weights.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.sum(np.where(policy > 0, policy * np.log(policy), 0), 1)
        single[n] = int((entropy < 0.05 * math.log(3)).sum())
    line = said(list(P), alpha=1.0, beta=6.0, lam=1.0)
    expected = f"After 5 rounds {single[5]} of 3 prompts have one answer left, after 10 rounds {single[10]}."
    assert line == f"No aim: the reference is the last checkpoint. {expected}" and single[10] > 0
    found = diagnosis(list(P), alpha=1.0, beta=6.0, lam=1.0, rounds=7)
    assert found.forecast.rounds.tolist() == [1, 2, 3, 5, 7]
    with pytest.raises(ValueError, match="`rounds` is 0"):
        diagnosis([CALM], rounds=0)


def test_counts_may_leave_it_open():
    line = said([cycle_of_radius(0.98)] * 8, counts=np.full((8, 3, 3), 8))
    words = re.fullmatch(r"Open: with these counts (\d) to (\d) of 8 prompts turn \(90 %\)\.", line)
    assert words and int(words[1]) < int(words[2])
    assert not said([settled(0.05, 1)[0]] * 8, counts=np.full((8, 3, 3), 4000)).startswith("Open")


def test_a_prompt_without_a_finite_aim_is_not_known():
    certain = np.array([[0.5, 1, 1], [0, 0.5, 0.7], [0, 0.3, 0.5]])
    line = said([certain, settled(0.05, 1)[0]], alpha=0.5, beta=1.0, lam=0.5, objective=ipodyn.DPO())
    assert line == "Not known: no aim could be computed for 1 of 2 prompts."


def test_prompts_are_counted_not_matrices():
    """A prompt is as bad as its worst group, listed once, in the order of the data; kinds add up to all prompts."""
    groups = [CALM, TURNING, SINGLE, CALM, CALM, CALM]
    names = np.array(["b", "b", "b", "a", "c", "c"])
    counted = kinds(diagnosis(groups), names)
    assert counted.prompts.tolist() == ["b", "a", "c"] and counted.kind.tolist() == [TURNS, SETTLES, SETTLES]
    assert len(counted) == 3 == sum(counted.number(kind) for kind in KINDS) and counted.groups == 6
    assert said(groups, names).startswith("Not safe: 1 of 3 prompts never settle. ")
    counted = kinds(diagnosis([CALM, SINGLE]), np.array(["a", "a"]))
    assert counted.kind.tolist() == [ONE_ANSWER] and counted.number(OPEN) == 0


@pytest.mark.parametrize("options", [{}, {"tokens": 60}, {"lam": 0.0}, {"alpha": 1.0, "lam": 1.0}])
def test_it_is_short(options):
    """At most two sentences and thirty words, no number in exponent form, no sign for infinity."""
    for prompts in ([TURNING, SINGLE, CALM], [CALM] * 3, [SINGLE] * 3):
        line = said(prompts, **options)
        assert len(line.split()) <= 30 and line.count(". ") <= 1 and line.endswith(".")
        assert "e-" not in line and "∞" not in line and "nan" not in line
