"""Probabilities against rounds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike

from ._figure import CATEGORICAL, INK, TICK_SIZE, TITLE_SIZE, light_axes, new_figure, style_axes
from ._simplex import draw_simplex, response_names

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_NAMED = len(CATEGORICAL)  # with more responses, the ones that matter most are named


def rollout(
    policies: ArrayLike,
    *,
    first_round: int = 0,
    show: int = 60,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """Probabilities against rounds; with three responses also the path in the simplex.

    - `policies`: shape (T, K), such as `orbit.saved` of `rollout(loop, save=lambda policy: policy)`, with or without
      the start in front. - `first_round`: the round of the first row (1 where the start is not in front).
    - `show`: how many of the first, and of the last, rounds of a long rollout are drawn side by side, as thousands of
      rounds in one panel hide a short period. - `labels`: names of the responses. - `title`: a heading.

    Returns a `matplotlib.figure.Figure`. With many responses those with the largest probabilities anywhere are
    coloured and named, the rest is grey.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=9.0, lam=1.0)
    >>> orbit = ipodyn.rollout(loop, policy0=[0.4, 0.3, 0.3], num_steps=60, save=lambda policy: policy)
    >>> figure = ipodyn.plot.rollout(orbit.saved, first_round=1)  # then figure.savefig("rollout.png")
    >>> figure.axes[0].get_ylabel()
    'probability'
    """
    policies = np.asarray(policies, np.float64)
    if policies.ndim != 2 or len(policies) == 0:
        raise ValueError(f"`policies` has shape {policies.shape}; give one policy a round: (T, K).")
    K = policies.shape[1]
    names = response_names(labels, K)
    if show < 1:
        raise ValueError(f"`show` is {show}; draw at least 1 round.")
    rounds = first_round + np.arange(len(policies))
    grey = f" (grey: {K - _NAMED} more responses)" if K > _NAMED else ""
    spans = [slice(0, None)] if len(policies) <= 2 * show else [slice(0, show), slice(-show, None)]
    with_simplex = K == 3
    ratios = [3.0] * len(spans) + [2.6] * with_simplex
    figure = new_figure(2.0 + 1.6 * sum(ratios), 4.8)
    panels = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    for axes, span in zip(panels, spans, strict=False):
        _draw(axes, rounds[span], policies[span], names, last=span is spans[-1])
        words = "" if len(spans) == 1 else f"{'First' if span is spans[0] else 'Last'} {len(rounds[span]):,} rounds"
        style_axes(axes, title=words, x=f"round{grey}", y="probability" if span is spans[0] else "")
    if with_simplex:
        draw_simplex(panels[-1], policies, names, first_round=first_round, show=show)
        style_axes(panels[-1], title="In the simplex")
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE + 1, color=INK, x=0.01, ha="left")
    return figure


def _draw(
    axes: "matplotlib.axes.Axes", rounds: np.ndarray, policies: np.ndarray, names: list[str], *, last: bool
) -> None:
    order = np.argsort(-policies.max(axis=0), kind="stable")
    named = sorted(int(k) for k in order[:_NAMED])
    for k in order[_NAMED:]:
        axes.plot(rounds, policies[:, k], color="#C8C8C8", linewidth=0.7, zorder=1)
    marker = "o" if len(rounds) <= 60 else None
    for place, k in enumerate(named):
        axes.plot(rounds, policies[:, k], color=CATEGORICAL[place], linewidth=1.5, marker=marker, markersize=2.5)
    axes.set_ylim(-0.02, 1.02)
    axes.margins(x=0.01)
    light_axes(axes)
    if last:
        _label_lines(axes, policies[-1], named, names)


def _label_lines(axes: "matplotlib.axes.Axes", heights: np.ndarray, named: list[int], names: list[str]) -> None:
    """Each name at the end of its line, moved apart where lines end together."""
    least = 0.05
    order = sorted(range(len(named)), key=lambda place: heights[named[place]])
    places = np.array([heights[named[place]] for place in order])
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + least)
    places -= max(0.0, places[-1] - 1.0)
    for index in range(len(places) - 2, -1, -1):
        places[index] = min(places[index], places[index + 1] - least)
    for place, height in zip(order, places, strict=True):
        axes.annotate(
            names[named[place]],
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=TICK_SIZE,
            color=CATEGORICAL[place],
            annotation_clip=False,
        )
