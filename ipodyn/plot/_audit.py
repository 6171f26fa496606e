"""The table of an audit, as a picture."""

from typing import TYPE_CHECKING

import numpy as np

from ._figure import FAINT, INK, LABEL_SIZE, TICK_SIZE, TITLE_SIZE, new_figure, tint

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

TITLES = {
    "condorcet": "Condorcet winner on top",
    "smith": "Smith set on top",
    "order": "Transitive order kept",
}


def audit(data: "xarray.Dataset", *, title: str = "") -> "matplotlib.figure.Figure":
    """A table for each axiom: samplers down, objectives across, and the fraction of matrices for which the axiom holds.

    The deeper the blue the larger the fraction. Below it stands the number of matrices that it is of, where not all
    to which the axiom applies have scores; "none" stands where no matrix does.

    - `data`: what `ipodyn.audit` returned. - `title`: a heading; "" names the source that the dataset holds.

    Returns a `matplotlib.figure.Figure`.

    >>> import ipodyn
    >>> P = ipodyn.problems.overshadowed_winner(3, 0.2)
    >>> data = ipodyn.audit(P, samplers=["uniform"], objectives=[ipodyn.IPO()])
    >>> figure = ipodyn.plot.audit(data)  # then figure.savefig("audit.png")
    >>> figure.axes[0].get_title(loc="left")
    'Condorcet winner on top (1 matrix)'
    """
    missing = [name for name in ("fraction", "number", "applies") if name not in data]
    if missing:
        raise ValueError(f"`data` has no {', '.join(missing)}: give the dataset that `ipodyn.audit` returned.")
    axioms = [str(name) for name in data["axiom"].values]
    objectives, samplers = ([str(name) for name in data[axis].values] for axis in ("objective", "sampler"))
    width = 1.6 + len(axioms) * (0.6 + max(2.6, 1.0 * len(objectives)))
    figure = new_figure(width, 1.5 + 0.5 * len(samplers))
    for axes, axiom in zip(figure.subplots(1, len(axioms), squeeze=False)[0], axioms, strict=True):
        of = data.sel(axiom=axiom).transpose("matrix", "sampler", "objective")
        fraction, number = np.asarray(of["fraction"]), np.asarray(of["number"])
        applies = int(of["applies"].values.sum())
        colours = np.where(np.isnan(fraction)[..., None], 0.94, tint("#0072B2", 0.85 * np.nan_to_num(fraction)))
        axes.imshow(colours, aspect="auto")
        for (row, column), value in np.ndenumerate(fraction):
            text = "none" if np.isnan(value) else _percent(value)
            if 0 < number[row, column] < applies:
                text += f"\nof {number[row, column]:,}"
            ink = "white" if value > 0.6 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=TICK_SIZE, color=ink, linespacing=1.1)
        axes.set_xticks(range(len(objectives)), objectives, fontsize=TICK_SIZE, color=INK)
        axes.set_yticks(
            range(len(samplers)), samplers if axes is figure.axes[0] else [], fontsize=LABEL_SIZE, color=INK
        )
        axes.set_xticks(np.arange(1, len(objectives)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(samplers)) - 0.5, minor=True)
        axes.grid(True, which="minor", color="white", linewidth=2)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        count = f"{applies:,} {'matrix' if applies == 1 else 'matrices'}"
        axes.set_title(f"{TITLES.get(axiom, axiom)} ({count})", fontsize=TITLE_SIZE - 1, color=INK, loc="left")
    figure.axes[0].set_ylabel("sampled from", fontsize=LABEL_SIZE, color=FAINT)
    heading = title or str(data.attrs.get("source", ""))
    if data.attrs.get("synthetic") and "synthetic" not in heading.lower():
        heading = f"SYNTHETIC data: {heading}"
    if heading:
        figure.suptitle(heading, fontsize=TITLE_SIZE, color=INK, x=0.01, ha="left")
    return figure


def _percent(fraction: float) -> str:
    """Rounded, but never to 100 % or 0 % what is not all or none."""
    if 0.01 < fraction < 0.99 or fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f} %"
    return f"{min(max(100 * fraction, 0.1), 99.9):.1f} %"
