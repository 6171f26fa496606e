"""A diagnosis as one HTML page: no scripts, no references to anything outside, charts as inline SVG with words."""

import math
from collections.abc import Sequence

import numpy as np

from .chart import Chart, plain
from .diagnosis import Diagnosis
from .parts import Reals
from .thresholds import ENOUGH
from .words import number, percent, risk_rows, verdict_rows

ROWS = 20  # prompts at risk that the page lists; the table beside it has all

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --faint: #5f5f5f; --line: #d5d5d5; --paper: #ffffff;
  --panel: #f5f6f8; --calm: #0072B2; --risk: #B3400A; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --faint: #a8a8a8; --line: #444b53; --paper: #15181c;
  --panel: #1f242a; --calm: #56B4E9; --risk: #F2A15F; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p { margin: 0.4rem 0; max-width: 46rem; } .faint { color: var(--faint); font-size: 0.9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.6rem; margin: 1rem 0; }
.card { background: var(--panel); border-radius: 0.5rem; padding: 0.6rem 0.8rem; }
.card b { display: block; font-size: 1.35rem; } .card span { color: var(--faint); font-size: 0.85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--panel); border-radius: 0.5rem; padding: 0.6rem; }
figcaption { font-size: 0.9rem; margin-bottom: 0.3rem; }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink); }
.axis { stroke: var(--line); } .bar { fill: var(--calm); } .bar.risk { fill: var(--risk); }
.curve { fill: none; stroke: var(--calm); stroke-width: 2; }
.mark { stroke: var(--risk); stroke-width: 1.5; stroke-dasharray: 4 3; }
.advice { border-left: 4px solid var(--calm); padding: 0.2rem 0 0.2rem 0.8rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: right; padding: 0.3rem 0.5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .words { text-align: left; } .risk-word { color: var(--risk); font-weight: 600; }
@media (max-width: 44rem) {
  thead { position: absolute; left: -9999px; top: 0; width: 1px; height: 1px; overflow: hidden; }
  tr { display: block; padding: 0.4rem 0; border-bottom: 2px solid var(--line); }
  th[scope=row], td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: 0.1rem 0;
    text-align: right; }
  td::before, th[scope=row]::before { content: attr(data-label); color: var(--faint); text-align: left;
    font-weight: 400; flex: none; }
}
"""


def _histogram(
    title: str, values: Reals, x_label: str, *, top: float | None = None, boundary: float | None = None
) -> str:
    """Counts of prompts; above `boundary` in the colour of risk."""
    known = np.asarray(values)[np.isfinite(values)]
    if known.size == 0:
        return f"<figure><figcaption>{plain(title)}</figcaption><p>No prompt has a value.</p></figure>"
    high = max(float(known.max()), 1e-3) * 1.02 if top is None else top
    low = 0.0 if top is not None or known.min() < high / 2 else math.floor(10 * float(known.min()) - 0.5) / 10
    edges: list[float] = np.linspace(low, high, 25).tolist()
    counts: list[int] = np.histogram(np.clip(known, low, high), edges)[0].tolist()
    words = (
        f"{known.size:,} prompts; smallest {number(known.min())}, median {number(float(np.median(known)))}, "
        f"largest {number(known.max())}"
    )
    if boundary is not None:
        words += f"; {int((known >= boundary).sum()):,} at {boundary:g} or above"
    chart = Chart(title, words + ".", (low, high), (0.0, 1.12 * max(*counts, 1)))
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        chart.bar(left, right, float(count), risk=boundary is not None and (left + right) / 2 >= boundary)
    if boundary is not None:
        chart.mark(boundary, "unstable from here" if high - boundary > 0.4 * (high - low) else "unstable")
    return chart.svg(x_label)


def _stable_share(diagnosis: Diagnosis) -> str:
    """Share of prompts still stable, against beta."""
    title = "Share of prompts stable up to a beta"
    critical = np.nan_to_num(diagnosis.limits.beta, nan=0.0, posinf=np.inf)
    finite = critical[np.isfinite(critical) & (critical > 0)]
    low = min(diagnosis.beta, float(np.min(finite, initial=np.inf))) / 2
    high = max(diagnosis.beta, float(np.quantile(finite, 0.9)) if finite.size else 0.0) * 2
    xs: list[float] = np.geomspace(low, high, 80).tolist()
    ys = [float(np.mean(critical > x)) for x in xs]
    words = (
        f"At your beta of {diagnosis.beta:.4g} it is {percent(float(np.mean(critical > diagnosis.beta)))}; all are "
        f"stable up to {number(diagnosis.limits.safe('beta', 1.0))}, {100 * ENOUGH:g} % up to "
        f"{number(diagnosis.limits.safe('beta', ENOUGH))}. Beta is on a logarithmic axis."
    )
    chart = Chart(title, words, (low, high), (0.0, 1.05), log=True)
    chart.curve(xs, ys)
    chart.mark(diagnosis.beta, "yours", low=True)
    scale = "tokens" if diagnosis.scale is None else f"{diagnosis.scale:.4g}"
    return chart.svg(f"beta (TRL's beta is {scale} / beta)", fractions=True)


def _card(value: str, words: str) -> str:
    return f'<div class="card"><b>{plain(value)}</b><span>{plain(words)}</span></div>'


def _row(cells: Sequence[tuple[str, str, str]]) -> str:
    """(label, text, class) of each cell; the first is the head of the row."""
    first, *others = cells
    head = f'<th scope="row" data-label="{plain(first[0])}">{plain(first[1])}</th>'
    return (
        f"<tr>{head}"
        + "".join(f'<td class="{kind}" data-label="{plain(label)}">{plain(text)}</td>' for label, text, kind in others)
        + "</tr>"
    )


def _table(labels: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], caption: str) -> str:
    heads = "".join(
        f'<th scope="col" class="{kind}">{plain(label)}</th>' for label, kind in zip(labels, kinds, strict=True)
    )
    body = "".join(_row(list(zip(labels, row, kinds, strict=True))) for row in rows)
    return f'<table aria-label="{plain(caption)}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _verdict_table(diagnosis: Diagnosis) -> str:
    labels = ["verdict", "prompts", "fraction", "meaning"]
    return _table(labels, verdict_rows(diagnosis), ["", "", "", "words"], "Prompts by verdict")


def _risk_table(diagnosis: Diagnosis, prompts: np.ndarray, responses: np.ndarray) -> str:
    labels, rows = risk_rows(diagnosis, prompts, responses, ROWS)
    kinds = [{"verdict": "risk-word", "why": "words"}.get(label, "") for label in labels]
    return _table(labels, rows, kinds, "Prompts at risk, the worst first")


def _cards(diagnosis: Diagnosis) -> str:
    equilibrium = diagnosis.equilibrium
    solved, turning = equilibrium.solved, equilibrium.period[diagnosis.turning]
    cards = [
        _card(f"{len(diagnosis):,}", "prompts (preference matrices)"),
        _card(f"{int(diagnosis.preferences.cyclic.sum()):,}", "with a majority cycle"),
        _card(percent(float(equilibrium.stable.mean())), "stable in this loop"),
        _card(f"{int(diagnosis.at_risk.sum()):,}", "at risk"),
        _card(number(_median(equilibrium.entropy[solved])), "median entropy of the fixed point, nats"),
        _card(number(_median(equilibrium.drift[solved])), "median drift from the reference (KL), nats"),
        _card(number(_median(turning)), "median period of those unstable or close to it, rounds a turn"),
    ]
    return "".join(cards)


def _charts(diagnosis: Diagnosis) -> str:
    equilibrium = diagnosis.equilibrium
    most = math.log(equilibrium.policy.shape[1]) * 1.001
    charts = [
        _histogram("Spectral radius at the fixed point", equilibrium.radius, "radius", boundary=1.0),
        _stable_share(diagnosis),
        _histogram("Entropy of the fixed point", equilibrium.entropy, "nats (at most log K)", top=most),
        _histogram("Drift from the reference", equilibrium.drift, "KL divergence, nats"),
    ]
    return "".join(charts)


def _risks(diagnosis: Diagnosis, prompts: np.ndarray, responses: np.ndarray) -> str:
    at_risk = int(diagnosis.at_risk.sum())
    if not at_risk:
        return "<p>None.</p>"
    shown = min(at_risk, ROWS)
    which = f"The worst {shown} of {at_risk:,} are listed; all" if at_risk > shown else "They"
    return (
        "<p>A loop turns where preferences run in circles: named are the three responses round which the policy is "
        "driven, and how much of it they have where the loop would stand still. "
        f"{which} are in diagnosis.csv.</p>{_risk_table(diagnosis, prompts, responses)}"
    )


def html_report(
    diagnosis: Diagnosis,
    *,
    prompts: np.ndarray,
    responses: np.ndarray,
    source: str,
    data_lines: Sequence[str],
    recipe_lines: Sequence[str],
    verdict: str,
    advice: Sequence[str],
    uncertainty: Sequence[str],
    created: str,
    version: str,
) -> str:
    """The page as text; everything in it that came from the user's data is escaped."""
    certainty = "".join(f"<p>{plain(line)}</p>" for line in uncertainty)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{plain(verdict)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{plain(verdict)}</h1>
<p>{plain(source)}</p>
<p class="faint">{"<br>".join(plain(line) for line in recipe_lines)}</p>
<div class="cards">{_cards(diagnosis)}</div>
<h2>What to do</h2>
<div class="advice">{"".join(f"<p>{plain(line)}</p>" for line in advice)}</div>
<h2>Verdicts</h2>
{_verdict_table(diagnosis)}
<h2>Where the prompts stand</h2>
<div class="charts">{_charts(diagnosis)}</div>
<h2>Prompts at risk, and why</h2>
{_risks(diagnosis, prompts, responses)}
<h2>How certain this is</h2>
{certainty}
<h2>The data</h2>
<p class="faint">{"<br>".join(plain(line) for line in data_lines)}</p>
<p class="faint">ipodyn {plain(version)}, {plain(created)}. Stability is local and exact at population level; a loop may
still cycle beside a stable fixed point if it starts far away.</p>
</main>
</body>
</html>
"""


def _median(values: Reals) -> float:
    return float(np.median(values)) if values.size else math.nan
