"""`ipodyn map`: the stability map of a set of preference matrices, as a folder of results."""

import contextlib
import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from .. import plot
from .._maps.evidence.evidence import Request
from .._maps.grid import Grid
from .._maps.stability_map import MapProblem
from .._maps.statistics import MapStatistics
from .._maps.store import Damaged, Region, Store
from .._numerics.checks import check_alpha, check_beta, check_lam
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from ..data import PreferenceSet
from . import summary
from .errors import CommandError, Stopped, foreseen, writing
from .output import ProgressBar, console, say, table
from .parsing import parse_grid, parse_policy
from .sharing import Part, Sharing
from .sources import Source

if TYPE_CHECKING:
    import rich.console

ROUNDS = 3000


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
    out: str
    analytic: bool = False
    sharing: Sharing = dataclasses.field(default_factory=Sharing)

    def run(self) -> None:
        alpha, beta = self._grid()
        self.sharing.check()
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        _need_extras()
        part = self.sharing.join()
        preferences = self.source.load()
        problem = self._problem(preferences, alpha, beta)
        with foreseen(ValueError, ImportError), writing(self.out):
            store = Store.open(self.out, problem, parts=part.count)
        part.check_folder(store)
        screen = console(quiet=not part.leads)
        for line in _preamble(preferences, problem):
            say(screen, line)
        without_meaning = [
            name for name, value in (("--rounds", self.rounds), ("--start", self.start)) if value is not None
        ]
        if self.analytic and without_meaning:
            say(screen, f"note      no rollouts with --analytic, so {' and '.join(without_meaning)} changed nothing")
        self._compute(store, part, screen)
        if part.leads and self._complete(store, part, screen):
            self._write(store, preferences, screen)

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
        with foreseen(ValueError):
            grid = Grid.of(
                preferences,
                alpha=alpha,
                beta=beta,
                lam=self.lam,
                objective=DPO() if self.objective == "dpo" else IPO(),
                policy0=None if self.analytic or self.start is None else parse_policy(self.start, K).astype(self.dtype),
                dtype=self.dtype,
            )
            request = Request(rollouts=not self.analytic, num_steps=ROUNDS if self.rounds is None else self.rounds)
            attributes = {
                "source": preferences.source,
                "synthetic": preferences.synthetic,
                "kind": self.source.kind,
                "seed": self.seed,
                "data_report": preferences.report.to_json(),
            }
            return MapProblem.of(grid, request, attributes)

    def _compute(self, store: Store, part: Part, screen: "rich.console.Console") -> None:
        """Fill what the store lacks of this process's part, and wait for the others of its job."""
        own = part.regions(store)
        missing = store.missing(own)
        if part.words:
            say(screen, f"part      {part.words}: {len(own)} of {len(store.regions)} regions")
        if finished := len(own) - len(missing):
            noun = "all" if not missing else f"{finished} of {len(own)}"
            say(screen, f"{self.out} has {noun} regions of this {'part' if part.words else 'run'} already; continuing")
        with self._stoppable(store):
            self._fill(store, missing, f" ({part.words})" if part.words else "")
            part.wait(store)

    @contextlib.contextmanager
    def _stoppable(self, store: Store) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            kept = len(store.regions) - len(store.missing())
            raise Stopped(
                f"stopped; {self.out} keeps {kept} of {len(store.regions)} regions, and the same command continues"
            ) from None

    def _fill(self, store: Store, regions: list[Region], whose: str = "") -> None:
        points = store.problem.grid.points_per_matrix
        total = sum(region.stop - region.first for region in regions) * points
        what = f"{total:,} {'fixed points' if self.analytic else 'rollouts'}{whose}"
        with ProgressBar(total, what) as progress, writing(self.out):

            def compute(first: int, stop: int) -> dict[str, np.ndarray]:
                fields = store.problem.compute(first, stop, most=store.layout.per_chunk, progress=progress)
                progress.advance((stop - first) * points)
                return fields

            for region in regions:
                store.write(region, compute)

    def _complete(self, store: Store, part: Part, screen: "rich.console.Console") -> bool:
        """Whether the other processes are done too; says what is left to them."""
        left = [] if part.count == 1 else store.missing()
        if left:
            say(screen, f"{part.words} is done; {len(left)} of {len(store.regions)} regions are left to other tasks,")
            say(screen, "the last of which writes the tables and the picture")
        return not left

    def _write(self, store: Store, preferences: PreferenceSet, screen: "rich.console.Console") -> None:
        """Numbers first, then words, then the picture, each whole or not at all."""
        kinds = summary.Kinds.of(preferences)
        publish = functools.partial(_publish, store)
        publish("matrices.npz", preferences.save)
        stats, matrices = self._gather(store, preferences, kinds, screen)
        publish("summary.csv", lambda path: summary.write_cells(path, stats))
        text = io.StringIO()
        report = console(text)
        for line in _preamble(preferences, store.problem):
            say(report, line)
        _print_tables(report, stats, matrices)
        publish("report.txt", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))
        publish("map.png", lambda path: plot.stability_map(stats).savefig(path))
        _print_tables(screen, stats, matrices)
        say(
            screen,
            f"\nIn {self.out}: map.png (picture), summary.csv (cells), matrices.csv and matrices.npz (matrices),",
        )
        say(screen, "map.zarr (all arrays; xarray.open_zarr), report.txt (this text)")

    def _gather(
        self, store: Store, preferences: PreferenceSet, kinds: summary.Kinds, screen: "rich.console.Console"
    ) -> tuple[MapStatistics, summary.MatrixTable]:
        """Read the map once, region by region, into statistics and matrices.csv; what is damaged is computed again."""

        def fill(path: pathlib.Path) -> None:
            nonlocal stats, matrices
            stats = store.statistics()
            with summary.MatrixTable(path, stats, preferences, kinds) as matrices:
                for block in stats.blocks(piece for region in store.regions for piece in store.read(region)):
                    stats.add(block)
                    matrices.add(block)

        stats, matrices = None, None
        while True:
            try:
                _publish(store, "matrices.csv", fill)
            except Damaged as damage:
                say(screen, f"{self.out}: {damage}; computing it again")
                with self._stoppable(store), writing(self.out):
                    store.discard([damage.region])
                    self._fill(store, [damage.region])
            else:
                assert stats is not None and matrices is not None
                return stats, matrices


def _publish(store: Store, name: str, make: Callable[[pathlib.Path], object]) -> None:
    """Whole or not at all, wherever the store is."""
    with writing(f"{store.place.name}/{name}"):
        store.place.publish(name, make)


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
        how = f"{attributes['num_steps']:,} rounds, start {attributes['start']}"
    lines.append(
        f"loops     {attributes['objective']}, lam {attributes['lam']:g}, {how}, {attributes['dtype']} on "
        f"{attributes['device']}"
    )
    return lines


def _span(values: np.ndarray) -> str:
    return f"{values[0]:.4g}" if values.size == 1 else f"{values[0]:.4g} .. {values[-1]:.4g}"


def _print_tables(target: "rich.console.Console", stats: MapStatistics, matrices: summary.MatrixTable) -> None:
    decorated = target.is_terminal
    predicted = ", predicted by the fixed points" if stats.attrs["regime_from"] == "fixed point" else ""
    tables = [
        (f"Share of cells in each regime{predicted}", summary.band_columns(stats), summary.band_rows(stats)),
        ("By kind of matrix", matrices.kind_columns(), matrices.kind_rows()),
        ("Matrices that converge least", matrices.at_risk_columns(), matrices.at_risk_rows()),
    ]
    for title, columns, rows in tables:
        if rows:
            say(target)
            target.print(table(title, columns, rows, decorated=decorated))
    differences = summary.difference_lines(stats)
    if differences:
        say(target)
    for line in differences:
        say(target, line)
