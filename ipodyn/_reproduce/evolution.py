"""The policy against rounds: a baseline, a larger alpha, and a larger beta * lam."""

import equinox as eqx
import jax
import numpy as np

from .._loops.mrs import MRS
from .._rollouts.rollout import rollout
from ..plot._figure import CATEGORICAL, LABEL_SIZE, TICK_SIZE, light_axes, new_figure, style_axes
from .config import WORDS, Config, Made, Material, Progress, is_finite, loop_words, share_of
from .loops import finite_orbits, loops_of
from .pictures import heading


def _itself(policy: jax.Array) -> jax.Array:
    return policy


@eqx.filter_jit
def _paths(loops: MRS, rounds: int) -> jax.Array:
    return jax.vmap(lambda loop: rollout(loop, num_steps=rounds, save=_itself, throw=False).saved)(loops)


def trajectories(P: np.ndarray, settings: np.ndarray, rounds: int, variant: str, dtype: str) -> np.ndarray:
    """(N, rounds + 1, K): the policies of one matrix P (K, K), start included; `settings` (N, 3): alpha, beta, lam."""
    loops = loops_of(P, settings, variant, dtype)
    paths = np.asarray(_paths(loops, rounds))
    start = np.broadcast_to(np.asarray(loops.pi_0)[:, None], (len(paths), 1, paths.shape[-1]))
    return np.concatenate([start, paths], axis=1).astype(np.float64)


def evolution(
    config: Config, material: Material, structure: str, variant: str, progress: Progress | None = None
) -> Made:
    """One matrix, three settings. Finite samples: the first realisation, and mean and spread of all of them."""
    rounds, panels = config.evolution_rounds[structure], config.evolution[structure]
    index = material.representative(structure)
    P = material.of(structure)[index]
    share = share_of(variant, config)
    settings = np.array([(panel.alpha, share * panel.product / config.lam, config.lam) for panel in panels])
    population = variant.removesuffix("-finite")
    expected = trajectories(P, settings, rounds, population, config.dtype)  # (panels, rounds + 1, K)
    names, ts, ks = (len(panels), rounds + 1, P.shape[0])
    place, when, which = (x.ravel() for x in np.indices((names, ts, ks)))
    columns = {
        "setting": [panels[n].name for n in place],
        "alpha": settings[place, 0],
        "beta": settings[place, 1],
        "lam": settings[place, 2],
        "matrix": np.full(place.size, index),
        "round": when,
        "response": which,
    }
    shown, spread = expected, None
    if is_finite(variant):
        drawn = _samples(P, settings, rounds, variant, config)
        shown, mean, spread = drawn[:, 0], drawn.mean(axis=1), drawn.std(axis=1)
        columns |= {
            "probability": shown.ravel(),
            "mean": mean.ravel(),
            "std": spread.ravel(),
            "population": expected.ravel(),
        }
    else:
        columns |= {"probability": shown.ravel()}
    late = shown[:, ts // 2 :]
    moving = late.var(axis=1).sum(axis=-1)
    last = shown[:, -1]
    entropies = -np.sum(np.where(last > 0, last * np.log(np.maximum(last, 1e-300)), 0.0), axis=-1)
    findings = {
        "late_variance": {panel.name: float(value) for panel, value in zip(panels, moving, strict=True)},
        "final_entropy": {panel.name: float(value) for panel, value in zip(panels, entropies, strict=True)},
    }
    words = "; ".join(
        f"{panel.name} (α {panel.alpha:g}, βλ {share * panel.product:g}): variance over the later half {value:.2g}, "
        f"final entropy {entropy:.2f} nats"
        for panel, value, entropy in zip(panels, moving, entropies, strict=True)
    )

    def draw():
        figure = new_figure(11.5, 3.9)
        for axes, panel, path, exact in zip(
            figure.subplots(1, names, sharey=True, squeeze=False)[0], panels, shown, expected, strict=True
        ):
            for k in range(ks):
                colour = CATEGORICAL[k % len(CATEGORICAL)]
                axes.plot(path[:, k], color=colour, linewidth=1.4, label=f"response {k}")
                if is_finite(variant):
                    axes.plot(exact[:, k], color=colour, linewidth=0.9, linestyle=":")
            light_axes(axes)
            axes.set_ylim(-0.02, 1.02)
            style_axes(axes, title=f"{panel.name}: α = {panel.alpha:g}, βλ = {share * panel.product:g}", x="round")
        figure.axes[0].set_ylabel("probability", fontsize=LABEL_SIZE)
        figure.axes[0].legend(fontsize=TICK_SIZE, frameon=False, loc="upper left")
        dotted = " · dotted: exact loop" if is_finite(variant) else ""
        heading(
            figure,
            material,
            f"Policy on a {WORDS[structure]} matrix (number {index})",
            loop_words(variant, config) + dotted,
        )
        return figure

    return Made(columns, findings, words, draw)


def _samples(P: np.ndarray, settings: np.ndarray, rounds: int, variant: str, config: Config) -> np.ndarray:
    """(N, realisations, rounds + 1, K)."""
    loops = loops_of(P, settings, variant, config.dtype)
    orbits = finite_orbits(loops, config, rounds=rounds, trajectories=config.trajectories, paths=True)
    paths = np.asarray(orbits.saved, np.float64)
    start = np.broadcast_to(np.asarray(loops.pi_0)[:, None, None], (*paths.shape[:2], 1, paths.shape[-1]))
    return np.concatenate([start, paths], axis=2)
