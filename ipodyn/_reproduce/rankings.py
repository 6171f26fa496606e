"""How often the ranking axioms hold, by objective and by what is sampled."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import audit, plot, strong_order
from .config import Config, Made, Material, ProgressCallback


def rankings(config: Config, material: Material, progress: ProgressCallback | None = None) -> Made:
    """The audit of all matrices; and of the strictly strongly transitive ones, whose order IPO keeps for every mu."""
    P = material.all.astype(config.dtype)
    data = audit(P, attributes={"source": material.source, "synthetic": material.synthetic})
    if progress is not None:
        progress(1, 2)
    fraction, number = np.asarray(data["fraction"]), np.asarray(data["number"])
    axes = [[str(name) for name in data[axis].values] for axis in ("objective", "sampler", "axiom")]
    places = [x.ravel() for x in np.indices(fraction.shape)]
    columns = {
        **{
            axis: [names[n] for n in place]
            for axis, names, place in zip(("objective", "sampler", "axiom"), axes, places, strict=True)
        },
        "fraction": fraction.ravel(),
        "matrices": number.ravel(),
    }

    def of(source, objective: str, sampler: str, axiom: str) -> dict[str, float | int | None]:
        cell = source.sel(objective=objective, sampler=sampler, axiom=axiom)
        value = float(cell["fraction"])
        return {"fraction": None if np.isnan(value) else value, "matrices": int(cell["number"])}

    findings: dict = {
        f"{objective}/{sampler}/{axiom}": of(data, objective, sampler, axiom)
        for objective in axes[0]
        for sampler in axes[1]
        for axiom in axes[2]
    }
    strict = np.asarray(jax.jit(jax.vmap(lambda P: strong_order(P).strict))(jnp.asarray(P)))
    of_strict: dict[str, float | int] = {"matrices": int(strict.sum())}
    findings["strict"] = of_strict
    if strict.any():
        kept = data["holds"].sel(objective="IPO", axiom="order").transpose("matrix", "sampler").values[strict]
        defined = data["defined"].sel(objective="IPO", axiom="order").transpose("matrix", "sampler").values[strict]
        pairs = zip(kept.T, defined.T, strict=True)
        of_strict["least_fraction_kept"] = min(float(x[known].mean()) for x, known in pairs if known.any())
    words = "; ".join(
        f"{axiom} holds for IPO on uniform data on {_percent(findings[f'IPO/uniform/{axiom}']['fraction'])} of "
        f"{findings[f'IPO/uniform/{axiom}']['matrices']:,} matrices, on designed data on "
        f"{_percent(findings[f'IPO/designed/{axiom}']['fraction'])}"
        for axiom in axes[2]
    )
    title = f"Ranking axioms of one-shot optima · {material.heading()}"
    return Made(columns, findings, words, lambda: plot.audit(data, title=title))


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction:.1%}"
