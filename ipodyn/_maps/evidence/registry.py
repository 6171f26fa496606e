"""The kinds of evidence that a map can hold, which of them it was asked for, and in which order they are computed."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..grid import Grid
from .agreement import Agreement
from .contraction import ContractionBound
from .evidence import Code, Evidence, Panel, Request, Variable
from .fixed_point import FixedPoints
from .regime import PredictedRegime
from .rollouts import Rollouts

# In the order in which datasets and tables have them; which is computed first follows from what each uses.
KINDS: tuple[type[Evidence], ...] = (Rollouts, PredictedRegime, ContractionBound, FixedPoints, Agreement)


def chosen(grid: Grid, request: Request) -> tuple[Evidence, ...]:
    """The evidence that a map of this grid was asked for."""
    found = (kind.asked(grid, request) for kind in KINDS)
    return tuple(evidence for evidence in found if evidence is not None)


def in_order(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Each after those whose variables it uses."""
    left, ordered = list(evidence), []
    while left:
        awaited = {one: {name for other in left if other is not one for name in _names(other)} for one in left}
        ready = next((one for one in left if not awaited[one] & set(one.uses)), None)
        if ready is None:
            raise ValueError(f"these kinds of evidence use one another's variables: {left}")
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _names(evidence: Evidence) -> list[str]:
    return [variable.name for variable in evidence.variables]


def described(name: str, attributes: Mapping[str, Any]) -> Variable:
    """The variable of this name in a dataset, whose own codes count; one that nobody knows is what it says itself."""
    known = next((v for kind in KINDS for v in kind.variables if v.name == name), None)
    if known is None:
        known = Variable(name, str(attributes.get("long_name", name)), str(attributes.get("units", "1")))
    if "flag_meanings" not in attributes:
        return known
    meanings = {code.name: code for code in known.codes}
    named = (meanings.get(word, Code(word)) for word in str(attributes["flag_meanings"]).split())
    return dataclasses.replace(known, codes=tuple(named))


def panels(present: Iterable[str]) -> list[tuple[Variable, Panel]]:
    """What the picture of a map with these variables shows, those included that it lacks of what belongs together."""
    names = set(present)
    shown = [[(v, v.panel) for v in kind.variables if v.panel and not names & set(v.panel.unless)] for kind in KINDS]
    found = [some for some in shown if names & {variable.name for variable, _ in some}]
    return [pair for some in found or shown[:1] for pair in some]
