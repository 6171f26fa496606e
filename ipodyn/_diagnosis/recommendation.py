"""A setting at which nearly all prompts settle with margin, found with as few fixed points as that takes."""

import math
from collections.abc import Callable

import equinox as eqx
import numpy as np

from .._numerics.deprecation import renamed_attribute
from .._numerics.results import RESULTS
from .parts import EquilibriumSummary
from .prompts import Prompts
from .thresholds import ENOUGH, SPREAD, close_from

BISECTIONS = 10
PRINTABLE = 60  # values tried on the way down to one that is as safe as it is short


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
    calm = equilibrium.radius < close_from(equilibrium.alpha)
    return equilibrium.solved & calm & (equilibrium.entropy >= SPREAD * math.log(K))


def worst_first(equilibrium: EquilibriumSummary) -> np.ndarray:
    """An order in which those that are, or soonest get, without margin come first: refusals are then found early."""
    with np.errstate(divide="ignore"):
        distance = np.maximum(np.log(equilibrium.radius / close_from(equilibrium.alpha)), -np.log(equilibrium.entropy))
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


def _lower(name: str, value: float, fraction_at: Callable[[float], float | None]) -> float | None:
    """The largest value below the user's at which enough prompts settle: down a ladder, bisection."""
    rungs = value * 2.0 ** (-np.arange(1, 81) / 8) if name == "beta" else np.linspace(value, 0, 33)[1:]
    above = value
    for rung in rungs.tolist():
        if fraction_at(rung) is not None:
            break
        above = rung
    else:
        return None
    below = rung
    for _ in range(BISECTIONS):
        middle = (above + below) / 2
        if fraction_at(middle) is None:
            above = middle
        else:
            below = middle
    return below


def _rounded(name: str, value: float, scale: float | None) -> float:
    """A value at most the given one, as it is printed: two digits of TRL's beta, of beta, or of 1 - alpha."""
    if name == "alpha":
        return max(round(1 - _up(1 - value), 12), 0.0)
    return -_up(-value) if scale is None else scale / _up(scale / value)


def _up(value: float) -> float:
    """The next number of two significant digits that is no smaller (of a negative one, no larger in size)."""
    if value == 0:
        return 0.0
    size = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    digits = math.ceil(value / size - 1e-9)
    return float(f"{digits * size:.2g}")


def _printable(
    name: str, value: float, scale: float | None, fraction_at: Callable[[float], float | None]
) -> tuple[float, float] | None:
    """The largest value that is safe as it is printed, and the fraction there: what is said is what was tried."""
    for _ in range(PRINTABLE):
        value = _rounded(name, value, scale)
        fraction = fraction_at(value)
        if fraction is not None:
            return value, fraction
        value = value * 0.97 if name == "beta" else value - 0.01
        if value <= 0:
            return None
    return None


def recommend(
    prompts: Prompts, order: np.ndarray, own: float, scale: float | None, alpha: float, beta: float, lam: float
) -> Recommendation:
    """The user's own setting if it is safe with margin; else less beta; else less alpha.

    `order`: the prompts that can settle at some setting, in the order in which to look at them. `own`: the fraction
    that settles with margin at the user's setting. `scale`: beta times TRL's beta, or None.
    """
    M = len(prompts.P)
    if own >= ENOUGH:
        return Recommendation(alpha, beta, lam, "nothing", own)
    point = {"alpha": alpha, "beta": beta}
    possible = [name for name, there in (("beta", alpha < 1), ("alpha", alpha > 0)) if there]
    for name in possible if order.size / M >= ENOUGH else []:

        def fraction_at(value: float, name: str = name) -> float | None:
            return _fraction_with_margin(prompts, order, **{name: value})

        lower = _lower(name, point[name], fraction_at)
        setting = None if lower is None else _printable(name, lower, scale, fraction_at)
        if setting is not None:
            return Recommendation(**{**point, name: setting[0]}, lam=lam, changed=name, fraction=setting[1])
    return Recommendation(alpha, beta, lam, "infeasible", own)
