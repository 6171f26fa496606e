"""What all pictures need: the lazy import of matplotlib, colours, cell edges, outlined lines."""

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Regimes in the order of their codes, in colours that stay apart with any colour vision (Okabe and Ito).
REGIME_COLOURS = {
    "converges": "#0072B2",
    "oscillates": "#E69F00",
    "collapses": "#A0407F",
    "unresolved": "#6E6E6E",
}
CATEGORICAL = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B0A000")
INK = "#202020"
FAINT = "#8A8A8A"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 10, 9


def mpl(name: str) -> Any:
    """`matplotlib.<name>`, or one line on how to get it."""
    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ImportError as error:
        raise ImportError("`ipodyn.plot` needs matplotlib: pip install 'ipodyn[plot]'") from error


def check_available() -> None:
    """Raise `ImportError`, one line on how to get matplotlib, unless it is there."""
    mpl("figure")


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure in inches, with its own canvas and no entry in pyplot."""
    figure = mpl("figure").Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    mpl("backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def style_axes(axes: "matplotlib.axes.Axes", *, title: str = "", x: str = "", y: str = "") -> None:
    """Titles and labels in the sizes that all pictures use."""
    axes.set_title(title, fontsize=TITLE_SIZE, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(y, fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(labelsize=TICK_SIZE, colors=INK)


def light_axes(axes: "matplotlib.axes.Axes") -> None:
    """A line plot without a box and with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)


def set_log(axes: "matplotlib.axes.Axes", axis: str) -> None:
    """A logarithmic axis with plain numbers: 0.5, 1, 2, 5, 10."""
    ticker = mpl("ticker")
    {"x": axes.set_xscale, "y": axes.set_yscale}[axis]("log")
    line = {"x": axes.xaxis, "y": axes.yaxis}[axis]
    line.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    line.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    line.set_minor_formatter(ticker.NullFormatter())


def is_geometric(values: np.ndarray) -> bool:
    """Whether the grid is spaced evenly in its logarithm rather than in itself."""
    if values.size < 3 or np.any(values <= 0):
        return False
    ratios = np.diff(np.log(values))
    return bool(np.allclose(ratios, ratios[0], rtol=1e-3)) and not np.allclose(np.diff(values), values[1] - values[0])


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """(n + 1,) borders of the cells around n increasing centres, halfway on the scale of the grid."""
    if is_geometric(centres):
        return np.exp(cell_edges_linear(np.log(centres)))
    return cell_edges_linear(centres)


def cell_edges_linear(centres: np.ndarray) -> np.ndarray:
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def tint(colour: str, strength: np.ndarray | float) -> np.ndarray:
    """`colour` mixed with white: (..., 3), strength 0 white, 1 the colour itself."""
    rgb = np.asarray(mpl("colors").to_rgb(colour))
    strength = np.asarray(strength)[..., None]
    return 1 - strength * (1 - rgb)


def outline(width: float, colour: str = "white") -> list:
    """A rim for lines and labels that must be seen on any background."""
    effects = mpl("patheffects")
    return [effects.withStroke(linewidth=width, foreground=colour)]
