"""The options that several commands share, and how their texts are read."""

import enum
import pathlib
from typing import Annotated, Any

import numpy as np
import typer

from .._numerics.checks import check_policy
from .errors import CommandError, foreseen

# Help is read by people who know their trainer, not this project: say which way every number points.
_DATA = "Data (one of these; none of them: a synthetic set)"
_DYNAMICS = "Loop"
_TRAINER = "Trainer settings in place of --alpha, --beta, --lam; what is not said is the trainer's default"
_RUN = "Run"
_MANY = "Many processes (on one --out that all of them see)"


class Kind(enum.StrEnum):
    all = "all"
    cyclic = "cyclic"
    st = "st"


class Objective(enum.StrEnum):
    ipo = "ipo"
    dpo = "dpo"


class Precision(enum.StrEnum):
    float32 = "float32"
    float64 = "float64"


class Subsets(enum.StrEnum):
    disjoint = "disjoint"
    all = "all"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)


Ratings = Annotated[
    pathlib.Path | None,
    _option(
        "--ratings",
        panel=_DATA,
        metavar="FILE",
        help="Table with one rated response a row (.csv, .jsonl, .parquet); needs --prompt and --attributes.",
    ),
]
Prompt = Annotated[
    str | None,
    _option(
        "--prompt",
        panel=_DATA,
        metavar="COL",
        help="Column that says which prompt a row belongs to (--pairs: prompt_id by default).",
    ),
]
Attributes = Annotated[
    str | None,
    _option(
        "--attributes",
        panel=_DATA,
        metavar="A,B,C",
        help="Columns of --ratings with the ratings; one of them, drawn at random, decides each pair.",
    ),
]
Response = Annotated[
    str | None,
    _option("--response", panel=_DATA, metavar="COL", help="Column of --ratings that names the response."),
]
Pairs = Annotated[
    pathlib.Path | None,
    _option(
        "--pairs",
        panel=_DATA,
        metavar="FILE",
        help="Table with one judged pair a row: prompt_id, first, second, score of the first in [0, 1], and "
        "optionally weight.",
    ),
]
BothOrders = Annotated[
    bool,
    _option(
        "--both-orders",
        panel=_DATA,
        help="Of --pairs, use only pairs judged in both orders, and average the two.",
    ),
]
Preferences = Annotated[
    pathlib.Path | None,
    _option(
        "--preferences",
        panel=_DATA,
        metavar="FILE",
        help="Preference matrices as .npy or .npz, shape (M, K, K): entry (i, j) is the fraction of wins of i over j.",
    ),
]
HelpSteer = Annotated[
    str | None,
    _option(
        "--helpsteer",
        panel=_DATA,
        metavar="[SOURCE]",
        help="HelpSteer: downloaded from nvidia/HelpSteer, or SOURCE: another dataset, a file or a folder.",
    ),
]
Problem = Annotated[
    str | None,
    _option("--problem", panel=_DATA, metavar="NAME", help="A problem of ipodyn.problems, such as three_cycle."),
]
Strength = Annotated[
    float | None,
    _option(
        "--strength",
        panel=_DATA,
        metavar="A",
        help="Margin of the wins in --problem three_cycle, cycle and overshadowed_winner, up to 0.5; 0.3 if not given.",
    ),
]
Group = Annotated[
    int | None,
    _option(
        "--group",
        panel=_DATA,
        metavar="K",
        help="Responses in a matrix: 4 for ratings; for pairs, whole prompts if not given.",
    ),
]
SubsetsOption = Annotated[
    Subsets,
    _option(
        "--subsets",
        panel=_DATA,
        help="Groups of K responses of a prompt: a random partition (disjoint), or all of them.",
    ),
]
KindOption = Annotated[
    Kind,
    _option(
        "--kind",
        panel=_DATA,
        help="Keep all matrices, those with a majority cycle (cyclic), or the strongly transitive ones (st).",
    ),
]
Limit = Annotated[
    int | None,
    _option("--limit", panel=_DATA, metavar="N", help="Keep the first N matrices; of a random --problem, draw N."),
]

_BETA_HELP = (
    "Strength of the preference signal relative to the KL anchor. Larger = stronger signal, weaker anchor: this is "
    "1 / beta of TRL's DPO and most papers, so a beta of 0.1 is 10 here (TRL's ipo: tokens / beta)."
)
_ALPHA_HELP = "How far the reference follows the current policy: 0 it stays at the start, 1 it is the last checkpoint."
AlphaGrid = Annotated[
    str, _option("--alpha", panel=_DYNAMICS, metavar="START:STOP:N", help=f"{_ALPHA_HELP} One number is a grid of one.")
]
BetaGrid = Annotated[
    str,
    _option(
        "--beta",
        panel=_DYNAMICS,
        metavar="START:STOP:N[:log]",
        help=f"{_BETA_HELP} One number is a grid of one; :log spaces by equal factors.",
    ),
]
Alpha = Annotated[float, _option("--alpha", panel=_DYNAMICS, help=_ALPHA_HELP)]
Beta = Annotated[float, _option("--beta", panel=_DYNAMICS, help=_BETA_HELP)]
OptionalAlpha = Annotated[
    float | None, _option("--alpha", panel=_DYNAMICS, metavar="A", help=f"{_ALPHA_HELP} 0.9 if not given.")
]
OptionalBeta = Annotated[
    float | None, _option("--beta", panel=_DYNAMICS, metavar="B", help=f"{_BETA_HELP} 5 if not given.")
]
OptionalLam = Annotated[
    float | None,
    _option(
        "--lam",
        panel=_DYNAMICS,
        metavar="L",
        help="Share of training pairs sampled from the current policy: 0 all from fixed data, 1 all on-policy. 0.8 if "
        "not given.",
    ),
]
Config = Annotated[
    pathlib.Path | None,
    _option(
        "--config",
        panel=_TRAINER,
        metavar="FILE",
        help="The trainer's configuration, YAML or JSON: TRL (DPOConfig, OnlineDPOConfig), SPPO, INPO, COMAL or MNPO.",
    ),
]
TrlBeta = Annotated[
    float | None,
    _option(
        "--trl-beta",
        panel=_TRAINER,
        metavar="B",
        help="The trainer's beta: the KL coefficient, larger = closer to the reference; 0.1 if not given.",
    ),
]
TrlLoss = Annotated[
    str | None,
    _option("--trl-loss", panel=_TRAINER, metavar="LOSS", help="Its loss_type: sigmoid (the default) or ipo."),
]
TrlReference = Annotated[
    str | None,
    _option(
        "--trl-reference",
        panel=_TRAINER,
        metavar="REF",
        help="Its ref_model in each round: fixed (the default), last (the last checkpoint), synced, or the last "
        "checkpoint's share, 0 to 1.",
    ),
]
TrlData = Annotated[
    str | None,
    _option(
        "--trl-data",
        panel=_TRAINER,
        metavar="DATA",
        help="Its pairs in each round: fixed (the default), on-policy, or the on-policy share, 0 to 1.",
    ),
]
Tokens = Annotated[
    float | None,
    _option(
        "--tokens",
        panel=_TRAINER,
        metavar="N",
        help="Typical length of a completion: TRL's ipo averages over tokens, so that its beta means something only "
        "with it. 1 for OnlineDPOTrainer, which sums.",
    ),
]
RecipeName = Annotated[
    str | None,
    _option(
        "--recipe",
        panel=_DYNAMICS,
        metavar="NAME",
        help="A named loop in place of --alpha and --lam: one-shot, online, last-checkpoint, self-rewarding (with "
        "--beta or --trl-beta), mirror-descent, nash-md (with --eta and --tau).",
    ),
]
Eta = Annotated[
    float | None, _option("--eta", panel=_DYNAMICS, metavar="E", help="Step of --recipe mirror-descent or nash-md.")
]
Tau = Annotated[
    float | None,
    _option("--tau", panel=_DYNAMICS, metavar="T", help="KL coefficient of --recipe mirror-descent or nash-md."),
]
Lam = Annotated[
    float,
    _option(
        "--lam",
        panel=_DYNAMICS,
        help="Share of training pairs sampled from the current policy: 0 all from fixed data, 1 all on-policy.",
    ),
]
Rounds = Annotated[int, _option("--rounds", panel=_DYNAMICS, help="Rounds of training and deployment to simulate.")]
MapRounds = Annotated[
    int | None,
    _option("--rounds", panel=_DYNAMICS, help="Rounds of training and deployment to simulate; 3000 if not given."),
]
Analytic = Annotated[
    bool,
    _option(
        "--analytic",
        panel=_DYNAMICS,
        help="Simulate nothing: regimes as the fixed points and their stability predict them.",
    ),
]
ObjectiveOption = Annotated[Objective, _option("--objective", panel=_DYNAMICS, help="Training objective of a round.")]
OptionalObjective = Annotated[
    Objective | None,
    _option(
        "--objective",
        panel=_DYNAMICS,
        help="Training objective of a round; ipo if not given, with trainer settings the trainer's loss.",
    ),
]
Start = Annotated[
    str | None,
    _option(
        "--start",
        panel=_DYNAMICS,
        metavar="P1,P2,...",
        help="Policy to start from, one probability a response; without it a little off the uniform one.",
    ),
]
Seed = Annotated[int, _option("--seed", panel=_RUN, help="Seed of all random draws; the same seed, the same result.")]
PrecisionOption = Annotated[Precision, _option("--dtype", panel=_RUN, help="Floating-point numbers to compute in.")]

Task = Annotated[
    str | None,
    _option(
        "--task",
        panel=_MANY,
        metavar="I/N",
        help="Compute only part I = 1..N of the map, such as $SLURM_ARRAY_TASK_ID/64. The tasks need not know of one "
        "another; the last to finish writes tables and picture.",
    ),
]
Distributed = Annotated[
    bool,
    _option(
        "--distributed",
        panel=_MANY,
        help="This is one process of a JAX job, as the cluster's environment says (Slurm, Open MPI, TPU or GPU pod).",
    ),
]
Coordinator = Annotated[
    str | None,
    _option(
        "--coordinator",
        panel=_MANY,
        metavar="HOST:PORT",
        help="Where process 0 of a JAX job listens, if the environment does not say; needs the next two.",
    ),
]
NumProcesses = Annotated[int | None, _option("--num-processes", panel=_MANY, metavar="N", help="Processes of the job.")]
ProcessId = Annotated[
    int | None, _option("--process-id", panel=_MANY, metavar="I", help="Which of them this is, from 0.")
]


def parse_grid(text: str, name: str) -> np.ndarray:
    """`START:STOP:N`, `START:STOP:N:log` or one number, as increasing values."""
    how = f"write START:STOP:N such as 0.5:10:20, START:STOP:N:log, or one number; {name} is {text!r}"
    parts = text.split(":")
    log = len(parts) == 4 and parts[3] == "log"
    if len(parts) not in (1, 3) and not log:
        raise CommandError(how)
    try:
        ends = [float(part) for part in parts[:2]]
        number = int(parts[2]) if len(parts) > 2 else 1
    except ValueError:
        raise CommandError(how) from None
    if not np.all(np.isfinite(ends)):
        raise CommandError(f"{name} is {text!r}: give finite numbers")
    if len(ends) == 1:
        return np.array(ends)
    start, stop = ends
    if number < 2:
        raise CommandError(f"{name} is {text!r}: a range needs at least 2 points; for one point give one number")
    if not start < stop:
        raise CommandError(f"{name} is {text!r}: STOP must be larger than START")
    if log and start <= 0:
        raise CommandError(f"{name} is {text!r}: a grid with :log must start above 0")
    return np.geomspace(start, stop, number) if log else np.linspace(start, stop, number)


def parse_policy(text: str, K: int) -> np.ndarray:
    """`P1,P2,...` as K probabilities that sum to 1."""
    try:
        policy = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise CommandError(
            f"--start is {text!r}: write {K} probabilities with commas between them, such as 0.5,0.3,0.2"
        ) from None
    with foreseen(ValueError):
        return check_policy(policy, K, name="--start")


def with_default_source(arguments: list[str]) -> list[str]:
    """`--helpsteer` may stand alone; then it means the dataset itself."""
    result = []
    for place, argument in enumerate(arguments):
        result.append(argument)
        following = arguments[place + 1] if place + 1 < len(arguments) else "--"
        if argument == "--helpsteer" and following.startswith("--"):
            result.append("nvidia/HelpSteer")
    return result
