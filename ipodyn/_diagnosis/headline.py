"""The verdict on a whole loop: one sentence in plain words, and the counts of prompts that it rests on."""

import math

import equinox as eqx
import numpy as np

from .diagnosis import Diagnosis
from .thresholds import COLLAPSE

TURNS, ONE_ANSWER, SETTLES, OPEN = "turns", "one answer", "settles", "not known"
KINDS = (TURNS, ONE_ANSWER, SETTLES, OPEN)  # every prompt is of exactly one, the first that fits


class Kinds(eqx.Module):
    """Prompts by kind; a prompt with several matrices (groups of its responses) is as bad as its worst.

    - `kind` (N,): one of `KINDS` for each prompt, by its place in `prompts` (N,). - `groups`: matrices in all.
    """

    kind: np.ndarray
    prompts: np.ndarray
    groups: int = eqx.field(static=True)

    def number(self, kind: str) -> int:
        return int((self.kind == kind).sum())

    def __len__(self) -> int:
        return self.kind.size


def kinds(found: Diagnosis, prompts: np.ndarray) -> Kinds:
    """Every prompt by what its worst group does: never settles, ends on one answer, or settles."""
    equilibrium = found.equilibrium
    by_group = np.select(
        [equilibrium.unstable, equilibrium.collapses, equilibrium.solved], [0, 1, 2], default=3
    )  # places in KINDS
    names, place = np.unique(prompts, return_inverse=True)
    first = np.full(names.size, len(prompts))
    np.minimum.at(first, place, np.arange(len(prompts)))
    worst = np.full(names.size, 3)
    np.minimum.at(worst, place, by_group)
    unknown = np.zeros(names.size, bool)
    np.logical_or.at(unknown, place, by_group == 3)
    worst = np.where(unknown & (worst == 2), 3, worst)  # settled groups say nothing of one that is not known
    order = np.argsort(first)
    return Kinds(np.array(KINDS)[worst[order]], names[order], len(prompts))


def headline(found: Diagnosis, prompts: np.ndarray, *, rounds: int | None = None) -> str:
    """One or two sentences: does this loop settle, for how many prompts, and what mends it.

    - `prompts` (M,): the prompt of each matrix. - `rounds`: 1 where the setting is one round and no loop.
    """
    counted = kinds(found, prompts)
    N, turning, single = len(counted), counted.number(TURNS), counted.number(ONE_ANSWER)
    ends = f"{single:,} of {N:,} prompts" if single else "no prompt"
    if found.alpha == 1:
        return _no_aim(found, prompts)
    if found.lam == 0 or rounds == 1:
        why = "one round is no loop" if rounds == 1 else "nothing is sampled from the model"
        return f"Cannot turn: {why}. It ends on one answer in {ends}."
    if found.equilibrium.policy.shape[-1] == 2 and not turning:
        return f"Cannot turn: two answers a prompt hold no circle. It ends on one answer in {ends}."
    if counted.number(OPEN):
        return f"Not known: no aim could be computed for {counted.number(OPEN):,} of {N:,} prompts" + (
            f", and {turning:,} never settle." if turning else "."
        )
    if turning:
        both = f", and {single:,} end on a single answer" if single else ""
        return f"Not safe: {turning:,} of {N:,} prompts never settle{both}. {_mend(found)}"
    interval = _turning_interval(found, prompts)
    if interval is not None:
        low, high = interval
        return f"Open: with these counts {low:,} to {high:,} of {N:,} prompts turn (90 %)."
    if single:
        return f"Settles, but on one answer in {single:,} of {N:,} prompts. {_mend(found)}"
    proved = int(all_of(found.certified, prompts).sum())
    if proved == N:
        return f"Safe: all {N:,} prompts settle, from any start (proven)."
    if found.objective != "IPO":
        return f"Safe near its aim: all {N:,} prompts settle from nearby; no proof from far is known for this loss."
    return f"Safe near its aim: all {N:,} prompts settle; proven from any start for {proved:,}."


def all_of(flags: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """For each prompt, whether all its groups have the flag."""
    names, place = np.unique(prompts, return_inverse=True)
    all_of = np.ones(names.size, bool)
    np.logical_and.at(all_of, place, np.asarray(flags, bool))
    return all_of


def _mend(found: Diagnosis) -> str:
    """What to change, with what is achieved there."""
    best = found.recommendation
    if best.changed == "nothing":
        return "No change is needed for 95 % of them to settle with margin."
    if best.changed == "infeasible":
        return "Neither a smaller beta nor a smaller alpha alone mends it."
    setting = beta_change(found) if best.changed == "beta" else f"alpha {best.alpha:.4g} instead of {found.alpha:.4g}"
    return f"{setting} mends it for {100 * best.fraction:.0f} %."


def beta_change(found: Diagnosis) -> str:
    """`TRL beta 60 instead of 7.5` where that is known, else in beta itself."""
    scale, best = found.scale, found.recommendation.beta
    if scale is None:
        return f"Beta {best:.4g} instead of {found.beta:.4g}"
    return f"TRL beta {scale / best:.4g} instead of {scale / found.beta:.4g}"


def _turning_interval(found: Diagnosis, prompts: np.ndarray) -> tuple[int, int] | None:
    """How many prompts turn, 90 % of what the counts allow, where that is not none; None without counts."""
    if not found.uncertainty.counted:
        return None
    # Groups of a prompt share comparisons; the likeliest of them to turn stands for it.
    names, place = np.unique(prompts, return_inverse=True)
    turns = np.zeros(names.size)
    np.maximum.at(turns, place, 1 - np.asarray(found.uncertainty.stable_probability))
    mean, spread = float(turns.sum()), math.sqrt(float(np.sum(turns * (1 - turns))))
    low, high = max(math.floor(mean - 1.645 * spread), 0), min(math.ceil(mean + 1.645 * spread), names.size)
    return (low, high) if mean >= 0.5 else None


def _no_aim(found: Diagnosis, prompts: np.ndarray) -> str:
    """alpha = 1: nothing anchors the loop, so what counts is what the next rounds do."""
    single = {
        int(n): int((~all_of(~few, prompts)).sum())
        for n, few in zip(found.forecast.rounds, _single(found), strict=True)
    }
    N = np.unique(prompts).size
    last = max(single)
    middle = max((n for n in single if n <= last / 2), default=last)
    soon = f"After {middle} rounds {single[middle]:,} of {N:,} prompts have one answer left"
    then = f", after {last} rounds {single[last]:,}" if last > middle else ""
    return f"No aim: the reference is the last checkpoint. {soon}{then}."


def _single(found: Diagnosis) -> np.ndarray:
    """(rounds, M) which prompts have one answer left after so many rounds."""
    return np.asarray(found.forecast.entropy) < COLLAPSE * math.log(found.equilibrium.policy.shape[-1])
