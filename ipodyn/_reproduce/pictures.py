"""What all figures need: the heading that names the source, and the heat map."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ..plot._figure import INK, LABEL_SIZE, TICK_SIZE, TITLE_SIZE, cell_edges, style_axes
from .config import Material

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

ALPHA = "α (how far the reference follows)"
PRODUCT = "βλ (preference strength × on-policy fraction)"


def heading(figure: "matplotlib.figure.Figure", material: Material, what: str, how: str) -> None:
    """What is shown, by which loop, on which data."""
    source = textwrap.shorten(material.heading(), 110, placeholder=" …")
    figure.suptitle(f"{what} · {how}\n{source}", fontsize=TITLE_SIZE, color=INK, x=0.01, ha="left")


def heat(
    axes: "matplotlib.axes.Axes",
    alphas: np.ndarray,
    products: np.ndarray,
    values: np.ndarray,
    *,
    title: str,
    unit: str,
    colours: str,
) -> None:
    """`values` (alphas, products) as colours, with their bar."""
    mesh = axes.pcolormesh(cell_edges(alphas), cell_edges(products), values.T, cmap=colours)
    bar = axes.figure.colorbar(mesh, ax=axes)
    bar.set_label(unit, fontsize=LABEL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    style_axes(axes, title=title, x=ALPHA, y=PRODUCT)
