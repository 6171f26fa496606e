"""What the paper says, and what the figures of this run say to it: judged by their numbers, never by hand."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

AGREES, IN_PART, DISAGREES = "agrees", "agrees in part", "disagrees"
NOT_RUN, NOTHING = "not run", "nothing to judge by"
_STEPS = 0.9  # of the steps that move at all: so many must go the claimed way for "agrees"

Findings = Mapping[str, Any]
Verdict = tuple[str, str]  # the verdict, the number


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim: what is said and where, the figure whose numbers judge it, and how."""

    name: str
    says: str
    source: str
    figure: str
    judge: Callable[[Findings], Verdict]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim with its verdict and the number behind it."""

    claim: Claim
    verdict: str
    found: str


def judge_claims(findings: Mapping[str, Findings]) -> list[Judged]:
    """All claims by the findings of the figures that are there, by their names."""
    return [
        Judged(claim, *(claim.judge(findings[claim.figure]) if claim.figure in findings else (NOT_RUN, "")))
        for claim in CLAIMS
    ]


def _goes(which: str, *, up: bool) -> Callable[[Findings], Verdict]:
    """Whether a mean over matrices goes the claimed way from end to end on every line, and by nearly every step."""

    def judge(findings: Findings) -> Verdict:
        trend = findings[which]
        right, wrong = ("up", "down") if up else ("down", "up")
        moved = trend["up"] + trend["down"]
        if moved == 0:
            return NOTHING, "nothing moves"
        share = trend[right] / moved
        ends, against = trend[f"lines_{right}"], trend[f"lines_{wrong}"]
        words = (
            f"mean {trend['first']:.3g} at {trend['from']:.3g}, {trend['last']:.3g} at {trend['to']:.3g}; "
            f"{share:.1%} of the steps that move go {right}"
        )
        if trend["noisy"]:
            words += " (those beyond twice their sampling error)"
        if trend["lines"] > 1:
            words += f", end to end {ends:.0%} of {trend['lines']} lines"
        if against == 0 and share >= _STEPS:
            return AGREES, words
        return (IN_PART if ends > 0.5 else DISAGREES), words

    return judge


def _hides(findings: Findings) -> Verdict:
    """The average must lose most of the variance, and the mean of the variances be near that of the exact loop."""
    exact, mean = findings["exact_variance"], findings["mean_of_variances"]
    words = (
        f"variance {findings['variance_of_average']:.3g} of the averaged policy, {mean:.3g} ± {findings['error']:.2g} "
        f"the mean over {findings['realisations']} realisations, {exact:.3g} the exact loop"
    )
    if exact < 1e-4:
        return NOTHING, f"{words}: the loop does not oscillate"
    hidden, kept = findings["variance_of_average"] < 0.5 * mean, mean > 0.5 * exact
    return (AGREES if hidden and kept else IN_PART if hidden or kept else DISAGREES), words


def _certified(findings: Findings) -> Verdict:
    proved, moving = findings["proved"], findings["proved_but_oscillating"]
    if proved == 0:
        return NOTHING, "no loop meets the condition"
    words = (
        f"{moving:,} of {proved:,} loops that meet it oscillate, {findings['proved_but_unresolved']:,} are unresolved"
    )
    return (AGREES if moving == 0 else DISAGREES), words


def _share(cell: str, *, least: float) -> Callable[[Findings], Verdict]:
    def judge(findings: Findings) -> Verdict:
        share, number = findings[cell]["share"], findings[cell]["matrices"]
        if share is None:
            return NOTHING, "it applies to no matrix"
        return (AGREES if share >= least else DISAGREES), f"holds for {share:.2%} of {number:,} matrices"

    return judge


def _strict_order(findings: Findings) -> Verdict:
    strict = findings["strict"]
    if "least_share_kept" not in strict:
        return NOTHING, "no matrix is strictly strongly transitive"
    share = strict["least_share_kept"]
    words = f"kept for {share:.2%} of {strict['matrices']:,} matrices by the sampler that keeps it least"
    return (AGREES if share == 1 else DISAGREES), words


def _sharper(findings: Findings) -> Verdict:
    fall, rise = findings["entropy_falls"], findings["entropy_rises"]
    words = f"entropy falls on {fall:.1%} of {findings['with_optimum']:,} matrices and rises on {rise:.1%}"
    if findings["with_optimum"] == 0:
        return NOTHING, "no optimum exists"
    return (AGREES if rise == 0 else IN_PART if fall > rise else DISAGREES), words


def _sharper_where_it_holds(findings: Findings) -> Verdict:
    number, against = findings["condition_holds"], findings["rises_though_condition_holds"]
    if number == 0:
        return NOTHING, "no matrix meets the condition"
    return (AGREES if against == 0 else DISAGREES), f"entropy rises on {against:,} of {number:,} matrices that meet it"


def _premise(findings: Findings) -> Verdict:
    pairs, shrunk = findings["pairs_with_premise"], findings["of_them_shrunk"]
    if pairs == 0:
        return NOTHING, "no pair of responses meets the premise"
    words = f"the gap shrinks for {shrunk:,} of {pairs:,} pairs that meet the premise"
    return (AGREES if shrunk == 0 else DISAGREES), words


_WHERE = {"dpo-wide": "a range of ours: MRS-DPO where its signal is four times as strong"}
_ALPHA, _PRODUCT = ("alpha", "larger α"), ("product", "larger βλ")


def _claims() -> list[Claim]:
    found = []
    for structure, quantity, up in (("cyclic", "time-averaged variance", True), ("st", "final entropy", False)):
        kind = {"cyclic": "cyclic", "st": "strongly transitive"}[structure]
        way = "more" if up else "less"
        for variant, loop in (
            ("ipo", "MRS-IPO"),
            ("dpo", "MRS-DPO"),
            ("dpo-wide", "MRS-DPO over the βλ of IPO"),
            ("ipo-finite", "MRS-IPO on finite samples"),
        ):
            if (variant, structure) == ("dpo-wide", "st"):
                continue
            for which, cause in (_ALPHA, _PRODUCT):
                found.append(
                    Claim(
                        f"{structure}-{which}-{variant}",
                        f"{loop}, {kind} preferences: {cause}, {way} {quantity}",
                        _WHERE.get(variant, "appendix") if variant != "ipo" else "figure 3" if up else "figure 4",
                        f"map-{structure}-{variant}",
                        _goes(which, up=up),
                    )
                )
        for parameter, symbol in (("alpha", "α"), ("beta", "β"), ("lam", "λ")):
            for variant, loop in (("ipo", "MRS-IPO"), ("dpo", "MRS-DPO")):
                found.append(
                    Claim(
                        f"{structure}-{parameter}-series-{variant}",
                        f"{loop}, {kind} preferences: larger {symbol} alone, {way} {quantity}",
                        "figure 5 and its appendix versions"
                        if parameter != "lam"
                        else "the paper's axis is βλ; here λ moves and β stands",
                        f"series-{parameter}-{structure}-{variant}",
                        _goes(parameter, up=up),
                    )
                )
    found += [
        Claim(
            "averaging",
            "Averaging policies over realisations hides oscillation, averaging variances does not",
            "finite-sample experiments",
            "averaging-cyclic-ipo-finite",
            _hides,
        ),
        *(
            Claim(
                f"contraction-{structure}",
                f"α + (βλ/2)‖P − ½‖₂ < 1 makes MRS-IPO converge ({kind} preferences)",
                "section on MRS, contraction",
                f"map-{structure}-ipo",
                _certified,
            )
            for structure, kind in (("cyclic", "cyclic"), ("st", "strongly transitive"))
        ),
        *(
            Claim(
                f"designed-{axiom}",
                f"Sampling designed for the instance puts the {what} on top",
                "section on one-shot optima, ranking desiderata",
                "ranking-audit",
                _share(f"IPO/designed/{axiom}", least=1.0),
            )
            for axiom, what in (("condorcet", "Condorcet winner"), ("smith", "Smith set"))
        ),
        Claim(
            "strict-order",
            "On strictly strongly transitive preferences IPO keeps the order whatever is sampled",
            "section on one-shot optima, ranking desiderata",
            "ranking-audit",
            _strict_order,
        ),
        Claim(
            "premise",
            "Pairs whose row gap is larger against stronger opponents grow apart as sampling moves to the top (IPO)",
            "section on one-shot optima, concentration",
            "concentration-st-ipo",
            _premise,
        ),
        Claim(
            "sharper",
            "Where no logit gap shrinks (IPO), skewed sampling sharpens the optimum",
            "section on one-shot optima, concentration",
            "concentration-st-ipo",
            _sharper_where_it_holds,
        ),
        *(
            Claim(
                f"sharper-{variant}-everywhere",
                f"{variant.upper()}: skewed sampling sharpens the optimum on all strongly transitive preferences",
                "the same without its condition, which the paper does not say",
                f"concentration-st-{variant}",
                _sharper,
            )
            for variant in ("ipo", "dpo")
        ),
    ]
    return found


CLAIMS: list[Claim] = _claims()
