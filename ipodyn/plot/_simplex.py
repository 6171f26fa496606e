"""Trajectories of three probabilities, in the triangle."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike

from ._figure import CATEGORICAL, INK, LABEL_SIZE, TICK_SIZE, TITLE_SIZE, mpl, new_figure, outline

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])  # of responses 0, 1, 2


def barycentric(policies: np.ndarray) -> np.ndarray:
    """(..., 3) probabilities -> (..., 2) points of the triangle with unit sides."""
    return policies @ _CORNERS


def simplex(
    points: ArrayLike, *, show: int = 60, labels: Sequence[str] | None = None, title: str = ""
) -> "matplotlib.figure.Figure":
    """A trajectory of policies over three responses, in the triangle of all such policies.

    The corners are the policies that always give one response, the grid marks probabilities of 25, 50 and 75 %. The
    colour of the dots runs with the rounds; a ring marks the start, a red dot the end.

    - `points`: shape (T, 3), the policies in the order of the rounds. - `show`: how many of the first rounds are
      joined by lines; later ones are dots, which shows a closed curve or a period where lines would fill the triangle.
    - `labels`: names of the responses. - `title`: a heading.

    Returns a `matplotlib.figure.Figure`. Raises `ValueError` for another number of responses.

    >>> import numpy as np
    >>> figure = simplex(np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]]))
    >>> len(figure.axes) > 0
    True
    """
    policies = np.asarray(points, np.float64)
    if policies.ndim != 2 or policies.shape[1] != 3 or len(policies) == 0:
        raise ValueError(f"`points` has shape {policies.shape}; a triangle shows policies over 3 responses: (T, 3).")
    names = response_names(labels, 3)
    figure = new_figure(6.2, 5.8)
    draw_simplex(figure.subplots(), policies, names, first_round=0, show=show)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, color=INK)
    return figure


def response_names(labels: Sequence[str] | None, K: int) -> list[str]:
    """The names given, or numbers."""
    names = [f"response {k}" for k in range(K)] if labels is None else list(labels)
    if len(names) != K:
        raise ValueError(f"`labels` has {len(names)} names for {K} responses.")
    return names


def draw_simplex(
    axes: "matplotlib.axes.Axes", policies: np.ndarray, names: Sequence[str], *, first_round: int, show: int
) -> None:
    collections = mpl("collections")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.fill(*_CORNERS.T, facecolor="#FAFAFA", edgecolor=INK, linewidth=1.2, zorder=0)
    for level in (0.25, 0.5, 0.75):
        for corner in range(3):
            ends = np.zeros((2, 3))
            ends[:, corner] = level
            ends[0, (corner + 1) % 3] = ends[1, (corner + 2) % 3] = 1 - level
            axes.plot(*barycentric(ends).T, color="#DDDDDD", linewidth=0.7, zorder=0.5)
    path = barycentric(policies)
    rounds = first_round + np.arange(len(path))
    lines = collections.LineCollection(
        np.stack([path[:-1], path[1:]], axis=1)[:show], colors="#B0B0B0", linewidths=0.8, zorder=2
    )
    axes.add_collection(lines)
    dots = axes.scatter(*path.T, c=rounds, cmap="viridis", s=10, zorder=3, linewidths=0)
    axes.scatter(*path[0], s=70, facecolor="white", edgecolor=INK, linewidth=1.6, zorder=4)
    axes.scatter(*path[-1], s=70, facecolor="#D7191C", edgecolor="white", linewidth=1.2, zorder=5)
    for place, text in ((path[0], "start"), (path[-1], "end")):
        axes.annotate(
            text,
            place,
            xytext=(8, 6),
            textcoords="offset points",
            fontsize=TICK_SIZE,
            color=INK,
            zorder=6,
            path_effects=outline(2.5),
        )
    offsets = ((0, -16), (0, -16), (0, 8))
    for response, (corner, offset) in enumerate(zip(_CORNERS, offsets, strict=True)):
        axes.annotate(
            names[response],
            corner,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            fontsize=LABEL_SIZE,
            color=CATEGORICAL[response],
            weight="bold",
        )
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 0.96)
    if len(path) > 1:
        bar = axes.figure.colorbar(dots, ax=axes, shrink=0.6, aspect=25, pad=0.02)
        bar.set_label("round", fontsize=TICK_SIZE, color=INK)
        bar.ax.tick_params(labelsize=TICK_SIZE, colors=INK)
        bar.outline.set_visible(False)
