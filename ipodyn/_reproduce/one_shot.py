"""One-shot optima as the data are sampled more and more from the best response."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import AbstractObjective, concentration, concentration_condition, row_gap_monotone, strong_order
from ..plot._figure import CATEGORICAL, light_axes, new_figure, style_axes
from .config import WORDS, Config, Made, Material, ProgressCallback, beta_factor, matrices_for, objective_of
from .pictures import heading


@eqx.filter_jit
def _along(P: jax.Array, skew: jax.Array, beta: jax.Array, objective: AbstractObjective, num: int):
    def one(P: jax.Array):
        K = P.shape[0]
        order = strong_order(P).order
        uniform = jnp.full(K, 1 / K, P.dtype)
        skewed = (1 - skew) / K + jnp.where(jnp.arange(K) == order[0], skew, jnp.zeros_like(skew))
        path = concentration(objective, P, uniform, skewed, num=num, beta=beta, order=order, throw=False)
        condition = concentration_condition(P, uniform, skewed, order=order)
        pairs = row_gap_monotone(P).pairs
        shrunk = pairs & condition.violations
        return path.weight, path.entropy, path.top, condition.holds, jnp.sum(pairs), jnp.sum(shrunk)

    return jax.vmap(one)(P)


def concentrations(
    config: Config, material: Material, progress: ProgressCallback | None = None, *, variant: str
) -> Made:
    """Entropy and top mass of the optimum against the weight of skewed data, on strongly transitive matrices."""
    P = matrices_for(config, material, "st", variant)
    skew = np.asarray(config.skew, P.dtype)
    beta = np.asarray(config.one_shot_beta * beta_factor(variant, config), P.dtype)
    statistics = _along(jnp.asarray(P), jnp.asarray(skew), jnp.asarray(beta), objective_of(variant), config.path_points)
    weight, entropy, top, holds, pairs, shrunk = (np.asarray(x) for x in statistics)
    weight = weight[0].astype(np.float64)
    known = np.isfinite(entropy).all(axis=1)
    change = (entropy[:, -1] - entropy[:, 0])[known]
    tolerance = 1e-5
    findings = {
        "matrices": len(P),
        "with_optimum": int(known.sum()),
        "entropy_falls": float(np.mean(change < -tolerance)),
        "entropy_rises": float(np.mean(change > tolerance)),
        "condition_holds": int(holds.sum()),
        "rises_though_condition_holds": int((change > tolerance)[holds[known]].sum()),
        "pairs_with_premise": int(pairs.sum()),
        "of_them_shrunk": int(shrunk.sum()),
        "first": float(entropy[known, 0].mean()),
        "last": float(entropy[known, -1].mean()),
    }
    columns = {
        "weight": weight,
        "matrices": np.full(weight.size, int(known.sum())),
        "mean_entropy": entropy[known].mean(axis=0),
        "std_entropy": entropy[known].std(axis=0),
        "mean_top": top[known].mean(axis=0),
        "std_top": top[known].std(axis=0),
    }
    words = (
        f"Mean entropy of the optimum goes from {findings['first']:.3f} nats on uniform data to {findings['last']:.3f} "
        f"with {config.skew:.0%} more mass on the best response; it falls on {findings['entropy_falls']:.1%} of "
        f"{int(known.sum()):,} matrices and rises on {findings['entropy_rises']:.1%}"
    )

    def draw():
        figure = new_figure(11.5, 3.9)
        for axes, key, label, colour in zip(
            figure.subplots(1, 2),
            ("entropy", "top"),
            ("entropy of the optimum (nats)", "largest probability"),
            CATEGORICAL,
            strict=False,
        ):
            mean, std = np.asarray(columns[f"mean_{key}"]), np.asarray(columns[f"std_{key}"])
            axes.fill_between(weight, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
            axes.plot(weight, mean, color=colour, marker="o", markersize=3)
            light_axes(axes)
            style_axes(axes, title="Mean ± std", x="weight of skewed data (0: uniform)", y=label)
        what = f"One-shot optima under skewed sampling, {int(known.sum()):,} {WORDS['st']} matrices, β = {beta:g}"
        heading(figure, material, what, variant[:3].upper())
        return figure

    return Made(columns, findings, words, draw)
