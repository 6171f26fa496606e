"""All figures: their names, families, what of the paper they reproduce, and what makes them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from .config import WORDS, Config, Made, Material, Progress
from .evolution import evolution
from .maps import QUANTITY, heat_map
from .one_shot import concentrations
from .phases import phases
from .rankings import rankings
from .series import SYMBOLS, one_parameter

FAMILIES = ("evolution", "map", "series", "averaging", "concentration", "ranking")
LOOPS = {
    "ipo": "MRS-IPO",
    "dpo": "MRS-DPO",
    "dpo-wide": "MRS-DPO at the βλ of IPO",
    "ipo-finite": "MRS-IPO on finite samples",
    "dpo-finite": "MRS-DPO on finite samples",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure. `needs`: the structure of the matrices without which it cannot be made."""

    name: str
    family: str
    title: str
    paper: str
    needs: str
    make: Callable[[Config, Material, Progress | None], Made]


def _make(function: Callable[..., Made], **fixed: str) -> Callable[[Config, Material, Progress | None], Made]:
    return functools.partial(_call, function, fixed)


def _call(
    function: Callable[..., Made], fixed: dict[str, str], config: Config, material: Material, progress: Progress | None
) -> Made:
    return function(config, material, **fixed, progress=progress)


def _figures() -> list[Figure]:
    found = []
    for variant in ("ipo", "dpo", "ipo-finite", "dpo-finite"):
        for structure, number in (("cyclic", 1), ("st", 2)):
            found.append(
                Figure(
                    f"evolution-{structure}-{variant}",
                    "evolution",
                    f"{LOOPS[variant]}: policy against rounds on a {WORDS[structure]} matrix",
                    f"figure {number}" if variant == "ipo" else f"figure {number}, appendix version",
                    structure,
                    _make(evolution, structure=structure, variant=variant),
                )
            )
    for variant in ("ipo", "dpo", "dpo-wide", "ipo-finite"):
        for structure, number in (("cyclic", 3), ("st", 4)):
            if (variant, structure) == ("dpo-wide", "st"):
                continue
            quantity = {"variance": "time-averaged variance", "entropy": "final entropy"}[QUANTITY[structure]]
            found.append(
                Figure(
                    f"map-{structure}-{variant}",
                    "map",
                    f"{LOOPS[variant]}: {quantity} over (α, βλ), {WORDS[structure]} matrices",
                    f"figure {number}" if variant == "ipo" else f"figure {number}, appendix version",
                    structure,
                    _make(heat_map, structure=structure, variant=variant),
                )
            )
    for variant in ("ipo", "dpo", "ipo-finite"):
        for parameter, symbol in SYMBOLS.items():
            for structure in ("cyclic", "st"):
                main = (variant, parameter, structure) == ("ipo", "alpha", "cyclic")
                found.append(
                    Figure(
                        f"series-{parameter}-{structure}-{variant}",
                        "series",
                        f"{LOOPS[variant]}: effect of {symbol} on {WORDS[structure]} preferences",
                        "figure 5" if main else "figure 5, appendix version",
                        structure,
                        _make(one_parameter, parameter=parameter, structure=structure, variant=variant),
                    )
                )
    found.append(
        Figure(
            "averaging-cyclic-ipo-finite",
            "averaging",
            "Averaging policies over realisations hides oscillation; averaging variances does not",
            "finite-sample experiments",
            "cyclic",
            _make(phases, variant="ipo-finite"),
        )
    )
    for variant in ("ipo", "dpo"):
        found.append(
            Figure(
                f"concentration-st-{variant}",
                "concentration",
                f"{variant.upper()}: one-shot optima under skewed sampling, strongly transitive matrices",
                "section on one-shot optima, concentration",
                "st",
                _make(concentrations, variant=variant),
            )
        )
    found.append(
        Figure(
            "ranking-audit",
            "ranking",
            "How often one-shot optima keep the ranking axioms, by what is sampled",
            "section on one-shot optima, ranking desiderata",
            "all",
            _make(rankings),
        )
    )
    return found


FIGURES: dict[str, Figure] = {figure.name: figure for figure in _figures()}


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
