"""Verdicts, reasons and advice in words, for the terminal, the tables and the page."""

from typing import TYPE_CHECKING

import numpy as np

from .diagnosis import Diagnosis

if TYPE_CHECKING:
    pass
import math
from typing import SupportsFloat


def advice(found: Diagnosis) -> list[str]:
    """The safe region, and what to change, in sentences."""
    lines = []
    where = f"alpha {found.alpha:g}, beta {found.beta:.4g} (TRL's {1 / found.beta:.4g}), lam {found.lam:g}"
    best = found.recommendation
    share = percent(best.share)
    if best.changed == "nothing":
        lines.append(f"Keep the setting: at {where} {share} of the prompts settle with margin (radius below 0.95).")
    elif best.changed == "beta":
        lines.append(
            f"Lower beta from {found.beta:.4g} to {best.beta:.4g}, that is, raise TRL's beta from {1 / found.beta:.4g} "
            f"to {1 / best.beta:.4g}: then {share} of the prompts settle with margin (radius below 0.95, entropy above "
            "10 % of log K)."
        )
    elif best.changed == "alpha":
        lines.append(
            f"Lower alpha from {found.alpha:g} to {best.alpha:.4g}, so that the reference follows the policy less: "
            f"then {share} of the prompts settle with margin (radius below 0.95, entropy above 10 % of log K)."
        )
    else:
        lines.append(
            "Neither a smaller beta nor a smaller alpha alone lets 95 % of the prompts settle with margin; lower both, "
            "and look at the prompts at risk."
        )
    for name, edge, end in (
        ("beta", found.safe_beta, 1e4),
        ("alpha", found.safe_alpha, 0.9999),
        ("lam", found.safe_lam, 1.0),
    ):
        every, most = edge(1.0), edge(0.95)
        others = " and ".join(other for other in ("alpha", "beta", "lam") if other != name)
        lines.append(
            f"Safe region, with {others} as they are: all prompts stable up to {name} {up_to(every, end)}, 95 % up to "
            f"{up_to(most, end)}."
        )
    return lines


def up_to(value: float, end: float) -> str:
    if value == 0:
        return "0 (nowhere)"
    return f"{end:g} (all the way)" if np.isinf(value) else f"{value:.4g}"


def uncertainty(found: Diagnosis) -> list[str]:
    """How far the counts, where there are any, settle the verdicts."""
    if not found.counted:
        return ["The data hold no counts of comparisons, so P is taken as it is."]
    p = found.stable_probability
    spread = float(np.sqrt(np.sum(p * (1 - p)))) / p.size
    doubtful = int(((p > 0.05) & (p < 0.95)).sum())
    return [
        f"From the counts, with P drawn again from its posterior: {percent(float(p.mean()))} of the prompts are "
        f"expected to be stable, give or take {percent(spread)}.",
        f"For {doubtful:,} of {p.size:,} prompts the counts leave it open (stable in between 5 % and 95 % of the "
        f"draws); {int((p <= 0.05).sum()):,} are unstable and {int((p >= 0.95).sum()):,} stable in nearly all draws.",
    ]


MEANING = {
    "calm": "settles, and small disturbances die out",
    "collapsed": "settles, but nearly all probability is on one response",
    "close": "settles slowly: the spectral radius is 0.95 or more",
    "unstable": "does not settle: small disturbances grow and turn",
    "unknown": "no fixed point could be certified",
    "unanchored": "alpha = 1: nothing anchors the loop, so it has no fixed point inside",
}


def number(value: SupportsFloat, digits: int = 3) -> str:
    """A number in few digits; a sign of infinity, and a dash for what does not exist."""
    value = float(value)
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}g}"


def percent(share: SupportsFloat) -> str:
    share = float(share)
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def cycle_words(diagnosis: Diagnosis, responses: np.ndarray, index: int) -> str:
    """`a → b → c → a`, the way round in which the margins add up, by the names of the responses."""
    if not diagnosis.curl[index] > 0:
        return "none"
    names = [str(responses[index, place]) for place in diagnosis.triangle[index]]
    return " → ".join([*names, names[0]])


def reason(diagnosis: Diagnosis, responses: np.ndarray, index: int) -> str:
    """Why a prompt is at risk, in a few words; empty where it is not."""
    verdict = str(diagnosis.verdict[index])
    if verdict in ("unstable", "close"):
        share = percent(float(diagnosis.triangle_share[index]))
        return f"cycle {cycle_words(diagnosis, responses, index)}, {share} of the cyclic part"
    if verdict == "collapsed":
        top = int(np.argmax(diagnosis.policy[index]))
        return f"{responses[index, top]} takes {percent(float(diagnosis.policy[index, top]))}"
    return {"unknown": "not solved", "unanchored": "alpha is 1"}.get(verdict, "")
