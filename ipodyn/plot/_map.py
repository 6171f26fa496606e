"""The picture of a stability map."""

import textwrap
from collections.abc import Set
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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
# variable, what it is, unit, colours
_ROLLOUT = [
    ("variance", "variance over time", "Σₖ Varₜ π[k]", "viridis"),
    ("entropy", "final entropy", "nats", "cividis"),
]
_ANALYTIC = [
    ("radius", "spectral radius", "radius; stable below 1", "viridis"),
    ("fixed_point_entropy", "entropy of the fixed point", "nats", "cividis"),
]
_MINORITIES, _MINORITY = ("oscillates", "collapses"), 0.05  # a fraction that matters before it is the largest
_DIFFERENCES = {  # disagreement: marker, what it says
    "stable_but_moving": ("o", "move beside a stable fixed point"),
    "unstable_but_still": ("x", "stand still where a nudge would grow"),
}
_LEAST = 0.25  # with four regimes the largest fraction is at least this
_BOUND = {"color": "#111111", "rim": "white"}
_EXACT = {"color": "#D7191C", "rim": "white"}


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
    >>> dataset = ipodyn.stability_map(P, alpha=[0.2, 0.9], beta=[1.0, 6.0], num_steps=100, policy0=[0.5, 0.3, 0.2])
    >>> figure = ipodyn.plot.stability_map(dataset)  # then figure.savefig("map.png")
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
    needed = [*(name for name, *_ in _quantities(frozenset(map(str, dataset)))), "regime"]
    missing = [name for name in needed if name not in dataset]
    if missing or not {"matrix", "alpha", "beta"} <= set(dataset.dims):
        raise ValueError(
            f"the dataset has dims {tuple(dataset.dims)} and lacks the variables {missing}; give what "
            "`ipodyn.stability_map` returns, with dims matrix, alpha and beta."
        )
    return MapStatistics.of(dataset)


def _quantities(variables: Set[str]) -> list[tuple[str, str, str, str]]:
    """What the panels show: the evidence of the rollouts, or, in a map without them, the fixed points."""
    return _ANALYTIC if _without_rollouts(variables) else _ROLLOUT


def _without_rollouts(variables: Set[str]) -> bool:
    return "radius" in variables and not {"variance", "entropy"} & variables


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
    if _without_rollouts(stats.variables):
        facts.append("fixed points, no rollouts")
    return f"{source}\n{' · '.join(facts)}"


def _differences(stats: MapStatistics) -> dict[str, np.ndarray]:
    """Name -> (A, B) mask: where enough rollouts contradict the fixed point in that way; only those there are."""
    if "disagreement" not in stats.flags:
        return {}
    fractions = stats.shares("disagreement")
    masks = {name: fractions[name] >= _MINORITY for name in _DIFFERENCES if name in fractions}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _maps(stats: MapStatistics, alpha: np.ndarray, beta: np.ndarray, label: str) -> "matplotlib.figure.Figure":
    many = stats.num_matrices > 1  # one matrix has no spread
    figure = new_figure(14.5 if many else 10.5, 8.2)
    panels = figure.subplots(2, 3 if many else 2, sharex=True, sharey=True)
    edges = cell_edges(alpha), cell_edges(beta)
    for (name, what, unit, colours), row in zip(_quantities(stats.variables), panels, strict=True):
        mean, spread = stats.moments(name)
        titles = [f"Mean {what}", f"Spread of {what}"] if many else [_capital(what)]
        for axes, values, title in zip(row, (mean, spread), titles, strict=False):
            _heat(figure, axes, edges, values, unit, colours)
            style_axes(axes, title=title)
    fractions = stats.shares()
    regime = "Predicted regime" if _without_rollouts(stats.variables) else "Regime"
    _dominant(panels[0, -1], edges, fractions)
    for name, mask in _differences(stats).items():
        a, b = np.nonzero(mask)
        panels[0, -1].plot(alpha[a], beta[b], **_mark(name))
    style_axes(panels[0, -1], title=f"{regime} of most matrices (paler: of fewer)")
    _heat(figure, panels[1, -1], edges, fractions["converges"], "fraction of matrices", "Blues", low=0.0, high=1.0)
    style_axes(panels[1, -1], title="Share that converges")
    drawn = _lines(stats, fractions)
    for axes in panels.flat:
        for line in drawn:
            if line.everywhere or axes in panels[:, -1]:
                line.draw(axes, alpha, beta)
        for values, axis in ((alpha, "x"), (beta, "y")):
            if is_geometric(values):
                set_log(axes, axis)
        axes.set_xlim(edges[0][0], edges[0][-1])
        axes.set_ylim(edges[1][0], edges[1][-1])
    for axes in panels[-1]:
        axes.set_xlabel(_ALPHA, fontsize=LABEL_SIZE, color=INK)
    for axes in panels[:, 0]:
        axes.set_ylabel(label, fontsize=LABEL_SIZE, color=INK)
    _legend(figure, stats, fractions, drawn)
    return figure


def _capital(what: str) -> str:
    return what[0].upper() + what[1:]


def _mark(difference: str) -> dict[str, Any]:
    return {
        "marker": _DIFFERENCES[difference][0],
        "linestyle": "none",
        "markersize": 4.5,
        "markerfacecolor": "white",
        "markeredgecolor": "#111111",
        "markeredgewidth": 1.1,
    }


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
    look: dict[str, str]
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
            colors=self.look["color"],
            linewidths=self.width,
            linestyles=self.style,
        )
        lines.set_path_effects(outline(self.width + 1.6, self.look["rim"]))


def _lines(stats: MapStatistics, fractions: dict[str, np.ndarray]) -> list[_Line]:
    """The curves of a map that lie in its grid."""
    many = stats.num_matrices > 1
    lines = []
    whole = stats.sample_size == stats.num_matrices
    median = "median matrix" if whole else f"median of {stats.sample_size:,} of the matrices"
    if "contraction_bound" in stats.variables:
        bound = stats.median("contraction_bound")
        text = f"contraction bound = 1, {median} (convergence proved below)"
        lines.append(_Line(text, bound, _BOUND, "solid", 1.8, everywhere=True))
        text = "the first and the last matrix to lose that proof"
        for extreme in stats.extremes("contraction_bound")[::-1] if many else ():
            lines.append(_Line(text, extreme, _BOUND, "dashed", 1.0))
    for name in _MINORITIES:
        look = {"color": REGIME_COLOURS[name], "rim": "white"}
        text = f"{100 * _MINORITY:g} % of the matrices {name[:-1]}"
        lines.append(_Line(text, fractions[name], look, "dotted", 2.2, _MINORITY))
    if "radius" in stats.variables:
        text = f"exact boundary: spectral radius = 1, {median}"
        lines.append(_Line(text, stats.median("radius"), _EXACT, "solid", 1.8, everywhere=True))
        if many:
            text = "the first matrix to lose stability"
            lines.append(_Line(text, stats.extremes("radius")[1], _EXACT, "dashed", 1.0))
    return [line for line in lines if line.crosses_grid()]


def _legend(figure: Any, stats: MapStatistics, fractions: dict[str, np.ndarray], drawn: list[_Line]) -> None:
    patches, lines = mpl("patches"), mpl("lines")
    tuples = mpl("legend_handler").HandlerTuple(ndivide=None, pad=0)
    handles: list[Any] = [
        tuple(patches.Patch(color=tint(REGIME_COLOURS[name], _strength(fraction))) for fraction in (0.4, 0.7, 1.0))
        for name in fractions
    ]
    labels = list(fractions)

    for text, line in {line.text: line for line in drawn}.items():
        handles.append(lines.Line2D([], [], color=line.look["color"], linestyle=line.style, linewidth=line.width))
        labels.append(text)
    for name in _differences(stats):
        handles.append(lines.Line2D([], [], **_mark(name)))
        labels.append(f"{100 * _MINORITY:g} % of the matrices {_DIFFERENCES[name][1]}")
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
    figure = new_figure(13.5, 4.8)
    panels = figure.subplots(1, 3)
    for axes, (variable, what, unit, _) in zip(panels, _quantities(stats.variables), strict=False):
        mean, spread = (values.reshape(-1) for values in stats.moments(variable))
        axes.fill_between(x, np.maximum(mean - spread, 0), mean + spread, color="#0072B2", alpha=0.2, linewidth=0)
        axes.plot(x, mean, color="#0072B2", marker="o", markersize=3)
        style_axes(axes, title=f"{_capital(what)}, mean ± spread, {fixed}", x=name, y=unit)
        axes.set_ylim(bottom=0)
    fractions = {regime: fraction.reshape(-1) for regime, fraction in stats.shares().items()}
    axes = panels[2]
    axes.stackplot(
        x, *fractions.values(), colors=[REGIME_COLOURS[regime] for regime in fractions], labels=list(fractions)
    )
    figure.legend(loc="outside lower right", ncols=4, fontsize=TICK_SIZE, frameon=False)
    axes.set_ylim(0, 1)
    style_axes(axes, title=f"Fraction of matrices in each regime, {fixed}", x=name, y="fraction")
    for axes in panels:
        axes.set_xlim(x[0], x[-1])
        light_axes(axes)
        if is_geometric(x):
            set_log(axes, "x")
    return figure


def _point(stats: MapStatistics) -> "matplotlib.figure.Figure":
    """No parameter moves: how the matrices are distributed."""
    figure = new_figure(13.5, 4.8)
    panels = figure.subplots(1, 3)
    at = f"α = {stats.alpha[0]:.4g}, β = {stats.beta[0]:.4g}"
    for axes, (variable, what, unit, _) in zip(panels, _quantities(stats.variables), strict=False):
        values = np.asarray(stats.sample(variable), np.float64).reshape(-1)
        axes.hist(values[np.isfinite(values)], bins=30, color="#0072B2")
        style_axes(axes, title=f"{_capital(what)} at {at}", x=unit, y="matrices")
        light_axes(axes)
    fractions = {regime: float(fraction[0, 0]) for regime, fraction in stats.shares().items()}
    panels[2].bar(list(fractions), list(fractions.values()), color=[REGIME_COLOURS[regime] for regime in fractions])
    panels[2].set_ylim(0, 1)
    style_axes(panels[2], title="Fraction of matrices in each regime", y="fraction")
    light_axes(panels[2])
    return figure
