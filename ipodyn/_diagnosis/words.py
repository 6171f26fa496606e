"""Verdicts, reasons and advice in words, for the terminal, the tables and the page."""

import math
from typing import SupportsFloat

import numpy as np

from .diagnosis import Diagnosis
from .prompts import LARGEST
from .thresholds import ENOUGH, SPREAD, close_from
from .verdicts import MEANING, VERDICTS, verdicts


def margins(diagnosis: Diagnosis) -> str:
    """What settling with margin asks for in this loop."""
    alpha = diagnosis.recommendation.alpha
    return f"radius below {float(close_from(alpha)):.4g}, entropy above {100 * SPREAD:g} % of log K"


def trainer_beta(diagnosis: Diagnosis, beta: float) -> str:
    """What TRL calls a beta of this loop."""
    if diagnosis.scale is None:
        return f"TRL's {1 / beta:.4g} times the tokens of a completion"
    return f"TRL's {diagnosis.scale / beta:.4g}"


def advice(diagnosis: Diagnosis) -> list[str]:
    """The safe region, and what to change, in sentences."""
    lines = []
    best, asked = diagnosis.recommendation, margins(diagnosis)
    own, lower = (f"{beta:.4g} ({trainer_beta(diagnosis, beta)})" for beta in (diagnosis.beta, best.beta))
    where = f"alpha {diagnosis.alpha:g}, beta {own}, lam {diagnosis.lam:g}"
    fraction = percent(best.fraction)
    if best.changed == "nothing":
        lines.append(f"Keep the setting: at {where} {fraction} of the prompts settle with margin ({asked}).")
    elif best.changed == "beta":
        lines.append(f"Lower beta from {own} to {lower}: then {fraction} of the prompts settle with margin ({asked}).")
    elif best.changed == "alpha":
        lines.append(
            f"Lower alpha from {diagnosis.alpha:g} to {best.alpha:.4g}, so that the reference follows the policy less: "
            f"then {fraction} of the prompts settle with margin ({asked})."
        )
    else:
        lines.append(
            f"Neither a smaller beta nor a smaller alpha alone lets {100 * ENOUGH:g} % of the prompts settle with "
            "margin; lower both, and look at the prompts at risk."
        )
    for name in ("beta", "alpha", "lam"):
        end, every, most = LARGEST[name], diagnosis.limits.safe(name, 1.0), diagnosis.limits.safe(name, ENOUGH)
        others = " and ".join(other for other in ("alpha", "beta", "lam") if other != name)
        lines.append(
            f"Safe region, with {others} as they are: all prompts stable up to {name} {up_to(every, end)}, "
            f"{100 * ENOUGH:g} % up to {up_to(most, end)}."
        )
    return lines


def up_to(value: float, end: float) -> str:
    if value == 0:
        return "0 (nowhere)"
    return f"{end:g} (all the way)" if np.isinf(value) else f"{value:.4g}"


def uncertainty(diagnosis: Diagnosis) -> list[str]:
    """How far the counts, where there are any, settle the verdicts."""
    if not diagnosis.uncertainty.counted:
        return ["The data hold no counts of comparisons, so P is taken as it is."]
    p = diagnosis.uncertainty.stable_probability
    spread = float(np.sqrt(np.sum(p * (1 - p)))) / p.size
    doubtful = int(((p > 0.05) & (p < 0.95)).sum())
    return [
        f"From the counts, with P drawn again from its posterior: {percent(float(p.mean()))} of the prompts are "
        f"expected to be stable, give or take {percent(spread)}.",
        f"For {doubtful:,} of {p.size:,} prompts the counts leave it open (stable in between 5 % and 95 % of the "
        f"draws); {int((p <= 0.05).sum()):,} are unstable and {int((p >= 0.95).sum()):,} stable in nearly all draws.",
    ]


def number(value: SupportsFloat, digits: int = 3) -> str:
    """A number in few digits; a sign of infinity, and a dash for what does not exist."""
    value = float(value)
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}g}"


def percent(fraction: SupportsFloat) -> str:
    fraction = float(fraction)
    return "–" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def cycle_words(diagnosis: Diagnosis, responses: np.ndarray, index: int) -> str:
    """`a → b → c → a`, the way round in which the policy is driven, by the names of the responses; "none"."""
    if not (diagnosis.turning[index] and diagnosis.equilibrium.cycle_mass[index] > 0):
        return "none"
    names = [str(responses[index, place]) for place in diagnosis.equilibrium.cycle[index]]
    return " → ".join([*names, names[0]])


def reasons(diagnosis: Diagnosis, responses: np.ndarray, which: np.ndarray) -> list[str]:
    """Why each of some prompts is at risk, in a few words; empty where it is not."""
    equilibrium = diagnosis.equilibrium
    words = verdicts(equilibrium, diagnosis.alpha)

    def reason(index: int) -> str:
        match words[index]:
            case "unstable" | "close" if diagnosis.turning[index]:
                cycle = cycle_words(diagnosis, responses, index)
                return f"cycle {cycle}, with {percent(float(equilibrium.cycle_mass[index]))} of the policy"
            case "close":
                return "the reference follows slowly"
            case "collapsed":
                top = int(np.argmax(equilibrium.policy[index]))
                return f"{responses[index, top]} takes {percent(float(equilibrium.policy[index, top]))}"
            case "unknown":
                return "not solved"
            case "unanchored":
                return "alpha is 1"
        return ""

    return [reason(index) for index in which.tolist()]


def verdict_rows(diagnosis: Diagnosis) -> list[list[str]]:
    """Verdict, number of prompts, their fraction and what it means, of the verdicts that occur."""
    words = verdicts(diagnosis.equilibrium, diagnosis.alpha)
    counts = {verdict: int((words == verdict).sum()) for verdict in VERDICTS}
    return [
        [verdict, f"{count:,}", percent(count / len(diagnosis)), MEANING[verdict]]
        for verdict, count in counts.items()
        if count
    ]


def risk_rows(
    diagnosis: Diagnosis, prompts: np.ndarray, responses: np.ndarray, most: int
) -> tuple[list[str], list[list[str]]]:
    """What is said of the prompts most at risk: the names of its columns, and a row for each."""
    which = diagnosis.riskiest()
    _, first = np.unique(prompts[which], return_index=True)
    which = which[np.sort(first)][:most]  # of each prompt, its worst group
    equilibrium, turning = diagnosis.equilibrium, diagnosis.turning
    words = verdicts(equilibrium, diagnosis.alpha)
    whys = reasons(diagnosis, responses, which)
    labels = ["prompt", "verdict", "radius", "period", "critical beta", "entropy", "drift", "why"]
    rows = [
        [
            str(prompts[index]),
            str(words[index]),
            number(equilibrium.radius[index], 4),
            number(equilibrium.period[index]) if turning[index] else "–",
            number(diagnosis.limits.beta[index]),
            number(equilibrium.entropy[index]),
            number(equilibrium.drift[index]),
            why,
        ]
        for index, why in zip(which.tolist(), whys, strict=True)
    ]
    if diagnosis.uncertainty.counted:
        labels.append("stable draws")
        for row, index in zip(rows, which.tolist(), strict=True):
            row.append(percent(diagnosis.uncertainty.stable_probability[index]))
    return labels, rows
