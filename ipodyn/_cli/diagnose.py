"""`ipodyn diagnose`: what a loop would do to the prompts of a data set, as words, tables and one HTML page."""

import dataclasses
import datetime
import io
import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np

from .._diagnosis.diagnosis import Diagnosis, diagnose
from .._diagnosis.headline import ONE_ANSWER, OPEN, SETTLES, TURNS, all_of, headline, kinds
from .._diagnosis.page import html_report
from .._diagnosis.tables import table_columns, write_csv, write_parquet
from .._diagnosis.words import advice, number, risk_rows, uncertainty, verdict_rows
from ..data import PreferenceSet
from ..recipes import Recipe
from .errors import CommandError, foreseen, writing
from .output import ProgressBar, console, say, table, write_out
from .sources import Source

if TYPE_CHECKING:
    import rich.console

_AT_RISK = 5  # prompts named on the terminal
_KINDS = {TURNS: "never settle", ONE_ANSWER: "end on one answer", SETTLES: "settle", OPEN: "not known"}
FILES = ("diagnosis.csv", "diagnosis.parquet", "report.html", "report.txt")


@dataclasses.dataclass(frozen=True)
class DiagnoseCommand:
    """The options of `ipodyn diagnose`, and what it does with them."""

    source: Source
    recipe: Recipe
    seed: int
    dtype: str
    out: pathlib.Path
    overwrite: bool
    rounds: int = 10

    def run(self) -> None:
        self._check_folder()
        _need_polars()
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        preferences = self.source.load()
        screen = console()
        P = preferences.P.astype(self.dtype)
        with ProgressBar(len(P), f"{len(P):,} prompts") as progress:
            diagnosis = diagnose(
                P,
                **{name: float(value) for name, value in self.recipe.point().items()},
                objective=self.recipe.objective,
                counts=None if preferences.counts is None else preferences.counts.astype(self.dtype),
                key=self.seed,
                tokens=self.recipe.tokens,
                rounds=self.rounds,
                progress=progress,
            )
        self._write(diagnosis, preferences)
        _tell(screen, diagnosis, preferences, self.recipe)
        say(screen, f"\nIn {self.out}: report.html (one page, opens offline), diagnosis.csv and diagnosis.parquet (all")
        say(screen, "prompts), report.txt (this text)")

    def _check_folder(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise CommandError(f"{self.out}: is a file; name a folder with --out")
        there = [name for name in FILES if (self.out / name).exists()]
        if there and not self.overwrite:
            raise CommandError(f"{self.out} has a {there[0]} already; choose another --out, or say --overwrite")

    def _write(self, diagnosis: Diagnosis, preferences: PreferenceSet) -> None:
        import ipodyn

        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        columns = table_columns(diagnosis, preferences)
        write_out(self.out / "diagnosis.csv", lambda path: write_csv(path, columns))
        write_out(self.out / "diagnosis.parquet", lambda path: write_parquet(path, columns))
        page = html_report(
            diagnosis,
            prompts=preferences.prompts,
            responses=preferences.responses,
            source=preferences.source,
            data_lines=_data_lines(preferences),
            recipe_lines=self.recipe.describe().splitlines(),
            verdict=headline(diagnosis, preferences.prompts, rounds=self.recipe.rounds),
            advice=advice(diagnosis),
            uncertainty=uncertainty(diagnosis),
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=ipodyn.__version__,
        )
        write_out(self.out / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
        text = io.StringIO()
        plain = console(text)
        _tell(plain, diagnosis, preferences, self.recipe)
        write_out(self.out / "report.txt", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


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


def _tell(target: "rich.console.Console", diagnosis: Diagnosis, preferences: PreferenceSet, recipe: Recipe) -> None:
    say(target, headline(diagnosis, preferences.prompts, rounds=recipe.rounds))
    say(target)
    for line in _data_lines(preferences) + recipe.describe().splitlines():
        say(target, line)
    cyclic = int(diagnosis.preferences.cyclic.sum())
    strong = int(diagnosis.preferences.strongly_transitive.sum())
    transitive, equilibrium = len(diagnosis) - cyclic, diagnosis.equilibrium
    counted = kinds(diagnosis, preferences.prompts)
    groups = "" if counted.groups == len(counted) else f" in {counted.groups:,} groups of responses"
    of_these = f"{transitive:,} transitive ({strong:,} strongly), {cyclic:,} cyclic"
    say(target, f"\nprompts   {len(counted):,}{groups}: {of_these}")
    proved = int(all_of(diagnosis.certified, preferences.prompts).sum())
    marks = ", ".join(f"{counted.number(kind):,} {word}" for kind, word in _KINDS.items() if counted.number(kind))
    say(target, f"          {marks}; proven to settle from any start {proved:,}")
    for name, values, unit in (
        ("entropy", equilibrium.entropy, "nats, of the fixed point"),
        ("drift", equilibrium.drift, "nats, KL from the reference"),
        ("period", equilibrium.period[diagnosis.turning], "rounds a turn, of those that turn"),
    ):
        known = values[np.isfinite(values)]
        if known.size:
            low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
            say(target, f"{name:<9} median {number(middle)}, 5 to 95 %: {number(low)} to {number(high)} {unit}")
    decorated = target.is_terminal
    say(target)
    heads = ["verdict", "prompts", "fraction", "meaning"]
    target.print(table("Verdicts", heads, verdict_rows(diagnosis), decorated=decorated))
    labels, rows = risk_rows(diagnosis, preferences.prompts, preferences.responses, _AT_RISK)
    if rows:
        shown = [labels.index(label) for label in ("prompt", "verdict", "radius", "period", "critical beta", "why")]
        columns, cells = [labels[place] for place in shown], [[row[place] for place in shown] for row in rows]
        say(target)
        target.print(table("Most at risk, and why", columns, cells, decorated=decorated))
    say(target)
    for line in advice(diagnosis) + uncertainty(diagnosis):
        say(target, line)
