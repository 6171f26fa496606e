"""What the paper says, one row a claim, and what the figures of this run say to it."""

import dataclasses
from collections.abc import Callable, Mapping

from .judges import (
    Findings,
    Verdict,
    always_holds,
    averaging_hides,
    certificate_holds,
    falls,
    gaps_grow,
    order_is_kept,
    rises,
    sharpens,
    sharpens_under_condition,
)

NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim: the figure whose numbers judge it and how, where it is said, and what."""

    name: str
    figure: str
    judge: Callable[[Findings], Verdict]
    source: str
    says: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim with its verdict and the numbers behind it."""

    claim: Claim
    verdict: str
    evidence: str


def judge_claims(findings: Mapping[str, Findings]) -> list[Judged]:
    """All claims by the findings of the figures that are there, by their names."""
    return [
        Judged(claim, *(claim.judge(findings[claim.figure]) if claim.figure in findings else (NOT_RUN, "")))
        for claim in CLAIMS
    ]


# Source: Chen, He, Jordan, Yao, "How Sampling Shapes LLM Alignment", arXiv 2602.12180; figures are the paper's.
CLAIMS: list[Claim] = [
    Claim("cyclic-alpha-ipo", "map-cyclic-ipo", rises("alpha"), "figure 3",
          "MRS-IPO, cyclic preferences: larger α, more time-averaged variance"),
    Claim("cyclic-product-ipo", "map-cyclic-ipo", rises("product"), "figure 3",
          "MRS-IPO, cyclic preferences: larger βλ, more time-averaged variance"),
    Claim("cyclic-alpha-dpo", "map-cyclic-dpo", rises("alpha"), "appendix",
          "MRS-DPO, cyclic preferences: larger α, more time-averaged variance"),
    Claim("cyclic-product-dpo", "map-cyclic-dpo", rises("product"), "appendix",
          "MRS-DPO, cyclic preferences: larger βλ, more time-averaged variance"),
    Claim("cyclic-alpha-dpo-wide", "map-cyclic-dpo-wide", rises("alpha"),
          "a range of ours: MRS-DPO where its signal is four times as strong",
          "MRS-DPO over the βλ of IPO, cyclic preferences: larger α, more time-averaged variance"),
    Claim("cyclic-product-dpo-wide", "map-cyclic-dpo-wide", rises("product"),
          "a range of ours: MRS-DPO where its signal is four times as strong",
          "MRS-DPO over the βλ of IPO, cyclic preferences: larger βλ, more time-averaged variance"),
    Claim("cyclic-alpha-ipo-finite", "map-cyclic-ipo-finite", rises("alpha"), "appendix",
          "MRS-IPO on finite samples, cyclic preferences: larger α, more time-averaged variance"),
    Claim("cyclic-product-ipo-finite", "map-cyclic-ipo-finite", rises("product"), "appendix",
          "MRS-IPO on finite samples, cyclic preferences: larger βλ, more time-averaged variance"),
    Claim("cyclic-alpha-series-ipo", "series-alpha-cyclic-ipo", rises("alpha"), "figure 5 and its appendix versions",
          "MRS-IPO, cyclic preferences: larger α alone, more time-averaged variance"),
    Claim("cyclic-alpha-series-dpo", "series-alpha-cyclic-dpo", rises("alpha"), "figure 5 and its appendix versions",
          "MRS-DPO, cyclic preferences: larger α alone, more time-averaged variance"),
    Claim("cyclic-beta-series-ipo", "series-beta-cyclic-ipo", rises("beta"), "figure 5 and its appendix versions",
          "MRS-IPO, cyclic preferences: larger β alone, more time-averaged variance"),
    Claim("cyclic-beta-series-dpo", "series-beta-cyclic-dpo", rises("beta"), "figure 5 and its appendix versions",
          "MRS-DPO, cyclic preferences: larger β alone, more time-averaged variance"),
    Claim("cyclic-lam-series-ipo", "series-lam-cyclic-ipo", rises("lam"),
          "the paper's axis is βλ; here λ moves and β stands",
          "MRS-IPO, cyclic preferences: larger λ alone, more time-averaged variance"),
    Claim("cyclic-lam-series-dpo", "series-lam-cyclic-dpo", rises("lam"),
          "the paper's axis is βλ; here λ moves and β stands",
          "MRS-DPO, cyclic preferences: larger λ alone, more time-averaged variance"),
    Claim("st-alpha-ipo", "map-st-ipo", falls("alpha"), "figure 4",
          "MRS-IPO, strongly transitive preferences: larger α, less final entropy"),
    Claim("st-product-ipo", "map-st-ipo", falls("product"), "figure 4",
          "MRS-IPO, strongly transitive preferences: larger βλ, less final entropy"),
    Claim("st-alpha-dpo", "map-st-dpo", falls("alpha"), "appendix",
          "MRS-DPO, strongly transitive preferences: larger α, less final entropy"),
    Claim("st-product-dpo", "map-st-dpo", falls("product"), "appendix",
          "MRS-DPO, strongly transitive preferences: larger βλ, less final entropy"),
    Claim("st-alpha-ipo-finite", "map-st-ipo-finite", falls("alpha"), "appendix",
          "MRS-IPO on finite samples, strongly transitive preferences: larger α, less final entropy"),
    Claim("st-product-ipo-finite", "map-st-ipo-finite", falls("product"), "appendix",
          "MRS-IPO on finite samples, strongly transitive preferences: larger βλ, less final entropy"),
    Claim("st-alpha-series-ipo", "series-alpha-st-ipo", falls("alpha"), "figure 5 and its appendix versions",
          "MRS-IPO, strongly transitive preferences: larger α alone, less final entropy"),
    Claim("st-alpha-series-dpo", "series-alpha-st-dpo", falls("alpha"), "figure 5 and its appendix versions",
          "MRS-DPO, strongly transitive preferences: larger α alone, less final entropy"),
    Claim("st-beta-series-ipo", "series-beta-st-ipo", falls("beta"), "figure 5 and its appendix versions",
          "MRS-IPO, strongly transitive preferences: larger β alone, less final entropy"),
    Claim("st-beta-series-dpo", "series-beta-st-dpo", falls("beta"), "figure 5 and its appendix versions",
          "MRS-DPO, strongly transitive preferences: larger β alone, less final entropy"),
    Claim("st-lam-series-ipo", "series-lam-st-ipo", falls("lam"), "the paper's axis is βλ; here λ moves and β stands",
          "MRS-IPO, strongly transitive preferences: larger λ alone, less final entropy"),
    Claim("st-lam-series-dpo", "series-lam-st-dpo", falls("lam"), "the paper's axis is βλ; here λ moves and β stands",
          "MRS-DPO, strongly transitive preferences: larger λ alone, less final entropy"),
    Claim("averaging", "averaging-cyclic-ipo-finite", averaging_hides, "finite-sample experiments",
          "Averaging policies over realisations hides oscillation, averaging variances does not"),
    Claim("contraction-cyclic", "map-cyclic-ipo", certificate_holds, "section on MRS, contraction",
          "α + (βλ/2)‖P − ½‖₂ < 1 makes MRS-IPO converge (cyclic preferences)"),
    Claim("contraction-st", "map-st-ipo", certificate_holds, "section on MRS, contraction",
          "α + (βλ/2)‖P − ½‖₂ < 1 makes MRS-IPO converge (strongly transitive preferences)"),
    Claim("designed-condorcet", "ranking-audit", always_holds("IPO/designed/condorcet"),
          "section on one-shot optima, ranking desiderata",
          "Sampling designed for the instance puts the Condorcet winner on top"),
    Claim("designed-smith", "ranking-audit", always_holds("IPO/designed/smith"),
          "section on one-shot optima, ranking desiderata",
          "Sampling designed for the instance puts the Smith set on top"),
    Claim("strict-order", "ranking-audit", order_is_kept, "section on one-shot optima, ranking desiderata",
          "On strictly strongly transitive preferences IPO keeps the order whatever is sampled"),
    Claim("premise", "concentration-st-ipo", gaps_grow, "section on one-shot optima, concentration",
          "Pairs whose row gap is larger against stronger opponents grow apart as sampling moves to the top (IPO)"),
    Claim("sharper", "concentration-st-ipo", sharpens_under_condition, "section on one-shot optima, concentration",
          "Where no logit gap shrinks (IPO), skewed sampling sharpens the optimum"),
    Claim("sharper-ipo-everywhere", "concentration-st-ipo", sharpens,
          "the same without its condition, which the paper does not say",
          "IPO: skewed sampling sharpens the optimum on all strongly transitive preferences"),
    Claim("sharper-dpo-everywhere", "concentration-st-dpo", sharpens,
          "the same without its condition, which the paper does not say",
          "DPO: skewed sampling sharpens the optimum on all strongly transitive preferences"),
]  # fmt: skip
