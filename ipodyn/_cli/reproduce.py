"""`ipodyn reproduce`: the figures of the paper, their tables, and a verdict on each of its claims."""

import dataclasses
import pathlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import jax
import typer

from .. import _reproduce as figures
from .. import plot
from . import options as o
from .errors import Stopped, foreseen, writing
from .output import ProgressBar, console, say
from .sources import Source

if TYPE_CHECKING:
    import rich.console

_TICKS = 1000  # of the progress of one figure


@dataclasses.dataclass(frozen=True)
class ReproduceCommand:
    """The options of `ipodyn reproduce`, and what it does with them."""

    names: list[str]
    source: Source
    quick: bool
    dtype: str
    out: pathlib.Path
    overwrite: bool

    def run(self) -> None:
        screen = console()
        if not self.names:
            self._list(screen)
            return
        with foreseen(ValueError):
            wanted = figures.chosen(self.names)
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        _need_extras()
        config = dataclasses.replace(
            figures.QUICK if self.quick else figures.PAPER, seed=self.source.seed, dtype=self.dtype
        )
        material = self._material(config)
        folder = figures.Folder(self.out, config, material)
        with foreseen(ValueError), writing(self.out):
            folder.open(overwrite=self.overwrite)
        say(screen, f"data      {material.heading()}")
        say(
            screen,
            f"          {len(material.all):,} matrices: {len(material.cyclic):,} cyclic, {len(material.st):,} strongly "
            "transitive",
        )
        self._make(wanted, folder, screen)
        self._conclude(folder, screen)

    def _list(self, screen: "rich.console.Console") -> None:
        rows = [[figure.name, figure.family, figure.title] for figure in figures.FIGURES.values()]
        for name, family, title in rows:
            say(screen, f"{name:28}  {family:13}  {title}")
        say(screen, "\nName figures, families or all: ipodyn reproduce all --out FOLDER")

    def _material(self, config: figures.Config) -> figures.Material:
        preferences = self.source.load()
        with foreseen(ValueError):
            whole = figures.Material(
                all=preferences.P,
                cyclic=preferences.cyclic().P,
                st=preferences.strongly_transitive().P,
                source=preferences.source,
                synthetic=preferences.synthetic,
            )
        return whole.limited(config.matrices)

    def _make(self, wanted: list[figures.Figure], folder: figures.Folder, screen: "rich.console.Console") -> None:
        """Every wanted figure that is not finished; what has no matrices is named and left out."""
        made = kept = 0
        for place, figure in enumerate(wanted, 1):
            head = f"[{place:2}/{len(wanted)}] {figure.name}"
            with writing(self.out):
                finished = folder.finished(figure.name)
            if finished is not None:
                kept += 1
                continue
            if len(folder.material.of(figure.needs)) == 0:
                say(screen, f"{head}: left out, the data hold no {figure.needs} matrix")
                continue
            started = time.monotonic()
            try:
                with ProgressBar(_TICKS, head) as bar:
                    result = figure.make(
                        folder.config, folder.material, lambda done, total, bar=bar: bar(_TICKS * done // total, _TICKS)
                    )
                    bar.advance(_TICKS)
                seconds = time.monotonic() - started
                with writing(self.out):
                    folder.keep(figure, result, seconds)
            except KeyboardInterrupt:
                raise Stopped(
                    f"stopped; {self.out} keeps {made + kept} of {len(wanted)} figures, and the same command continues"
                ) from None
            made += 1
            say(screen, f"{head}: {seconds:.1f} s")
        if kept:
            say(screen, f"{kept} of {len(wanted)} figures were finished already")

    def _conclude(self, folder: figures.Folder, screen: "rich.console.Console") -> None:
        """Claims and contact sheet, of all figures that the folder holds."""
        with writing(self.out):
            finished = {name: folder.finished(name) for name in figures.FIGURES}
            manifests: dict[str, dict[str, Any]] = {name: one for name, one in finished.items() if one is not None}
            judged = figures.judge_claims({name: one["findings"] for name, one in manifests.items()})
            folder.write_claims(judged)
            page = figures.contact_sheet(manifests, judged, folder.material)
            folder.write(self.out / "index.html", lambda path: path.write_text(page, encoding="utf-8"))
        shown = [item for item in judged if item.verdict != "not run"]
        if shown:
            say(screen)
            for item in shown:
                say(screen, f"{item.verdict.upper():20}  {item.claim.says}")
                say(screen, f"{'':20}  {item.evidence} ({item.claim.figure})")
            counts = {
                word: sum(item.verdict == word for item in shown) for word in dict.fromkeys(i.verdict for i in shown)
            }
            say(screen, "\n" + ", ".join(f"{number} {word}" for word, number in counts.items()))
        say(screen, f"In {self.out}: index.html (all figures), claims.md (claims and numbers), figures, tables")


def _need_extras() -> None:
    """Say at once which packages are missing."""
    with foreseen(ImportError):
        plot.check_available()
        try:
            __import__("xarray")
        except ImportError as error:
            raise ImportError("`ipodyn reproduce` needs xarray: pip install 'ipodyn[io]'") from error


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIGURE …|all]", help="Figures, families of figures, or all; none lists them."),
    ] = None,
    ratings: o.Ratings = None,
    prompt: o.Prompt = None,
    attributes: o.Attributes = None,
    response: o.Response = None,
    pairs: o.Pairs = None,
    both_orders: o.BothOrders = False,
    preferences: o.Preferences = None,
    helpsteer: o.HelpSteer = None,
    group: o.Group = None,
    subsets: o.SubsetsOption = o.Subsets.disjoint,
    limit: o.Limit = None,
    seed: o.Seed = 0,
    dtype: o.PrecisionOption = o.Precision.float32,
    quick: Annotated[
        bool, typer.Option("--quick", rich_help_panel="Run", help="Small sizes, to see what comes out.")
    ] = False,
    out: Annotated[
        pathlib.Path,
        typer.Option(
            metavar="DIR",
            rich_help_panel="Run",
            help="Folder for the figures: a new or empty one, or that of the same run, which is then continued.",
        ),
    ] = pathlib.Path("ipodyn-figures"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel="Run", help="Make the figures of another run in --out anew.")
    ] = False,
) -> None:
    """The experiments of the paper as figures and tables, and a verdict on each of its claims.

    On HelpSteer with --helpsteer, on other data if given, else on a synthetic set of its shape. Writes PNG, PDF and CSV
    of every figure, claims.md and index.html to --out; the same command continues a run that was stopped.
    """
    source = Source.of(locals())
    ReproduceCommand(names or [], source, quick, dtype.value, out, overwrite).run()
