"""`ipodyn diagnose`: what a loop would do to the prompts of a data set, as words, tables and one HTML page."""

import csv
import dataclasses
import datetime
import io
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import recipes
from .._diagnosis import VERDICTS, Diagnosis, diagnose
from .._objectives import DPO, IPO
from .._report_html import MEANING, cycle_words, html_report, number, percent, reason
from ..data import PreferenceSet
from ..recipes import Recipe
from .errors import CommandError, foreseen, writing
from .output import Progress, console, say, table, write_whole
from .sources import Source

if TYPE_CHECKING:
    import rich.console

_AT_RISK = 5  # prompts named on the terminal
_ROWS = 8192  # of the table that are made into text at a time
FILES = ("diagnosis.csv", "diagnosis.parquet", "report.html", "report.txt")
_NAMES = (*recipes.BY_BETA, *recipes.BY_STEP)


def recipe_of(
    name: str | None,
    alpha: float | None,
    beta: float | None,
    lam: float | None,
    trl_beta: float | None,
    eta: float | None,
    tau: float | None,
    objective: str,
) -> Recipe:
    """The loop that the options describe: a point of the cube, or a recipe with its own numbers."""
    trained = DPO() if objective == "dpo" else IPO()
    if beta is not None and trl_beta is not None:
        raise CommandError("give --beta or --trl-beta, not both: the one is 1 / the other")
    if trl_beta is not None and not (0 < trl_beta < float("inf")):
        raise CommandError(f"--trl-beta is {trl_beta:g}; it is the trainer's KL coefficient, a finite number above 0")
    strength = beta if trl_beta is None else 1 / trl_beta
    given = {"--alpha": alpha, "--lam": lam, "--beta": strength, "--eta": eta, "--tau": tau}
    with foreseen(ValueError):
        if name is None:
            _refuse(given, ("--eta", "--tau"), "--recipe mirror-descent or nash-md")
            point = {"alpha": 0.9 if alpha is None else alpha, "lam": 0.8 if lam is None else lam}
            return recipes.custom(**point, beta=5.0 if strength is None else strength, objective=trained)
        _refuse(given, ("--alpha", "--lam"), "loops without --recipe")
        if name in recipes.BY_BETA:
            _refuse(given, ("--eta", "--tau"), "--recipe mirror-descent or nash-md")
            return recipes.BY_BETA[name](beta=5.0 if strength is None else strength, objective=trained)
        if name not in recipes.BY_STEP:
            raise CommandError(f"unknown --recipe {name!r}: choose {', '.join(_NAMES)}")
        _refuse(given, ("--beta",), "other recipes; this one takes --eta and --tau")
        if eta is None or tau is None:
            raise CommandError(f"--recipe {name} needs --eta (step) and --tau (KL coefficient, the trainer's beta)")
        if name == "nash-md":
            if objective == "dpo":
                raise CommandError("--recipe nash-md has the score of IPO; leave --objective out")
            return recipes.nash_md(eta=eta, tau=tau)
        return recipes.BY_STEP[name](eta=eta, tau=tau, objective=trained)


def _refuse(given: dict[str, float | None], names: tuple[str, ...], owner: str) -> None:
    for name in names:
        if given[name] is not None:
            raise CommandError(f"{name} goes with {owner}; leave it out")


@dataclasses.dataclass(frozen=True)
class DiagnoseCommand:
    """The options of `ipodyn diagnose`, and what it does with them."""

    source: Source
    recipe: Recipe
    seed: int
    dtype: str
    out: pathlib.Path
    overwrite: bool

    def run(self) -> None:
        self._check_folder()
        _need_polars()
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        preferences = self.source.load()
        screen = console()
        for line in _data_lines(preferences):
            say(screen, line)
        P = preferences.P.astype(self.dtype)
        with Progress(len(P), f"{len(P):,} prompts") as progress:
            found = diagnose(
                P,
                **{name: float(value) for name, value in self.recipe.point().items()},
                objective=self.recipe.objective,
                counts=None if preferences.counts is None else preferences.counts.astype(self.dtype),
                seed=self.seed,
                progress=progress,
            )
        self._write(found, preferences)
        _tell(screen, found, preferences, self.recipe)
        say(screen, f"\nIn {self.out}: report.html (one page, opens offline), diagnosis.csv and diagnosis.parquet (all")
        say(screen, "prompts), report.txt (this text)")

    def _check_folder(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise CommandError(f"{self.out}: is a file; name a folder with --out")
        there = [name for name in FILES if (self.out / name).exists()]
        if there and not self.overwrite:
            raise CommandError(f"{self.out} has a {there[0]} already; choose another --out, or say --overwrite")

    def _write(self, found: Diagnosis, preferences: PreferenceSet) -> None:
        import ipodyn

        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        columns = table_columns(found, preferences)
        write_whole(self.out / "diagnosis.csv", lambda path: _write_csv(path, columns))
        write_whole(self.out / "diagnosis.parquet", lambda path: _write_parquet(path, columns))
        page = html_report(
            found,
            prompts=preferences.prompts,
            responses=preferences.responses,
            source=preferences.source,
            data_lines=_data_lines(preferences),
            recipe_lines=self.recipe.describe().splitlines(),
            advice=advice(found),
            uncertainty=uncertainty(found),
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=ipodyn.__version__,
        )
        write_whole(self.out / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
        text = io.StringIO()
        plain = console(text)
        for line in _data_lines(preferences):
            say(plain, line)
        _tell(plain, found, preferences, self.recipe)
        write_whole(self.out / "report.txt", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


def _need_polars() -> None:
    with foreseen(ImportError):
        try:
            import polars  # noqa: F401
        except ImportError as error:
            raise ImportError("`ipodyn diagnose` needs polars: pip install 'ipodyn[io]'") from error


def _data_lines(preferences: PreferenceSet) -> list[str]:
    lines = [f"data      {preferences.source}"]
    if preferences.synthetic:
        lines.append("          SYNTHETIC: made by a generator, says nothing about any real data")
    return lines + str(preferences.report).splitlines()


def table_columns(found: Diagnosis, preferences: PreferenceSet) -> dict[str, np.ndarray]:
    """One row for each prompt, in the order of the set; responses by their names."""
    cycles = [cycle_words(found, preferences.responses, index) for index in range(len(found))]
    columns: dict[str, Any] = {
        "matrix": np.arange(len(found)),
        "prompt": preferences.prompts,
        "responses": [" ".join(str(name) for name in row) for row in preferences.responses],
        "verdict": found.verdict,
        "cyclic": found.cyclic,
        "strongly_transitive": found.strongly_transitive,
        "cyclic_share": found.cyclic_share,
        "cycle": cycles,
        "curl": found.curl,
        "cycle_share": found.triangle_share,
        "why": [reason(found, preferences.responses, index) for index in range(len(found))],
        "stable": found.stable,
        "radius": found.radius,
        "period": found.period,
        "entropy": found.entropy,
        "drift": found.drift,
        "critical_beta": found.critical_beta,
        "critical_alpha": found.critical_alpha,
        "critical_lam": found.critical_lam,
        "residual": found.residual,
    }
    if found.counted:
        columns |= {
            "stable_probability": found.stable_probability,
            "radius_low": found.radius_low,
            "radius_high": found.radius_high,
        }
    return columns


def _write_csv(path: pathlib.Path, columns: dict[str, Any]) -> None:
    """Ten significant digits; a flag is 0 or 1. A few thousand rows at a time, which keeps the text of them small."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for first in range(0, len(columns["matrix"]), _ROWS):
            some = [_cells(values[first : first + _ROWS]) for values in columns.values()]
            writer.writerows(zip(*some, strict=True))


def _cells(values: np.ndarray | list[str]) -> list[Any]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return [f"{value:.10g}" for value in values.tolist()]
    if isinstance(values, np.ndarray) and values.dtype.kind == "b":
        return values.astype(int).tolist()
    return values.tolist() if isinstance(values, np.ndarray) else values


def _write_parquet(path: pathlib.Path, columns: dict[str, Any]) -> None:
    import polars

    polars.DataFrame(columns).write_parquet(path)


def advice(found: Diagnosis) -> list[str]:
    """The safe region, and what to change, in sentences."""
    lines = []
    where = f"alpha {found.alpha:g}, beta {found.beta:.4g} (TRL's {1 / found.beta:.4g}), lam {found.lam:g}"
    best = found.recommendation
    share = percent(best.share)
    if best.changed == "nothing":
        lines.append(f"Keep the setting: at {where} {share} of the prompts settle with margin (radius below 0.95).")
    elif best.changed == "beta":
        lines.append(
            f"Lower beta from {found.beta:.4g} to {best.beta:.4g}, that is, raise TRL's beta from {1 / found.beta:.4g} "
            f"to {1 / best.beta:.4g}: then {share} of the prompts settle with margin (radius below 0.95, entropy above "
            "10 % of log K)."
        )
    elif best.changed == "alpha":
        lines.append(
            f"Lower alpha from {found.alpha:g} to {best.alpha:.4g}, so that the reference follows the policy less: "
            f"then {share} of the prompts settle with margin (radius below 0.95, entropy above 10 % of log K)."
        )
    else:
        lines.append(
            "Neither a smaller beta nor a smaller alpha alone lets 95 % of the prompts settle with margin; lower both, "
            "and look at the prompts at risk."
        )
    for name, edge, end in (
        ("beta", found.safe_beta, 1e4),
        ("alpha", found.safe_alpha, 0.9999),
        ("lam", found.safe_lam, 1.0),
    ):
        every, most = edge(1.0), edge(0.95)
        others = " and ".join(other for other in ("alpha", "beta", "lam") if other != name)
        lines.append(
            f"Safe region, with {others} as they are: all prompts stable up to {name} {_limit(every, end)}, 95 % up to "
            f"{_limit(most, end)}."
        )
    return lines


def _limit(value: float, end: float) -> str:
    if value == 0:
        return "0 (nowhere)"
    return f"{end:g} (all the way)" if np.isinf(value) else f"{value:.4g}"


def uncertainty(found: Diagnosis) -> list[str]:
    """How far the counts, where there are any, settle the verdicts."""
    if not found.counted:
        return ["The data hold no counts of comparisons, so P is taken as it is."]
    p = found.stable_probability
    spread = float(np.sqrt(np.sum(p * (1 - p)))) / p.size
    doubtful = int(((p > 0.05) & (p < 0.95)).sum())
    return [
        f"From the counts, with P drawn again from its posterior: {percent(float(p.mean()))} of the prompts are "
        f"expected to be stable, give or take {percent(spread)}.",
        f"For {doubtful:,} of {p.size:,} prompts the counts leave it open (stable in between 5 % and 95 % of the "
        f"draws); {int((p <= 0.05).sum()):,} are unstable and {int((p >= 0.95).sum()):,} stable in nearly all draws.",
    ]


def _tell(target: "rich.console.Console", found: Diagnosis, preferences: PreferenceSet, recipe: Recipe) -> None:
    for line in recipe.describe().splitlines():
        say(target, line)
    transitive = int((~found.cyclic).sum())
    strong = int(found.strongly_transitive.sum())
    cyclic = len(found) - transitive
    say(target, f"\nprompts   {len(found):,}: {transitive:,} transitive ({strong:,} strongly), {cyclic:,} cyclic")
    say(target, f"stable    {percent(float(found.stable.mean()))}, at risk {int(found.at_risk.sum()):,}")
    for name, values, unit in (
        ("entropy", found.entropy, "nats, of the fixed point"),
        ("drift", found.drift, "nats, KL from the reference"),
        ("period", found.period[found.turning], "rounds a turn, of those unstable or close to it"),
    ):
        known = values[np.isfinite(values)]
        if known.size:
            low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
            say(target, f"{name:<9} median {number(middle)}, 5 to 95 %: {number(low)} to {number(high)} {unit}")
    decorated = target.is_terminal
    rows = [
        [verdict, f"{found.number(verdict):,}", percent(found.number(verdict) / len(found)), MEANING[verdict]]
        for verdict in VERDICTS
        if found.number(verdict)
    ]
    say(target)
    target.print(table("Verdicts", ["verdict", "prompts", "share", "meaning"], rows, decorated=decorated))
    worst = found.riskiest()[:_AT_RISK]
    if worst.size:
        rows = [
            [
                str(preferences.prompts[index]),
                str(found.verdict[index]),
                number(found.radius[index], 4),
                number(found.period[index]) if found.turning[index] else "–",
                number(found.critical_beta[index]),
                reason(found, preferences.responses, index),
            ]
            for index in worst.tolist()
        ]
        columns = ["prompt", "verdict", "radius", "period", "critical beta", "why"]
        say(target)
        target.print(table("Most at risk, and why", columns, rows, decorated=decorated))
    say(target)
    for line in advice(found) + uncertainty(found):
        say(target, line)
