"""How a claim is judged: by the numbers of a figure, never by hand."""

from collections.abc import Callable, Mapping
from typing import Any

AGREES, IN_PART, DISAGREES = "agrees", "agrees in part", "disagrees"
INCONCLUSIVE = "inconclusive"  # the numbers hold no case that the claim is about
_STEPS = 0.9  # the least fraction of the steps that move at all which must go the claimed way for "agrees"

Findings = Mapping[str, Any]
Verdict = tuple[str, str]  # the verdict, the number


def rises(which: str) -> Callable[[Findings], Verdict]:
    """Whether a mean over matrices rises with a parameter: from end to end on every line, and in nearly every step."""
    return _monotone(which, "up", "down")


def falls(which: str) -> Callable[[Findings], Verdict]:
    """The same for a mean that falls."""
    return _monotone(which, "down", "up")


def _monotone(which: str, right: str, wrong: str) -> Callable[[Findings], Verdict]:

    def judge(findings: Findings) -> Verdict:
        trend = findings[which]
        moved = trend["up"] + trend["down"]
        if moved == 0:
            return INCONCLUSIVE, "nothing moves"
        fraction = trend[right] / moved
        ends, against = trend[f"lines_{right}"], trend[f"lines_{wrong}"]
        words = (
            f"mean {trend['first']:.3g} at {trend['from']:.3g}, {trend['last']:.3g} at {trend['to']:.3g}; "
            f"{fraction:.1%} of the steps that move go {right}"
        )
        if trend["noisy"]:
            words += " (those beyond twice their sampling error)"
        if trend["lines"] > 1:
            words += f", end to end {ends:.0%} of {trend['lines']} lines"
        if against == 0 and fraction >= _STEPS:
            return AGREES, words
        return (IN_PART if ends > 0.5 else DISAGREES), words

    return judge


def averaging_hides(findings: Findings) -> Verdict:
    """Whether the average policy loses most of the variance, and the mean variance is near that of the exact loop."""
    exact, mean = findings["exact_variance"], findings["mean_of_variances"]
    words = (
        f"variance {findings['variance_of_average']:.3g} of the averaged policy, {mean:.3g} ± {findings['error']:.2g} "
        f"the mean over {findings['realisations']} realisations, {exact:.3g} the exact loop"
    )
    if exact < 1e-4:
        return INCONCLUSIVE, f"{words}: the loop does not oscillate"
    hidden, kept = findings["variance_of_average"] < 0.5 * mean, mean > 0.5 * exact
    return (AGREES if hidden and kept else IN_PART if hidden or kept else DISAGREES), words


def certificate_holds(findings: Findings) -> Verdict:
    """Whether no loop oscillates that meets a sufficient condition for convergence."""
    proved, moving = findings["proved"], findings["proved_but_oscillating"]
    if proved == 0:
        return INCONCLUSIVE, "no loop meets the condition"
    words = (
        f"{moving:,} of {proved:,} loops that meet it oscillate, {findings['proved_but_unresolved']:,} are unresolved"
    )
    return (AGREES if moving == 0 else DISAGREES), words


def always_holds(cell: str) -> Callable[[Findings], Verdict]:
    """Whether an axiom holds for every matrix in a cell of the audit."""

    def judge(findings: Findings) -> Verdict:
        fraction, number = findings[cell]["fraction"], findings[cell]["matrices"]
        if fraction is None:
            return INCONCLUSIVE, "it applies to no matrix"
        return (AGREES if fraction == 1 else DISAGREES), f"holds for {fraction:.2%} of {number:,} matrices"

    return judge


def order_is_kept(findings: Findings) -> Verdict:
    """Whether every sampler keeps the order of every strictly strongly transitive matrix."""
    strict = findings["strict"]
    if "least_fraction_kept" not in strict:
        return INCONCLUSIVE, "no matrix is strictly strongly transitive"
    fraction = strict["least_fraction_kept"]
    words = f"kept for {fraction:.2%} of {strict['matrices']:,} matrices by the sampler that keeps it least"
    return (AGREES if fraction == 1 else DISAGREES), words


def sharpens(findings: Findings) -> Verdict:
    """Whether the entropy of the optimum never rises with the skew of the sampling."""
    fall, rise = findings["entropy_falls"], findings["entropy_rises"]
    words = f"entropy falls on {fall:.1%} of {findings['with_optimum']:,} matrices and rises on {rise:.1%}"
    if findings["with_optimum"] == 0:
        return INCONCLUSIVE, "no optimum exists"
    return (AGREES if rise == 0 else IN_PART if fall > rise else DISAGREES), words


def sharpens_under_condition(findings: Findings) -> Verdict:
    """The same on the matrices that meet the condition."""
    number, against = findings["condition_holds"], findings["rises_though_condition_holds"]
    if number == 0:
        return INCONCLUSIVE, "no matrix meets the condition"
    return (AGREES if against == 0 else DISAGREES), f"entropy rises on {against:,} of {number:,} matrices that meet it"


def gaps_grow(findings: Findings) -> Verdict:
    """Whether no logit gap shrinks among the pairs that meet the premise."""
    pairs, shrunk = findings["pairs_with_premise"], findings["of_them_shrunk"]
    if pairs == 0:
        return INCONCLUSIVE, "no pair of responses meets the premise"
    words = f"the gap shrinks for {shrunk:,} of {pairs:,} pairs that meet the premise"
    return (AGREES if shrunk == 0 else DISAGREES), words
