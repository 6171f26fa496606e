"""Heat maps over (alpha, beta * lam): mean and standard deviation over all matrices of a kind."""

from typing import Any

import numpy as np

from .. import Regime, stability_map
from ..plot._figure import new_figure
from .config import (
    WORDS,
    Config,
    Made,
    Material,
    ProgressCallback,
    beta_factor,
    is_finite,
    loop_words,
    matrices_for,
    objective_of,
)
from .loops import batch_of_loops, finite_orbits
from .pictures import heading, heat
from .trends import trend, way_there

QUANTITY = {"cyclic": "variance", "st": "entropy"}
_TITLES = {"variance": "time-averaged variance of the policy", "entropy": "final entropy"}
_UNITS = {"variance": "Σₖ Varₜ π[k], rounds 1..T", "entropy": "nats"}
_COLOURS = {"variance": "viridis", "entropy": "cividis"}


def heat_map(
    config: Config, material: Material, progress: ProgressCallback | None = None, *, structure: str, variant: str
) -> Made:
    """Time-averaged variance of cyclic matrices, final entropy of strongly transitive ones."""
    P = matrices_for(config, material, structure, variant)
    alphas = np.array(config.alphas)
    products = np.array(config.products) * beta_factor(variant, config)
    rounds = config.finite_rounds if is_finite(variant) else config.rounds
    name = QUANTITY[structure]
    findings: dict = {"matrices": len(P), "rounds": rounds, "start": "uniform"}
    if is_finite(variant):
        cells = _finite_cells(config, P, alphas, products, variant, rounds, progress)
    else:
        cells, regimes = _exact_cells(config, P, alphas, products, variant, progress)
        findings |= regimes
    mean, std = ({key: op(x, axis=0) for key, x in cells.items()} for op in (np.nanmean, np.nanstd))
    samples = cells[name] if is_finite(variant) else None
    for axis, (which, at) in enumerate((("alpha", alphas), ("product", products))):
        findings[which] = trend(mean[name], axis, at, floor=way_there(name, rounds), samples=samples)
    a, b = (x.ravel() for x in np.indices((alphas.size, products.size)))
    columns = {
        "alpha": alphas[a],
        "beta": products[b] / config.lam,
        "lam": np.full(a.size, config.lam),
        "beta_lam": products[b],
        "matrices": np.full(a.size, len(P)),
        "rounds": np.full(a.size, rounds),
        **{f"mean_{key}": x.ravel() for key, x in mean.items()},
        **{f"std_{key}": x.ravel() for key, x in std.items()},
    }
    top, low = (np.unravel_index(pick(mean[name]), mean[name].shape) for pick in (np.nanargmax, np.nanargmin))
    words = f"Mean {_TITLES[name]} over {len(P):,} {WORDS[structure]} matrices: " + ", ".join(
        f"{word} {mean[name][place]:.3g} at α {alphas[place[0]]:.2g} and βλ {products[place[1]]:.3g}"
        for word, place in (("largest", top), ("smallest", low))
    )

    def draw():
        figure = new_figure(11.5, 4.6)
        left, right = figure.subplots(1, 2)
        for axes, values, word in ((left, mean[name], "Mean"), (right, std[name], "Standard deviation")):
            heat(axes, alphas, products, values, title=word, unit=_UNITS[name], colours=_COLOURS[name])
        what = (
            f"{_TITLES[name].capitalize()}, {len(P):,} {WORDS[structure]} matrices, T = {rounds:,}, λ = {config.lam:g}"
        )
        heading(figure, material, what, loop_words(variant, config))
        return figure

    return Made(columns, findings, words, draw)


def _exact_cells(
    config: Config,
    P: np.ndarray,
    alphas: np.ndarray,
    products: np.ndarray,
    variant: str,
    progress: ProgressCallback | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every matrix in every cell, (matrices, alphas, products), and how often each regime was seen."""
    dataset = stability_map(
        P,
        alpha=alphas,
        beta=products / config.lam,
        lam=config.lam,
        num_steps=config.rounds,
        objective=objective_of(variant),
        policy0=np.full(P.shape[-1], 1 / P.shape[-1], P.dtype),
        progress=progress,
    )
    regime = np.asarray(dataset["regime"])
    findings: dict[str, Any] = {"regimes": {kind.name: float(np.mean(regime == kind)) for kind in Regime}}
    if "contraction_bound" in dataset:
        proved = np.asarray(dataset["contraction_bound"]) < 1
        findings["proved"] = int(proved.sum())
        findings["proved_but_oscillating"] = int((proved & (regime == Regime.oscillates)).sum())
        findings["proved_but_unresolved"] = int((proved & (regime == Regime.unresolved)).sum())
    return {key: np.asarray(dataset[key], np.float64) for key in ("variance", "entropy")}, findings


def _finite_cells(
    config: Config,
    P: np.ndarray,
    alphas: np.ndarray,
    products: np.ndarray,
    variant: str,
    rounds: int,
    progress: ProgressCallback | None,
) -> dict[str, np.ndarray]:
    """One trajectory of every matrix in every cell: (matrices, alphas, products)."""
    shape = (alphas.size, products.size, len(P))
    a, b, m = (x.ravel() for x in np.indices(shape))
    alpha, beta = alphas[a].astype(P.dtype), (products[b] / config.lam).astype(P.dtype)
    loops = batch_of_loops(P[m], alpha, beta, np.full(a.size, config.lam, P.dtype), variant)
    orbits = finite_orbits(loops, config, rounds=rounds, progress=progress)

    def cell(x: object) -> np.ndarray:
        return np.moveaxis(np.asarray(x, np.float64)[:, 0].reshape(shape), -1, 0)

    return {"variance": cell(orbits.variance), "entropy": cell(orbits.entropy)}
