"""The commands and their options."""

import pathlib
import sys
from typing import Annotated

import typer

from . import options as o
from .diagnose import DiagnoseCommand
from .doctor import doctor
from .errors import CommandError, Stopped, one_line
from .loop import LoopOptions
from .map import MapCommand
from .parsing import with_default_source
from .reproduce import reproduce
from .rollout import RolloutCommand
from .sharing import Sharing
from .sources import Source

app = typer.Typer(
    name="ipodyn",
    help="Where iterated IPO and DPO converge, oscillate or collapse, for your preference data.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> bool:
    if wanted:
        import ipodyn

        print(f"ipodyn {ipodyn.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command("map")
def _map(
    ratings: o.Ratings = None,
    prompt: o.Prompt = None,
    attributes: o.Attributes = None,
    response: o.Response = None,
    pairs: o.Pairs = None,
    first: o.First = None,
    second: o.Second = None,
    score: o.Score = None,
    weight: o.Weight = None,
    winner: o.Winner = None,
    wins: o.Wins = None,
    ties: o.Ties = None,
    by: o.By = o.Comparands.response,
    both_orders: o.BothOrders = False,
    preferences: o.Preferences = None,
    helpsteer: o.HelpSteer = None,
    problem: o.Problem = None,
    strength: o.Strength = None,
    group: o.Group = None,
    subsets: o.SubsetsOption = o.Subsets.disjoint,
    kind: o.KindOption = o.Kind.all,
    limit: o.Limit = None,
    alpha: o.AlphaGrid = "0:0.95:20",
    beta: o.BetaGrid = "0.5:10:20",
    lam: o.Lam = 0.8,
    rounds: o.MapRounds = None,
    analytic: o.Analytic = False,
    objective: o.ObjectiveOption = o.Objective.ipo,
    start: o.Start = None,
    seed: o.Seed = 0,
    dtype: o.PrecisionOption = o.Precision.float32,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            rich_help_panel="Run",
            help="Folder for the results: a new or empty one, or that of the same run, which is then continued; "
            "s3://BUCKET/FOLDER and gs://BUCKET/FOLDER are buckets.",
        ),
    ] = "ipodyn-map",
    task: o.Task = None,
    distributed: o.Distributed = False,
    coordinator: o.Coordinator = None,
    num_processes: o.NumProcesses = None,
    process_id: o.ProcessId = None,
) -> None:
    """The stability map of a set of preference matrices: regime, variance and entropy over alpha and beta.

    Writes map.png, tables and arrays to --out. Without data it maps a synthetic set, to show what it does.
    """
    source = Source.of(locals())
    sharing = Sharing(task, distributed, coordinator, num_processes, process_id)
    MapCommand(
        source, alpha, beta, lam, rounds, objective.value, start, seed, dtype.value, out, analytic, sharing
    ).run()


@app.command("diagnose")
def _diagnose(
    file: Annotated[
        pathlib.Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="The data: .npy and .npz are --preferences; with --attributes a table is --ratings, else --pairs.",
        ),
    ] = None,
    ratings: o.Ratings = None,
    prompt: o.Prompt = None,
    attributes: o.Attributes = None,
    response: o.Response = None,
    pairs: o.Pairs = None,
    first: o.First = None,
    second: o.Second = None,
    score: o.Score = None,
    weight: o.Weight = None,
    winner: o.Winner = None,
    wins: o.Wins = None,
    ties: o.Ties = None,
    by: o.By = o.Comparands.response,
    both_orders: o.BothOrders = False,
    preferences: o.Preferences = None,
    helpsteer: o.HelpSteer = None,
    problem: o.Problem = None,
    strength: o.Strength = None,
    group: o.Group = None,
    subsets: o.SubsetsOption = o.Subsets.disjoint,
    kind: o.KindOption = o.Kind.all,
    limit: o.Limit = None,
    alpha: o.OptionalAlpha = None,
    beta: o.OptionalBeta = None,
    lam: o.OptionalLam = None,
    recipe: o.RecipeName = None,
    eta: o.Eta = None,
    tau: o.Tau = None,
    objective: o.OptionalObjective = None,
    config: o.Config = None,
    trl_beta: o.TrlBeta = None,
    trl_loss: o.TrlLoss = None,
    trl_reference: o.TrlReference = None,
    trl_data: o.TrlData = None,
    tokens: o.Tokens = None,
    rounds: o.ForecastRounds = 10,
    seed: o.Seed = 0,
    dtype: o.PrecisionOption = o.Precision.float64,
    out: Annotated[
        pathlib.Path, typer.Option(metavar="DIR", rich_help_panel="Run", help="Folder for the report and the tables.")
    ] = pathlib.Path("ipodyn-diagnosis"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel="Run", help="Replace what an earlier run left in --out.")
    ] = False,
) -> None:
    """Is your loop safe for your prompts? Which are at risk, why, and what to change.

    Writes report.html, diagnosis.csv and diagnosis.parquet to --out. Without data it diagnoses a synthetic set.
    """
    loop = LoopOptions.of(locals()).chosen()
    DiagnoseCommand(Source.of(locals(), file), loop, seed, dtype.value, out, overwrite, rounds).run()


@app.command("rollout")
def _rollout(
    preferences: o.Preferences = None,
    problem: o.Problem = None,
    strength: o.Strength = None,
    group: o.Group = None,
    index: Annotated[int, typer.Option(help="Which matrix of --preferences or of a random --problem, from 0.")] = 0,
    alpha: o.Alpha = 0.9,
    beta: o.Beta = 5.0,
    lam: o.Lam = 0.8,
    rounds: o.Rounds = 3000,
    objective: o.ObjectiveOption = o.Objective.ipo,
    start: o.Start = None,
    seed: o.Seed = 0,
    dtype: o.PrecisionOption = o.Precision.float32,
    show: Annotated[
        int, typer.Option(rich_help_panel="Run", help="How many of the first, and of the last, rounds to draw.")
    ] = 60,
    out: Annotated[
        pathlib.Path,
        typer.Option(metavar="FILE", rich_help_panel="Run", help="Picture to write: .png, .pdf or .svg."),
    ] = pathlib.Path("rollout.png"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel="Run", help="Replace --out if it exists.")
    ] = False,
) -> None:
    """One loop: probabilities against rounds, with three responses also in the simplex, and its regime.

    Without --preferences or --problem: the three-cycle, rock-paper-scissors. It starts a little off the uniform
    policy unless --start is given.
    """
    if preferences is None and problem is None:
        problem = "three_cycle"
    source = Source.of(locals())
    RolloutCommand(
        source, index, alpha, beta, lam, rounds, objective.value, start, dtype.value, show, out, overwrite
    ).run()


app.command("reproduce")(reproduce)
app.command("doctor")(doctor)


# The base of what the option parser raises; its module moved between versions of typer.
_PARSER_ERRORS: tuple[type[Exception], ...] = tuple(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)


def _what_the_parser_says(error: Exception) -> str:
    return error.format_message()  # pyright: ignore[reportAttributeAccessIssue]


def _say_stopped(message: str) -> None:
    after_echo = "\n" if sys.stderr.isatty() else ""  # a terminal has just printed ^C
    print(f"{after_echo}ipodyn: {message}", file=sys.stderr)


def run(arguments: list[str]) -> int:
    """Run a command line, without the set-up of a process: the exit code; messages go to stderr, one line each."""
    try:
        code = app(with_default_source(arguments), prog_name="ipodyn", standalone_mode=False)
    except CommandError as error:
        print(f"ipodyn: {one_line(str(error))}", file=sys.stderr)
        return 2
    except Stopped as stop:
        _say_stopped(one_line(str(stop)))
        return 130
    except (KeyboardInterrupt, typer.Abort):
        _say_stopped("stopped")
        return 130
    except _PARSER_ERRORS as error:
        print(f"ipodyn: {one_line(_what_the_parser_says(error))} See ipodyn --help.", file=sys.stderr)
        return 2
    if code == 130:  # the option parser turns Ctrl-C into an exit code
        _say_stopped("stopped")
    return code if isinstance(code, int) else 0
