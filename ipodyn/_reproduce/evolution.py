"""The policy against rounds: a baseline, a larger alpha, and a larger beta * lam."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import MRS, rollout
from ..plot._figure import CATEGORICAL, LABEL_SIZE, TICK_SIZE, light_axes, new_figure, style_axes
from .config import WORDS, Config, Made, Material, Panel, ProgressCallback, beta_factor, is_finite, loop_words
from .loops import finite_orbits, loops_of
from .pictures import heading

if TYPE_CHECKING:
    import matplotlib.figure


@eqx.filter_jit
def _paths(loops: MRS, rounds: int) -> jax.Array:
    return jax.vmap(lambda loop: rollout(loop, num_steps=rounds, save=jnp.asarray, throw=False).saved)(loops)


def trajectories(P: np.ndarray, settings: np.ndarray, rounds: int, variant: str, dtype: str) -> np.ndarray:
    """(N, rounds + 1, K): the policies of one matrix P (K, K), start included; `settings` (N, 3): alpha, beta, lam."""
    loops = loops_of(P, settings, variant, dtype)
    paths = np.asarray(_paths(loops, rounds))
    start = np.broadcast_to(np.asarray(loops.pi_0)[:, None], (len(paths), 1, paths.shape[-1]))
    return np.concatenate([start, paths], axis=1).astype(np.float64)


def evolution(
    config: Config, material: Material, progress: ProgressCallback | None = None, *, structure: str, variant: str
) -> Made:
    """One matrix, three settings. Finite samples: the first realisation, and mean and spread of all of them."""
    rounds, panels = config.evolution_rounds[structure], config.evolution[structure]
    index = material.representative(structure)
    P = material.of(structure)[index]
    factor = beta_factor(variant, config)
    settings = np.array([(panel.alpha, factor * panel.product / config.lam, config.lam) for panel in panels])
    expected = trajectories(P, settings, rounds, variant.removesuffix("-finite"), config.dtype)
    drawn = _samples(P, settings, rounds, variant, config) if is_finite(variant) else None
    shown = expected if drawn is None else drawn[:, 0]  # (panels, rounds + 1, K)
    findings = _findings(panels, shown)
    words = "; ".join(
        f"{panel.name} (α {panel.alpha:g}, βλ {factor * panel.product:g}): variance over the later half "
        f"{findings['late_variance'][panel.name]:.2g}, final entropy {findings['final_entropy'][panel.name]:.2f} nats"
        for panel in panels
    )
    titles = [f"{panel.name}: α = {panel.alpha:g}, βλ = {factor * panel.product:g}" for panel in panels]

    def draw():
        figure = _draw(titles, shown, None if drawn is None else expected)
        how = loop_words(variant, config) + ("" if drawn is None else " · dotted: exact loop")
        heading(figure, material, f"Policy on a {WORDS[structure]} matrix (number {index})", how)
        return figure

    return Made(_columns(panels, settings, index, expected, drawn), findings, words, draw)


def _columns(
    panels: Sequence[Panel], settings: np.ndarray, index: int, expected: np.ndarray, drawn: np.ndarray | None
) -> dict[str, Any]:
    """The table: a row for every panel, round and response; `expected` (panels, rounds + 1, K)."""
    place, when, which = (x.ravel() for x in np.indices(expected.shape))
    columns = {
        "setting": [panels[int(n)].name for n in place],
        "alpha": settings[place, 0],
        "beta": settings[place, 1],
        "lam": settings[place, 2],
        "matrix": np.full(place.size, index),
        "round": when,
        "response": which,
    }
    if drawn is None:
        return columns | {"probability": expected.ravel()}
    return columns | {
        "probability": drawn[:, 0].ravel(),
        "mean": drawn.mean(axis=1).ravel(),
        "std": drawn.std(axis=1).ravel(),
        "population": expected.ravel(),
    }


def _findings(panels: Sequence[Panel], paths: np.ndarray) -> dict[str, dict[str, float]]:
    """Variance over the later half of each path (panels, rounds + 1, K), and the entropy of its end."""
    variances = paths[:, paths.shape[1] // 2 :].var(axis=1).sum(axis=-1)
    last = paths[:, -1]
    entropies = -np.sum(np.where(last > 0, last * np.log(np.maximum(last, 1e-300)), 0.0), axis=-1)
    return {
        "late_variance": {panel.name: float(value) for panel, value in zip(panels, variances, strict=True)},
        "final_entropy": {panel.name: float(value) for panel, value in zip(panels, entropies, strict=True)},
    }


def _draw(titles: Sequence[str], paths: np.ndarray, dotted: np.ndarray | None) -> "matplotlib.figure.Figure":
    """One panel a path (panels, rounds + 1, K), a line a response; `dotted` gives thin lines beside them."""
    figure = new_figure(11.5, 3.9)
    for n, axes in enumerate(figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]):
        for k in range(paths.shape[-1]):
            colour = CATEGORICAL[k % len(CATEGORICAL)]
            axes.plot(paths[n, :, k], color=colour, linewidth=1.4, label=f"response {k}")
            if dotted is not None:
                axes.plot(dotted[n, :, k], color=colour, linewidth=0.9, linestyle=":")
        light_axes(axes)
        axes.set_ylim(-0.02, 1.02)
        style_axes(axes, title=titles[n], x="round")
    figure.axes[0].set_ylabel("probability", fontsize=LABEL_SIZE)
    figure.axes[0].legend(fontsize=TICK_SIZE, frameon=False, loc="upper left")
    return figure


def _samples(P: np.ndarray, settings: np.ndarray, rounds: int, variant: str, config: Config) -> np.ndarray:
    """(N, realisations, rounds + 1, K)."""
    loops = loops_of(P, settings, variant, config.dtype)
    orbits = finite_orbits(loops, config, rounds=rounds, trajectories=config.trajectories, save=jnp.asarray)
    paths = np.asarray(orbits.saved, np.float64)
    start = np.broadcast_to(np.asarray(loops.pi_0)[:, None, None], (*paths.shape[:2], 1, paths.shape[-1]))
    return np.concatenate([start, paths], axis=2)
