"""All figures: their names, families, what of the paper they reproduce, and what makes them."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from .config import Config, Made, Material, ProgressCallback
from .evolution import evolution
from .maps import heat_map
from .one_shot import concentrations
from .phases import phases
from .rankings import rankings
from .series import one_parameter

FAMILIES = ("evolution", "map", "series", "averaging", "concentration", "ranking")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure. `needs`: the structure of the matrices without which it cannot be made."""

    name: str
    needs: str
    paper: str
    title: str
    make: Callable[[Config, Material, ProgressCallback | None], Made]

    @property
    def family(self) -> str:
        """The figures that are made in the same way: the first word of the name."""
        return self.name.split("-")[0]


_ROWS = [
    Figure("evolution-cyclic-ipo", "cyclic", "figure 1",
           "MRS-IPO: policy against rounds on a cyclic matrix",
           partial(evolution, structure="cyclic", variant="ipo")),
    Figure("evolution-st-ipo", "st", "figure 2",
           "MRS-IPO: policy against rounds on a strongly transitive matrix",
           partial(evolution, structure="st", variant="ipo")),
    Figure("evolution-cyclic-dpo", "cyclic", "figure 1, appendix version",
           "MRS-DPO: policy against rounds on a cyclic matrix",
           partial(evolution, structure="cyclic", variant="dpo")),
    Figure("evolution-st-dpo", "st", "figure 2, appendix version",
           "MRS-DPO: policy against rounds on a strongly transitive matrix",
           partial(evolution, structure="st", variant="dpo")),
    Figure("evolution-cyclic-ipo-finite", "cyclic", "figure 1, appendix version",
           "MRS-IPO on finite samples: policy against rounds on a cyclic matrix",
           partial(evolution, structure="cyclic", variant="ipo-finite")),
    Figure("evolution-st-ipo-finite", "st", "figure 2, appendix version",
           "MRS-IPO on finite samples: policy against rounds on a strongly transitive matrix",
           partial(evolution, structure="st", variant="ipo-finite")),
    Figure("evolution-cyclic-dpo-finite", "cyclic", "figure 1, appendix version",
           "MRS-DPO on finite samples: policy against rounds on a cyclic matrix",
           partial(evolution, structure="cyclic", variant="dpo-finite")),
    Figure("evolution-st-dpo-finite", "st", "figure 2, appendix version",
           "MRS-DPO on finite samples: policy against rounds on a strongly transitive matrix",
           partial(evolution, structure="st", variant="dpo-finite")),
    Figure("map-cyclic-ipo", "cyclic", "figure 3",
           "MRS-IPO: time-averaged variance over (α, βλ), cyclic matrices",
           partial(heat_map, structure="cyclic", variant="ipo")),
    Figure("map-st-ipo", "st", "figure 4",
           "MRS-IPO: final entropy over (α, βλ), strongly transitive matrices",
           partial(heat_map, structure="st", variant="ipo")),
    Figure("map-cyclic-dpo", "cyclic", "figure 3, appendix version",
           "MRS-DPO: time-averaged variance over (α, βλ), cyclic matrices",
           partial(heat_map, structure="cyclic", variant="dpo")),
    Figure("map-st-dpo", "st", "figure 4, appendix version",
           "MRS-DPO: final entropy over (α, βλ), strongly transitive matrices",
           partial(heat_map, structure="st", variant="dpo")),
    Figure("map-cyclic-dpo-wide", "cyclic", "figure 3, appendix version",
           "MRS-DPO at the βλ of IPO: time-averaged variance over (α, βλ), cyclic matrices",
           partial(heat_map, structure="cyclic", variant="dpo-wide")),
    Figure("map-cyclic-ipo-finite", "cyclic", "figure 3, appendix version",
           "MRS-IPO on finite samples: time-averaged variance over (α, βλ), cyclic matrices",
           partial(heat_map, structure="cyclic", variant="ipo-finite")),
    Figure("map-st-ipo-finite", "st", "figure 4, appendix version",
           "MRS-IPO on finite samples: final entropy over (α, βλ), strongly transitive matrices",
           partial(heat_map, structure="st", variant="ipo-finite")),
    Figure("series-alpha-cyclic-ipo", "cyclic", "figure 5",
           "MRS-IPO: effect of α on cyclic preferences",
           partial(one_parameter, parameter="alpha", structure="cyclic", variant="ipo")),
    Figure("series-alpha-st-ipo", "st", "figure 5, appendix version",
           "MRS-IPO: effect of α on strongly transitive preferences",
           partial(one_parameter, parameter="alpha", structure="st", variant="ipo")),
    Figure("series-beta-cyclic-ipo", "cyclic", "figure 5, appendix version",
           "MRS-IPO: effect of β on cyclic preferences",
           partial(one_parameter, parameter="beta", structure="cyclic", variant="ipo")),
    Figure("series-beta-st-ipo", "st", "figure 5, appendix version",
           "MRS-IPO: effect of β on strongly transitive preferences",
           partial(one_parameter, parameter="beta", structure="st", variant="ipo")),
    Figure("series-lam-cyclic-ipo", "cyclic", "figure 5, appendix version",
           "MRS-IPO: effect of λ on cyclic preferences",
           partial(one_parameter, parameter="lam", structure="cyclic", variant="ipo")),
    Figure("series-lam-st-ipo", "st", "figure 5, appendix version",
           "MRS-IPO: effect of λ on strongly transitive preferences",
           partial(one_parameter, parameter="lam", structure="st", variant="ipo")),
    Figure("series-alpha-cyclic-dpo", "cyclic", "figure 5, appendix version",
           "MRS-DPO: effect of α on cyclic preferences",
           partial(one_parameter, parameter="alpha", structure="cyclic", variant="dpo")),
    Figure("series-alpha-st-dpo", "st", "figure 5, appendix version",
           "MRS-DPO: effect of α on strongly transitive preferences",
           partial(one_parameter, parameter="alpha", structure="st", variant="dpo")),
    Figure("series-beta-cyclic-dpo", "cyclic", "figure 5, appendix version",
           "MRS-DPO: effect of β on cyclic preferences",
           partial(one_parameter, parameter="beta", structure="cyclic", variant="dpo")),
    Figure("series-beta-st-dpo", "st", "figure 5, appendix version",
           "MRS-DPO: effect of β on strongly transitive preferences",
           partial(one_parameter, parameter="beta", structure="st", variant="dpo")),
    Figure("series-lam-cyclic-dpo", "cyclic", "figure 5, appendix version",
           "MRS-DPO: effect of λ on cyclic preferences",
           partial(one_parameter, parameter="lam", structure="cyclic", variant="dpo")),
    Figure("series-lam-st-dpo", "st", "figure 5, appendix version",
           "MRS-DPO: effect of λ on strongly transitive preferences",
           partial(one_parameter, parameter="lam", structure="st", variant="dpo")),
    Figure("series-alpha-cyclic-ipo-finite", "cyclic", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of α on cyclic preferences",
           partial(one_parameter, parameter="alpha", structure="cyclic", variant="ipo-finite")),
    Figure("series-alpha-st-ipo-finite", "st", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of α on strongly transitive preferences",
           partial(one_parameter, parameter="alpha", structure="st", variant="ipo-finite")),
    Figure("series-beta-cyclic-ipo-finite", "cyclic", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of β on cyclic preferences",
           partial(one_parameter, parameter="beta", structure="cyclic", variant="ipo-finite")),
    Figure("series-beta-st-ipo-finite", "st", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of β on strongly transitive preferences",
           partial(one_parameter, parameter="beta", structure="st", variant="ipo-finite")),
    Figure("series-lam-cyclic-ipo-finite", "cyclic", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of λ on cyclic preferences",
           partial(one_parameter, parameter="lam", structure="cyclic", variant="ipo-finite")),
    Figure("series-lam-st-ipo-finite", "st", "figure 5, appendix version",
           "MRS-IPO on finite samples: effect of λ on strongly transitive preferences",
           partial(one_parameter, parameter="lam", structure="st", variant="ipo-finite")),
    Figure("averaging-cyclic-ipo-finite", "cyclic", "finite-sample experiments",
           "Averaging policies over realisations hides oscillation; averaging variances does not",
           partial(phases, variant="ipo-finite")),
    Figure("concentration-st-ipo", "st", "section on one-shot optima, concentration",
           "IPO: one-shot optima under skewed sampling, strongly transitive matrices",
           partial(concentrations, variant="ipo")),
    Figure("concentration-st-dpo", "st", "section on one-shot optima, concentration",
           "DPO: one-shot optima under skewed sampling, strongly transitive matrices",
           partial(concentrations, variant="dpo")),
    Figure("ranking-audit", "all", "section on one-shot optima, ranking desiderata",
           "How often one-shot optima keep the ranking axioms, by what is sampled",
           rankings),
]  # fmt: skip

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ROWS}


def chosen(names: Sequence[str]) -> list[Figure]:
    """The figures of these names, families, or "all", in the order of the registry; `ValueError` for others."""
    wanted: set[str] = set()
    for name in names:
        of_name = [figure.name for figure in FIGURES.values() if name == "all" or name in (figure.name, figure.family)]
        if not of_name:
            raise ValueError(
                f"there is no figure {name!r}: name figures, families ({', '.join(FAMILIES)}) or all; `ipodyn "
                "reproduce` alone lists them."
            )
        wanted |= set(of_name)
    return [figure for figure in FIGURES.values() if figure.name in wanted]
