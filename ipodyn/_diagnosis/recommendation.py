"""A setting at which nearly all prompts settle with margin, found with as few fixed points as that takes."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from .prompts import Facts, Prompts

SHARE = 0.95  # of the prompts that must settle with margin
RADIUS = 0.95  # a spectral radius below this leaves a margin to the boundary,
ENTROPY = 0.1  # and an entropy of this share of log K one to collapse
BISECTIONS = 10


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A setting at which 95 % of the prompts settle with margin, changing as little as possible.

    With margin is: a radius below 0.95 and an entropy of at least 10 % of log K.

    - `changed`: what differs from the user's setting, "nothing", "beta" or "alpha"; "infeasible" where neither alone
      suffices (then the numbers are the user's). - `share`: of the prompts that settle with margin there.
    """

    alpha: float
    beta: float
    lam: float
    changed: str
    share: float


def calm(facts: Facts, K: int) -> np.ndarray:
    """Which prompts settle with margin."""
    return np.asarray(facts.solved & (facts.radius < RADIUS) & (facts.entropy >= ENTROPY * math.log(K)))


def worst_first(facts: Facts) -> np.ndarray:
    """An order in which those that are, or soonest get, without margin come first: refusals are then found early."""
    with np.errstate(divide="ignore"):
        distance = np.maximum(np.log(facts.radius / RADIUS), -np.log(facts.entropy))
    return np.argsort(-np.where(facts.solved, distance, np.inf), kind="stable")


def _calm_share(prompts: Prompts, order: np.ndarray, **changed: float) -> float | None:
    """The share of all prompts that settle with margin, those not in `order` not among them; None if too few."""
    M, K = prompts.P.shape[:2]
    restless = M - order.size
    for first in range(0, order.size, prompts.batch):
        some = order[first : first + prompts.batch]
        restless += int((~calm(prompts.facts(some, **changed), K)).sum())
        if (M - restless) / M < SHARE:
            return None
    return (M - restless) / M


def _lower(name: str, value: float, share_at: Callable[[float], float | None]) -> tuple[float, float] | None:
    """The largest value below the user's at which enough prompts settle, and their share: down a ladder, bisection."""
    rungs = value * 2.0 ** (-np.arange(1, 81) / 8) if name == "beta" else np.linspace(value, 0, 33)[1:]
    above = value
    for rung in rungs.tolist():
        share = share_at(rung)
        if share is not None:
            break
        above = rung
    else:
        return None
    below = rung
    for _ in range(BISECTIONS):
        middle = (above + below) / 2
        found = share_at(middle)
        if found is None:
            above = middle
        else:
            below, share = middle, found
    return below, share


def recommend(prompts: Prompts, order: np.ndarray, own: float, alpha: float, beta: float, lam: float) -> Recommendation:
    """The user's own setting if it is safe with margin; else less beta; else less alpha.

    `order`: the prompts that can settle at some setting, in the order in which to look at them. `own`: the share that
    settles with margin at the user's setting.
    """
    M = len(prompts.P)
    if own >= SHARE:
        return Recommendation(alpha, beta, lam, "nothing", own)
    if order.size / M >= SHARE:
        if alpha < 1:
            found = _lower("beta", beta, lambda value: _calm_share(prompts, order, beta=value))
            if found is not None:
                return Recommendation(alpha, found[0], lam, "beta", found[1])
        if alpha > 0:
            found = _lower("alpha", alpha, lambda value: _calm_share(prompts, order, alpha=value))
            if found is not None:
                return Recommendation(found[0], beta, lam, "alpha", found[1])
    return Recommendation(alpha, beta, lam, "infeasible", own)
