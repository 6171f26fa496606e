"""Why policies must not be averaged over realisations: their phases differ, and the average stands still."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from .. import variance_of_average
from ..plot._figure import CATEGORICAL, INK, LABEL_SIZE, TICK_SIZE, light_axes, new_figure, style_axes
from .config import Config, Made, Material, ProgressCallback, beta_factor, loop_words
from .evolution import trajectories
from .loops import finite_orbits, loops_of
from .pictures import heading

if TYPE_CHECKING:
    import matplotlib.axes

SHOWN_ROUNDS, SHOWN = 150, 3


def phases(config: Config, material: Material, progress: ProgressCallback | None = None, *, variant: str) -> Made:
    """One oscillating loop on finite samples: realisations, their average, and the variance of either."""
    setting, rounds = config.phase_setting, config.phase_rounds
    index = material.representative("cyclic")
    P = material.cyclic[index]
    product = beta_factor(variant, config) * setting.product
    settings = np.array([[setting.alpha, product / config.lam, config.lam]])
    loops = loops_of(P, settings, variant, config.dtype)
    orbits = finite_orbits(
        loops, config, rounds=rounds, trajectories=config.trajectories, save=jnp.asarray, progress=progress
    )
    late = slice(rounds // 2, None)  # all start together: phases need some rounds to spread
    paths = np.asarray(orbits.saved, np.float64)[0]
    variances = paths[:, late].var(axis=1).sum(axis=-1)
    exact = trajectories(P, settings, rounds, variant.removesuffix("-finite"), config.dtype)[0, 1:]
    findings = {
        "mean_of_variances": float(variances.mean()),
        "error": float(variances.std(ddof=1) / len(variances) ** 0.5),
        "variance_of_average": float(variance_of_average(paths[:, late])),
        "exact_variance": float(exact[late].var(axis=0).sum()),
        "realisations": len(paths),
    }
    average = paths.mean(axis=0)
    top = int(np.argmax(exact[late].var(axis=0)))
    when, which = (x.ravel() for x in np.indices(average.shape))
    columns = {
        "round": when + 1,
        "response": which,
        "exact": exact.ravel(),
        "average": average.ravel(),
        **{f"realisation_{n}": paths[n].ravel() for n in range(min(SHOWN, len(paths)))},
    }
    words = (
        f"Later half of {rounds:,} rounds: variance of the averaged policy {findings['variance_of_average']:.3g}, "
        f"mean of the variances of {len(paths)} realisations {findings['mean_of_variances']:.3g}, exact loop "
        f"{findings['exact_variance']:.3g}"
    )

    def draw():
        figure = new_figure(11.5, 3.9)
        left, right = figure.subplots(1, 2, width_ratios=[2.4, 1.0])
        last = slice(-min(SHOWN_ROUNDS, rounds), None)
        _draw_realisations(left, np.arange(1, rounds + 1)[last], paths[:, last, top], average[last, top])
        left.set_ylabel(f"probability of response {top}", fontsize=LABEL_SIZE)
        _draw_variances(right, findings)
        what = f"Averages hide oscillation: matrix {index}, α = {setting.alpha:g}, βλ = {product:g}"
        heading(figure, material, what, loop_words(variant, config))
        return figure

    return Made(columns, findings, words, draw)


def _draw_realisations(axes: "matplotlib.axes.Axes", at: np.ndarray, paths: np.ndarray, average: np.ndarray) -> None:
    """A few of the realisations (N, rounds) of one probability, and their average (rounds,)."""
    for n in range(min(SHOWN, len(paths))):
        axes.plot(at, paths[n], color=CATEGORICAL[n], linewidth=1.0, label=f"realisation {n}")
    axes.plot(at, average, color=INK, linewidth=2.2, label=f"average of {len(paths)}")
    light_axes(axes)
    axes.set_ylim(-0.02, 1.3)  # the legend has the upper part to itself
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(fontsize=TICK_SIZE, frameon=False, loc="upper right", ncols=2)
    style_axes(axes, title=f"Last {at.size} rounds", x="round")


def _draw_variances(axes: "matplotlib.axes.Axes", findings: Mapping[str, float]) -> None:
    """One bar for each of the three variances."""
    bars = {"of the averaged policy": "variance_of_average", "mean over realisations": "mean_of_variances"}
    bars |= {"exact loop": "exact_variance"}
    axes.barh(list(bars), [findings[key] for key in bars.values()], color=CATEGORICAL[0])
    light_axes(axes)
    axes.tick_params(labelsize=LABEL_SIZE)
    style_axes(axes, title="Variance in time", x="Σₖ Varₜ π[k], later half")
