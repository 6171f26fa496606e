"""`ipodyn map`: the stability map of a set of preference matrices, as a folder of results."""

import dataclasses
import io
import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np

from .. import plot
from .._objectives import DPO, IPO
from .._preferences import check_alpha, check_beta, check_lam
from .._stability_map import MapProblem, map_problem
from .._store import Store
from ..data import PreferenceSet
from . import summary
from .errors import CommandError, Stopped, foreseen, writing
from .options import parse_grid, parse_policy
from .output import Progress, console, say, table, write_whole
from .sharing import Share, Sharing
from .sources import Source

if TYPE_CHECKING:
    import rich.console
    import xarray

ROUNDS = 3000
_BALANCED = ("three_cycle", "cycle")  # uniform policies stand still here, even where that is unstable


@dataclasses.dataclass(frozen=True)
class MapCommand:
    """The options of `ipodyn map`, and what it does with them."""

    source: Source
    alpha: str
    beta: str
    lam: float
    rounds: int | None
    objective: str
    start: str | None
    seed: int
    dtype: str
    out: pathlib.Path
    analytic: bool = False
    sharing: Sharing = dataclasses.field(default_factory=Sharing)

    def run(self) -> None:
        alpha, beta = self._grid()
        self.sharing.check()
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        _need_extras()
        share = self.sharing.join()
        preferences = self.source.load()
        problem = self._problem(preferences, alpha, beta)
        with foreseen(ValueError), writing(self.out):
            store = Store.open(self.out, problem, parts=share.parts)
        share.check_folder(store)
        screen = console(quiet=not share.leads)
        for line in _preamble(preferences, problem):
            say(screen, line)
        without_meaning = [
            name for name, value in (("--rounds", self.rounds), ("--start", self.start)) if value is not None
        ]
        if self.analytic and without_meaning:
            say(screen, f"note      no rollouts with --analytic, so {' and '.join(without_meaning)} changed nothing")
        self._compute(store, share, screen)
        if share.leads and self._complete(store, share, screen):
            self._write(store.load(), preferences, problem, screen)

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        alpha, beta = parse_grid(self.alpha, "--alpha"), parse_grid(self.beta, "--beta")
        with foreseen(ValueError):
            check_alpha(alpha, name="--alpha")
            check_beta(beta, name="--beta")
            check_lam(self.lam, name="--lam")
        if self.rounds is not None and self.rounds < 1:
            raise CommandError(f"--rounds is {self.rounds}; run at least 1 round")
        return alpha, beta

    def _problem(self, preferences: PreferenceSet, alpha: np.ndarray, beta: np.ndarray) -> MapProblem:
        K = preferences.P.shape[-1]
        start = self.start or ("off_centre" if self.source.problem in _BALANCED else "uniform")
        with foreseen(ValueError):
            return map_problem(
                preferences.P.astype(self.dtype),
                alpha=alpha,
                beta=beta,
                lam=self.lam,
                num_steps=ROUNDS if self.rounds is None else self.rounds,
                rollouts=not self.analytic,
                objective=DPO() if self.objective == "dpo" else IPO(),
                policy0=None if self.analytic else self._start(K),
                attributes={
                    "source": preferences.source,
                    "synthetic": preferences.synthetic,
                    "kind": self.source.kind,
                    "seed": self.seed,
                    **({} if self.analytic else {"start": start}),
                    "data_report": preferences.report.to_json(),
                },
            )

    def _start(self, K: int) -> np.ndarray | None:
        if self.start is not None:
            return parse_policy(self.start, K).astype(self.dtype)
        return off_centre(K).astype(self.dtype) if self.source.problem in _BALANCED else None

    def _compute(self, store: Store, share: Share, screen: "rich.console.Console") -> None:
        """Fill what the store lacks of this process's share, and wait for the others of its job."""
        own = share.regions(store)
        pending = store.pending(own)
        store.discard(pending)
        points = store.problem.grid.points_per_matrix
        if share.words:
            say(screen, f"share     {share.words}: {len(own)} of {len(store.regions)} regions")
        if finished := len(own) - len(pending):
            noun = "all" if not pending else f"{finished} of {len(own)}"
            say(
                screen, f"{self.out} has {noun} regions of this {'share' if share.words else 'run'} already; continuing"
            )
        total = sum(region.stop - region.first for region in pending) * points
        what = f"{total:,} {'fixed points' if self.analytic else 'rollouts'}" + (
            f" ({share.words})" if share.words else ""
        )
        try:
            with Progress(total, what) as progress:
                for region in pending:
                    fields = store.problem.compute(region.first, region.stop, progress=progress)
                    with writing(self.out):
                        store.write(region, fields)
                    progress.advance((region.stop - region.first) * points)
            share.wait(store)
        except KeyboardInterrupt:
            kept = len(store.regions) - len(store.missing())
            raise Stopped(
                f"stopped; {self.out} keeps {kept} of {len(store.regions)} regions, and the same command continues"
            ) from None

    def _complete(self, store: Store, share: Share, screen: "rich.console.Console") -> bool:
        """Whether the other processes are done too; says what is left to them."""
        left = [] if share.parts == 1 else store.missing() or store.pending()
        if left:
            say(screen, f"{share.words} is done; {len(left)} of {len(store.regions)} regions are left to other tasks,")
            say(screen, "the last of which writes the tables and the picture")
        return not left

    def _write(
        self, dataset: "xarray.Dataset", preferences: PreferenceSet, problem: MapProblem, screen: "rich.console.Console"
    ) -> None:
        """Numbers first, then words, then the picture, each whole or not at all."""
        kinds = summary.Kinds.of(preferences)
        write_whole(self.out / "matrices.npz", preferences.save)
        write_whole(self.out / "summary.csv", lambda path: summary.write_cells(path, dataset))
        write_whole(self.out / "matrices.csv", lambda path: summary.write_matrices(path, dataset, preferences, kinds))
        text = io.StringIO()
        report = console(text)
        for line in _preamble(preferences, problem):
            say(report, line)
        _print_tables(report, dataset, preferences, kinds)
        write_whole(self.out / "report.txt", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))
        write_whole(self.out / "map.png", lambda path: plot.stability_map(dataset).savefig(path))
        _print_tables(screen, dataset, preferences, kinds)
        say(
            screen,
            f"\nIn {self.out}: map.png (picture), summary.csv (cells), matrices.csv and matrices.npz (matrices),",
        )
        say(screen, "map.zarr (all arrays; xarray.open_zarr), report.txt (this text)")


def off_centre(K: int) -> np.ndarray:
    """A policy near the uniform one but not on it: from 1.2 / K for the first response down to 0.8 / K."""
    weights = np.linspace(1.2, 0.8, K)
    return weights / weights.sum()


def _need_extras() -> None:
    """Say at once, not after the computation, which packages are missing."""
    with foreseen(ImportError):
        for module, extra in (("xarray", "io"), ("zarr", "io"), ("matplotlib", "plot")):
            try:
                __import__(module)
            except ImportError as error:
                raise ImportError(f"`ipodyn map` needs {module}: pip install 'ipodyn[{extra}]'") from error


def _preamble(preferences: PreferenceSet, problem: MapProblem) -> list[str]:
    attributes = problem.attributes()
    alpha, beta = problem.grid.alpha, problem.grid.beta
    M, K = preferences.P.shape[:2]
    lines = [f"data      {preferences.source}"]
    if preferences.synthetic:
        lines.append("          SYNTHETIC: made by a generator, says nothing about any real data")
    lines += str(preferences.report).splitlines()
    lines.append(
        f"map       {M:,} {'matrix' if M == 1 else 'matrices'} of {K} responses x {alpha.size} alphas {_span(alpha)} x "
        f"{beta.size} betas {_span(beta)}"
    )
    how = "fixed points, no rollouts"
    if "num_steps" in attributes:
        how = f"{attributes['num_steps']:,} rounds, start {str(attributes['start']).replace('_', ' ')}"
    lines.append(
        f"loops     {attributes['objective']}, lam {attributes['lam']:g}, {how}, {attributes['dtype']} on "
        f"{attributes['device']}"
    )
    return lines


def _span(values: np.ndarray) -> str:
    return f"{values[0]:.4g}" if values.size == 1 else f"{values[0]:.4g} .. {values[-1]:.4g}"


def _print_tables(
    target: "rich.console.Console", dataset: "xarray.Dataset", preferences: PreferenceSet, kinds: summary.Kinds
) -> None:
    decorated = target.is_terminal
    predicted = "" if "variance" in dataset else ", predicted by the fixed points"
    tables = [
        (f"Share of cells in each regime{predicted}", summary.band_columns(dataset), summary.band_rows(dataset)),
        ("By kind of matrix", ["kind", "matrices", *summary.NAMES], summary.kind_rows(dataset, kinds)),
        (
            "Matrices that converge least",
            summary.at_risk_columns(dataset),
            summary.at_risk_rows(dataset, preferences),
        ),
    ]
    for title, columns, rows in tables:
        if rows:
            say(target)
            target.print(table(title, columns, rows, decorated=decorated))
    differences = summary.difference_lines(dataset)
    if differences:
        say(target)
    for line in differences:
        say(target, line)
