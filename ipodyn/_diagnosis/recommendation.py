"""A setting at which nearly all prompts settle with margin, found with as few fixed points as that takes."""

import math
from collections.abc import Callable

import equinox as eqx
import numpy as np

from .._numerics.deprecation import renamed_attribute
from .._numerics.results import RESULTS
from .parts import EquilibriumSummary
from .prompts import Prompts
from .thresholds import CLOSE, ENOUGH, SPREAD

BISECTIONS = 10


class Recommendation(eqx.Module):
    """A setting at which 95 % of the prompts settle with margin, changing as little as possible.

    With margin is: a radius below 0.95 and an entropy of at least 10 % of log K.

    - `changed`: what differs from the user's setting, "nothing", "beta" or "alpha"; "infeasible" where neither alone
      suffices (then the numbers are the user's). - `fraction`: of the prompts that settle with margin there.
    - `result`: `RESULTS.successful`, or `RESULTS.infeasible`.
    """

    alpha: float
    beta: float
    lam: float
    changed: str = eqx.field(static=True)
    fraction: float

    share = renamed_attribute("share", "fraction", "0.3")

    @property
    def result(self) -> RESULTS:
        return RESULTS.infeasible if self.changed == "infeasible" else RESULTS.successful


def has_margin(equilibrium: EquilibriumSummary, K: int) -> np.ndarray:
    """Which prompts settle with margin."""
    return equilibrium.solved & (equilibrium.radius < CLOSE) & (equilibrium.entropy >= SPREAD * math.log(K))


def worst_first(equilibrium: EquilibriumSummary) -> np.ndarray:
    """An order in which those that are, or soonest get, without margin come first: refusals are then found early."""
    with np.errstate(divide="ignore"):
        distance = np.maximum(np.log(equilibrium.radius / CLOSE), -np.log(equilibrium.entropy))
    return np.argsort(-np.where(equilibrium.solved, distance, np.inf), kind="stable")


def _fraction_with_margin(prompts: Prompts, order: np.ndarray, **changed: float) -> float | None:
    """The fraction of all prompts that settle with margin, those not in `order` not among them; None if too few."""
    M, K = prompts.P.shape[:2]
    restless = M - order.size
    for first in range(0, order.size, prompts.batch):
        some = order[first : first + prompts.batch]
        restless += int((~has_margin(prompts.facts(some, **changed), K)).sum())
        if (M - restless) / M < ENOUGH:
            return None
    return (M - restless) / M


def _lower(name: str, value: float, fraction_at: Callable[[float], float | None]) -> tuple[float, float] | None:
    """The largest value below the user's at which enough prompts settle, and what fraction: a ladder, bisection."""
    rungs = value * 2.0 ** (-np.arange(1, 81) / 8) if name == "beta" else np.linspace(value, 0, 33)[1:]
    above = value
    for rung in rungs.tolist():
        fraction = fraction_at(rung)
        if fraction is not None:
            break
        above = rung
    else:
        return None
    below = rung
    for _ in range(BISECTIONS):
        middle = (above + below) / 2
        reached = fraction_at(middle)
        if reached is None:
            above = middle
        else:
            below, fraction = middle, reached
    return below, fraction


def recommend(prompts: Prompts, order: np.ndarray, own: float, alpha: float, beta: float, lam: float) -> Recommendation:
    """The user's own setting if it is safe with margin; else less beta; else less alpha.

    `order`: the prompts that can settle at some setting, in the order in which to look at them. `own`: the fraction
    that settles with margin at the user's setting.
    """
    M = len(prompts.P)
    if own >= ENOUGH:
        return Recommendation(alpha, beta, lam, "nothing", own)
    if order.size / M >= ENOUGH:
        if alpha < 1:
            setting = _lower("beta", beta, lambda value: _fraction_with_margin(prompts, order, beta=value))
            if setting is not None:
                return Recommendation(alpha, setting[0], lam, "beta", setting[1])
        if alpha > 0:
            setting = _lower("alpha", alpha, lambda value: _fraction_with_margin(prompts, order, alpha=value))
            if setting is not None:
                return Recommendation(setting[0], beta, lam, "alpha", setting[1])
    return Recommendation(alpha, beta, lam, "infeasible", own)
