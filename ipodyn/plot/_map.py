"""The picture of a stability map."""

import itertools
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._maps.evidence.evidence import Panel, Variable
from .._maps.evidence.registry import panels
from .._maps.statistics import MapStatistics
from ._figure import (
    FAINT,
    INK,
    LABEL_SIZE,
    REGIME_COLOURS,
    TICK_SIZE,
    TITLE_SIZE,
    cell_edges,
    is_geometric,
    light_axes,
    mpl,
    new_figure,
    outline,
    set_log,
    style_axes,
    tint,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import xarray

_ALPHA = "α (how far the reference follows)"
_BETA = "β (preference strength; TRL's beta is 1/β)"
_PRODUCT = "βλ (preference strength × on-policy fraction)"
_COLOURS = {"nats": "cividis"}  # of a panel by its unit; all others
_OTHERS = "viridis"
_MINORITIES, _MINORITY = ("oscillates", "collapses"), 0.05  # a fraction that matters before it is the largest
_MARKERS = "oxs^Dv"  # of the codes that are pointed out, in their order
_LEAST = 0.25  # with four regimes the largest fraction is at least this
_PROOFS, _EXACT = ("#111111", "#0072B2", "#7B3294"), ("#D7191C", "#B35806", "#1B7837")  # colours of boundaries


def stability_map(dataset: "xarray.Dataset | MapStatistics", *, product: bool = False) -> "matplotlib.figure.Figure":
    r"""The map that `ipodyn.stability_map` made, as a picture over \(\alpha\) and \(\beta\).

    Left: mean over matrices of the time-averaged variance and of the final entropy (of a map without rollouts: of the
    spectral radius and of the entropy of the fixed point); middle: their spread (standard deviation); right: the
    regime that most matrices are in, paler where fewer are in it, and the fraction that converges.
    Lines: where the contraction bound \(\alpha + (\beta\lambda/2)\|A\|_2\) (IPO only) of the median matrix reaches 1
    (below it, convergence is proved), dashed on the right for the first and the last matrix to lose that proof; and,
    where the dataset has `radius`, the exact boundary: where the spectral radius of the median matrix reaches 1,
    dashed on the right for the first matrix whose fixed point loses stability. On the right also where 5 % of the
    matrices oscillate or collapse, and a mark on the cells where the rollout contradicts the fixed point for 5 % of
    them. Cells without a number are hatched. A map over one parameter only (one alpha, or one beta) is drawn as
    curves, and a single point as histograms.

    - `dataset`: with dims (matrix, alpha, beta). - `product`: beta times lambda on the vertical axis, as in the paper.

    Returns a `matplotlib.figure.Figure`. Raises `ValueError` if variables or dims are missing.

    >>> import ipodyn
    >>> P = ipodyn.problems.three_cycle(0.4)
    >>> found = ipodyn.stability_map(P, alpha=[0.2, 0.9], beta=[1.0, 6.0], num_steps=100, policy0=[0.5, 0.3, 0.2])
    >>> figure = ipodyn.plot.stability_map(found)  # then figure.savefig("map.png")
    >>> "1 preference matrix" in figure.get_suptitle()
    True
    """
    stats = dataset if isinstance(dataset, MapStatistics) else _checked(dataset)
    alpha, beta = stats.alpha, stats.beta
    if product:
        beta = beta * float(stats.attrs["lam"])
    if alpha.size == beta.size == 1:
        figure = _point(stats)
    elif min(alpha.size, beta.size) == 1:
        figure = _curves(stats, alpha, beta, _PRODUCT if product else _BETA)
    else:
        figure = _maps(stats, alpha, beta, _PRODUCT if product else _BETA)
    figure.suptitle(_heading(stats), fontsize=TITLE_SIZE + 1, color=INK, x=0.01, ha="left")
    return figure


def _checked(dataset: "xarray.Dataset") -> MapStatistics:
    """What is drawn of a dataset; `ValueError` if it lacks something."""
    needed = [*(variable.name for variable, _ in panels(map(str, dataset.data_vars))), "regime"]
    missing = [name for name in needed if name not in dataset]
    if missing or not {"matrix", "alpha", "beta"} <= set(dataset.dims):
        raise ValueError(
            f"the dataset has dims {tuple(dataset.dims)} and lacks the variables {missing}; give what "
            "`ipodyn.stability_map` returns, with dims matrix, alpha and beta."
        )
    return MapStatistics.of(dataset)


def _predicted(stats: MapStatistics) -> bool:
    """Whether the regimes are those that the fixed points predict, without rollouts."""
    return stats.attrs.get("regime_from") == "fixed point"


def _heading(stats: MapStatistics) -> str:
    attrs = stats.attrs
    source = textwrap.shorten(str(attrs.get("source") or "preference matrices"), 110, placeholder=" …")
    if bool(attrs.get("synthetic", False)) and "synthetic" not in source.lower():
        source = f"SYNTHETIC data: {source}"
    elif bool(attrs.get("synthetic", False)):
        source = source.replace("synthetic", "SYNTHETIC", 1)
    number = stats.num_matrices
    facts = [f"{number:,} preference {'matrix' if number == 1 else 'matrices'}"]
    forms = (("objective", "{}"), ("lam", "λ = {:g}"), ("num_steps", "{:,} rounds"), ("start", "start: {}"))
    for key, form in forms:
        if key in attrs:
            facts.append(form.format(attrs[key]))
    if _predicted(stats):
        facts.append("fixed points, no rollouts")
    return f"{source}\n{' · '.join(facts)}"


class _Mark(NamedTuple):
    """A code that enough matrices have in some cells: where, how it is drawn, and what the legend says."""

    cells: np.ndarray
    look: dict[str, Any]
    text: str


def _marks(stats: MapStatistics) -> list[_Mark]:
    """Those of the codes that are pointed out, such as of rollouts that contradict the fixed point."""
    found = []
    for (code, counts), marker in zip(stats.noted(), itertools.cycle(_MARKERS)):
        cells = counts / stats.num_matrices >= _MINORITY
        look = {"marker": marker, "linestyle": "none", "markersize": 4.5, "markeredgewidth": 1.1}
        look |= {"markerfacecolor": "white", "markeredgecolor": "#111111"}
        found.append(_Mark(cells, look, f"{100 * _MINORITY:g} % of the matrices {code.legend}"))
    return [mark for mark in found if mark.cells.any()]


def _maps(stats: MapStatistics, alpha: np.ndarray, beta: np.ndarray, label: str) -> "matplotlib.figure.Figure":
    many = stats.num_matrices > 1  # one matrix has no spread
    quantities = panels(stats.variables)
    rows, columns = max(2, len(quantities)), 3 if many else 2
    figure = new_figure(14.5 if many else 10.5, 4.1 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True)
    edges = cell_edges(alpha), cell_edges(beta)
    for (variable, panel), row in zip(quantities, grid, strict=False):
        _quantity(figure, row, edges, stats.moments(variable.name), panel)
    for axes in (*grid[len(quantities) :, :-1].flat, *grid[2:, -1]):
        axes.set_visible(False)
    fractions, marks = stats.fractions(), _marks(stats)
    _regimes(figure, grid[:2, -1], edges, fractions, _predicted(stats))
    for mark in marks:
        a, b = np.nonzero(mark.cells)
        grid[0, -1].plot(alpha[a], beta[b], **mark.look)
    drawn = _lines(stats, fractions)
    for axes in grid.flat:
        for line in drawn:
            if line.everywhere or axes in grid[:, -1]:
                line.draw(axes, alpha, beta)
        for values, axis in ((alpha, "x"), (beta, "y")):
            if is_geometric(values):
                set_log(axes, axis)
        axes.set_xlim(edges[0][0], edges[0][-1])
        axes.set_ylim(edges[1][0], edges[1][-1])
    for axes in (*grid[-1, :-1], grid[1, -1]):
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(_ALPHA, fontsize=LABEL_SIZE, color=INK)
    for axes in grid[:, 0]:
        axes.set_ylabel(label, fontsize=LABEL_SIZE, color=INK)
    _legend(figure, stats, fractions, drawn, marks)
    return figure


def _quantity(
    figure: Any,
    row: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    moments: tuple[np.ndarray, np.ndarray],
    panel: Panel,
) -> None:
    """Mean and spread of a variable side by side; the value where there is but one matrix."""
    many = row.size > 2
    titles = [f"Mean {panel.title}", f"Spread of {panel.title}"] if many else [_capital(panel.title)]
    for axes, values, title in zip(row, moments, titles, strict=False):
        _heat(figure, axes, edges, values, panel.unit, _COLOURS.get(panel.unit, _OTHERS))
        style_axes(axes, title=title)


def _regimes(
    figure: Any,
    column: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    fractions: dict[str, np.ndarray],
    predicted: bool,
) -> None:
    """What most matrices do, and below it the fraction that converges."""
    _dominant(column[0], edges, fractions)
    regime = "Predicted regime" if predicted else "Regime"
    style_axes(column[0], title=f"{regime} of most matrices (paler: of fewer)")
    _heat(figure, column[1], edges, fractions["converges"], "fraction of matrices", "Blues", low=0.0, high=1.0)
    style_axes(column[1], title="Fraction that converges")


def _capital(what: str) -> str:
    return what[0].upper() + what[1:]


def _heat(
    figure: Any,
    axes: "matplotlib.axes.Axes",
    edges: tuple[np.ndarray, np.ndarray],
    values: np.ndarray,
    unit: str,
    colours: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    axes.patch.set(facecolor="#E8E8E8", edgecolor=FAINT, hatch="////")  # shows where there is no number
    shown = np.ma.masked_invalid(values.T)
    if low is None or high is None:
        low, high = 0.0, float(shown.max()) if shown.count() else 1.0
        high = high if high > 0 else 1.0
    mesh = axes.pcolormesh(*edges, shown, cmap=colours, vmin=low, vmax=high, rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=25)
    bar.set_label(unit, fontsize=TICK_SIZE, color=INK)
    bar.ax.tick_params(labelsize=TICK_SIZE, colors=INK)
    bar.outline.set_visible(False)


def _dominant(
    axes: "matplotlib.axes.Axes", edges: tuple[np.ndarray, np.ndarray], fractions: dict[str, np.ndarray]
) -> None:
    names = list(fractions)
    stacked = np.stack([fractions[name] for name in names])
    first, top = stacked.argmax(axis=0), stacked.max(axis=0)
    picture = np.zeros((*top.shape, 3))
    for index, name in enumerate(names):
        picture = np.where((first == index)[..., None], tint(REGIME_COLOURS[name], _strength(top)), picture)
    axes.pcolormesh(*edges, picture.swapaxes(0, 1), rasterized=True)


def _strength(fraction: np.ndarray | float) -> np.ndarray:
    """How much colour a fraction gets: little for the least a majority can have, all for every matrix."""
    return np.asarray(0.2 + 0.8 * np.clip((np.asarray(fraction) - _LEAST) / (1 - _LEAST), 0, 1))


class _Line(NamedTuple):
    """A curve where `values` (alphas, betas) cross `level`; only the panels of regimes show it unless `everywhere`."""

    text: str
    values: np.ndarray
    colour: str
    style: str
    width: float
    level: float = 1.0
    everywhere: bool = False

    def crosses_grid(self) -> bool:
        finite = self.values[np.isfinite(self.values)]
        return bool(finite.size) and bool(finite.min() < self.level < finite.max())

    def draw(self, axes: "matplotlib.axes.Axes", alpha: np.ndarray, beta: np.ndarray) -> None:
        lines = axes.contour(
            alpha,
            beta,
            np.ma.masked_invalid(self.values.T),
            levels=[self.level],
            colors=self.colour,
            linewidths=self.width,
            linestyles=self.style,
        )
        lines.set_path_effects(outline(self.width + 1.6, "white"))


def _lines(stats: MapStatistics, fractions: dict[str, np.ndarray]) -> list[_Line]:
    """The curves of a map that lie in its grid: of what is proved, of minorities, and of what is exact."""
    bounds = [variable for variable in stats.variables.values() if variable.boundary]
    proofs = [variable for variable in bounds if variable.certifies]
    exact = [variable for variable in bounds if not variable.certifies]
    found = [
        line for variable, colour in zip(proofs, itertools.cycle(_PROOFS)) for line in _of(stats, variable, colour)
    ]
    for name in _MINORITIES:
        text = f"{100 * _MINORITY:g} % of the matrices {name[:-1]}"
        found.append(_Line(text, fractions[name], REGIME_COLOURS[name], "dotted", 2.2, _MINORITY))
    found += [line for variable, colour in zip(exact, itertools.cycle(_EXACT)) for line in _of(stats, variable, colour)]
    return [line for line in found if line.crosses_grid()]


def _of(stats: MapStatistics, variable: Variable, colour: str) -> list[_Line]:
    """Where a variable reaches 1: of the median matrix and, where there are many, of those at the ends."""
    assert variable.boundary is not None
    whole = stats.sample_size == stats.num_matrices
    median = "median matrix" if whole else f"median of {stats.sample_size:,} of the matrices"
    text = variable.boundary.median.format(median=median)
    found = [_Line(text, stats.median(variable.name), colour, "solid", 1.8, everywhere=True)]
    if stats.num_matrices > 1:
        ends = stats.extremes(variable.name)[::-1]
        found += [
            _Line(text, x, colour, "dashed", 1.0) for text, x in zip(variable.boundary.extremes, ends, strict=False)
        ]
    return found


def _legend(
    figure: Any, stats: MapStatistics, fractions: dict[str, np.ndarray], drawn: list[_Line], marks: list[_Mark]
) -> None:
    patches, lines = mpl("patches"), mpl("lines")
    tuples = mpl("legend_handler").HandlerTuple(ndivide=None, pad=0)
    handles: list[Any] = [
        tuple(patches.Patch(color=tint(REGIME_COLOURS[name], _strength(fraction))) for fraction in (0.4, 0.7, 1.0))
        for name in fractions
    ]
    labels = list(fractions)

    for text, line in {line.text: line for line in drawn}.items():
        handles.append(lines.Line2D([], [], color=line.colour, linestyle=line.style, linewidth=line.width))
        labels.append(text)
    for mark in marks:
        handles.append(lines.Line2D([], [], **mark.look))
        labels.append(mark.text)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=4 if stats.num_matrices > 1 else 3,
        fontsize=TICK_SIZE,
        frameon=False,
        handler_map={tuple: tuples},
        handlelength=3,
    )


def _curves(stats: MapStatistics, alpha: np.ndarray, beta: np.ndarray, label: str) -> "matplotlib.figure.Figure":
    """One parameter moves: mean and spread as a line with a band, regimes as stacked fractions."""
    along_alpha = alpha.size > 1
    x, name = (alpha, _ALPHA) if along_alpha else (beta, label)
    fixed = f"β = {stats.beta[0]:.4g}" if along_alpha else f"α = {alpha[0]:.4g}"
    quantities = panels(stats.variables)
    figure = new_figure(4.5 * (len(quantities) + 1), 4.8)
    row = figure.subplots(1, len(quantities) + 1)
    for axes, (variable, panel) in zip(row, quantities, strict=False):
        mean, spread = (values.reshape(-1) for values in stats.moments(variable.name))
        axes.fill_between(x, np.maximum(mean - spread, 0), mean + spread, color="#0072B2", alpha=0.2, linewidth=0)
        axes.plot(x, mean, color="#0072B2", marker="o", markersize=3)
        style_axes(axes, title=f"{_capital(panel.title)}, mean ± spread, {fixed}", x=name, y=panel.unit)
        axes.set_ylim(bottom=0)
    fractions = {regime: fraction.reshape(-1) for regime, fraction in stats.fractions().items()}
    axes = row[-1]
    axes.stackplot(
        x, *fractions.values(), colors=[REGIME_COLOURS[regime] for regime in fractions], labels=list(fractions)
    )
    figure.legend(loc="outside lower right", ncols=4, fontsize=TICK_SIZE, frameon=False)
    axes.set_ylim(0, 1)
    style_axes(axes, title=f"Fraction of matrices in each regime, {fixed}", x=name, y="fraction")
    for axes in row:
        axes.set_xlim(x[0], x[-1])
        light_axes(axes)
        if is_geometric(x):
            set_log(axes, "x")
    return figure


def _point(stats: MapStatistics) -> "matplotlib.figure.Figure":
    """No parameter moves: how the matrices are distributed."""
    quantities = panels(stats.variables)
    figure = new_figure(4.5 * (len(quantities) + 1), 4.8)
    row = figure.subplots(1, len(quantities) + 1)
    at = f"α = {stats.alpha[0]:.4g}, β = {stats.beta[0]:.4g}"
    for axes, (variable, panel) in zip(row, quantities, strict=False):
        values = np.asarray(stats.sample(variable.name), np.float64).reshape(-1)
        axes.hist(values[np.isfinite(values)], bins=30, color="#0072B2")
        style_axes(axes, title=f"{_capital(panel.title)} at {at}", x=panel.unit, y="matrices")
        light_axes(axes)
    fractions = {regime: float(fraction[0, 0]) for regime, fraction in stats.fractions().items()}
    row[-1].bar(list(fractions), list(fractions.values()), color=[REGIME_COLOURS[regime] for regime in fractions])
    row[-1].set_ylim(0, 1)
    style_axes(row[-1], title="Fraction of matrices in each regime", y="fraction")
    light_axes(row[-1])
    return figure
