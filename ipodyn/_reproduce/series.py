"""The effect of one parameter: trajectories of one matrix at some of its values, and the statistic of all matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import sweep
from ..plot._figure import CATEGORICAL, LABEL_SIZE, light_axes, new_figure, style_axes
from .config import WORDS, Config, Made, Material, ProgressCallback, beta_factor, is_finite, loop_words, matrices_for
from .evolution import trajectories
from .loops import batch_of_loops, finite_orbits
from .maps import QUANTITY
from .pictures import heading
from .trends import trend, way_there

if TYPE_CHECKING:
    import matplotlib.axes

SYMBOLS = {"alpha": "α", "beta": "β", "lam": "λ"}
_LABELS = {"variance": "time-averaged variance", "entropy": "final entropy (nats)"}


def settings_of(config: Config, parameter: str, values: tuple[float, ...], variant: str) -> np.ndarray:
    """(N, 3): alpha, beta, lam for the values of the parameter that moves."""
    series = config.series[parameter]
    settings = np.tile([series.alpha, series.beta, series.lam], (len(values), 1))
    settings[:, list(SYMBOLS).index(parameter)] = values
    settings[:, 1] *= beta_factor(variant, config)
    return settings


def one_parameter(
    config: Config,
    material: Material,
    progress: ProgressCallback | None = None,
    *,
    parameter: str,
    structure: str,
    variant: str,
) -> Made:
    """Mean and standard deviation over the matrices of a kind against alpha, beta or lam."""
    P = matrices_for(config, material, structure, variant)
    settings = settings_of(config, parameter, config.series[parameter].values, variant)
    rounds = config.finite_rounds if is_finite(variant) else config.rounds
    statistics = _statistics(P, settings, rounds, variant, config, progress)
    mean, std = ({key: op(x, axis=1) for key, x in statistics.items()} for op in (np.nanmean, np.nanstd))
    name, symbol = QUANTITY[structure], SYMBOLS[parameter]
    at = settings[:, list(SYMBOLS).index(parameter)]
    columns = {
        "alpha": settings[:, 0],
        "beta": settings[:, 1],
        "lam": settings[:, 2],
        "matrices": np.full(len(settings), len(P)),
        "rounds": np.full(len(settings), rounds),
        **{f"mean_{key}": x for key, x in mean.items()},
        **{f"std_{key}": x for key, x in std.items()},
    }
    samples = statistics[name].T if is_finite(variant) else None
    moves = trend(mean[name], 0, at, floor=way_there(name, rounds), samples=samples)
    findings = {"matrices": len(P), "rounds": rounds, parameter: moves}
    words = (
        f"Mean {_LABELS[name]} over {len(P):,} {WORDS[structure]} matrices goes from {mean[name][0]:.3g} at {symbol} = "
        f"{at[0]:g} to {mean[name][-1]:.3g} at {symbol} = {at[-1]:g}"
    )
    others = ", ".join(
        f"{SYMBOLS[key]} = {value:g}" for key, value in zip(SYMBOLS, settings[0], strict=True) if key != parameter
    )
    index = material.representative(structure)
    shown = settings_of(config, parameter, config.series[parameter].shown, variant)
    span = config.evolution_rounds[structure]
    paths = trajectories(material.of(structure)[index], shown, span, variant.removesuffix("-finite"), config.dtype)
    titles = [f"{symbol} = {setting[list(SYMBOLS).index(parameter)]:g}" for setting in shown]

    def draw():
        figure = new_figure(3.6 + 2.3 * len(shown), 3.9)
        panels = figure.subplots(1, len(shown) + 1, width_ratios=[1.0] * len(shown) + [1.7], squeeze=False)[0]
        _draw_paths(panels[:-1], titles, paths)
        panels[0].set_ylabel(f"probability, matrix {index}, exact loop", fontsize=LABEL_SIZE)
        _draw_band(panels[-1], at, mean[name], std[name])
        style_axes(panels[-1], title=f"{len(P):,} matrices, mean ± std", x=symbol, y=_LABELS[name])
        what = f"Effect of {symbol} on {WORDS[structure]} preferences at {others}, T = {rounds:,}"
        heading(figure, material, what, loop_words(variant, config))
        return figure

    return Made(columns, findings, words, draw)


def _statistics(
    P: np.ndarray, settings: np.ndarray, rounds: int, variant: str, config: Config, progress: ProgressCallback | None
) -> dict[str, np.ndarray]:
    """Variance and entropy of every setting on every matrix, (settings, matrices)."""
    v, m = (x.ravel() for x in np.indices((len(settings), len(P))))  # the matrix fastest: a block has one setting
    loops = batch_of_loops(P[m], *settings[v].astype(P.dtype).T, variant=variant)
    if is_finite(variant):
        orbits = finite_orbits(loops, config, rounds=rounds, progress=progress)
    else:
        orbits = sweep(loops, np.asarray(loops.pi_0), num_steps=rounds, progress=progress)
    shape = (len(settings), len(P))
    return {key: np.asarray(getattr(orbits, key), np.float64).reshape(shape) for key in ("variance", "entropy")}


def _draw_paths(panels: Sequence["matplotlib.axes.Axes"], titles: Sequence[str], paths: np.ndarray) -> None:
    """One panel a path (panels, rounds + 1, K), a line a response."""
    for axes, title, path in zip(panels, titles, paths, strict=True):
        for k in range(path.shape[1]):
            axes.plot(path[:, k], color=CATEGORICAL[k % len(CATEGORICAL)], linewidth=1.2)
        light_axes(axes)
        axes.set_ylim(-0.02, 1.02)
        style_axes(axes, title=title, x="round")
        if axes is not panels[0]:
            axes.set_yticklabels([])


def _draw_band(axes: "matplotlib.axes.Axes", at: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
    """A line with the band of one standard deviation to either side."""
    axes.fill_between(at, np.maximum(mean - std, 0), mean + std, color=CATEGORICAL[0], alpha=0.18, linewidth=0)
    axes.plot(at, mean, color=CATEGORICAL[0], marker="o", markersize=3)
    light_axes(axes)
