"""The options that several commands share."""

import enum
import pathlib
from typing import Annotated, Any

import typer

# Help is read by people who know their trainer, not this project: say which way every number points.
_DATA = "Data (one of these; none of them: a synthetic set)"
_COLUMNS = "Columns of --pairs, where they have other names"
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


class Comparands(enum.StrEnum):
    response = "response"
    model = "model"


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
        help="Column that says which prompt a row belongs to (--pairs: prompt_id, prompt, ... by default).",
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
        help="Table with one judged pair a row: first, second and score, winner or wins; or prompt, chosen, rejected. "
        "Usual names of columns are recognised, others named by the options of --pairs.",
    ),
]
First = Annotated[
    str | None, _option("--first", panel=_COLUMNS, metavar="COL", help="Column of the first response of a pair.")
]
Second = Annotated[
    str | None, _option("--second", panel=_COLUMNS, metavar="COL", help="Column of the second response.")
]
Score = Annotated[
    str | None,
    _option("--score", panel=_COLUMNS, metavar="COL", help="Column of the score of the first response, 0 to 1."),
]
Weight = Annotated[
    str | None, _option("--weight", panel=_COLUMNS, metavar="COL", help="Column of how much a row counts.")
]
Winner = Annotated[
    str | None,
    _option("--winner", panel=_COLUMNS, metavar="COL", help="Column of the winner: 1, 2 or tie, a or b, or its name."),
]
Ties = Annotated[
    str | None, _option("--ties", panel=_COLUMNS, metavar="COL", help="Column of the number of ties, beside --wins.")
]
Wins = Annotated[
    str | None,
    _option("--wins", panel=_COLUMNS, metavar="A,B", help="Columns that count the wins of the first and the second."),
]
By = Annotated[
    Comparands,
    _option(
        "--by",
        panel=_COLUMNS,
        help="What is compared: responses, prompt by prompt, or the models that gave them, all prompts pooled.",
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
    _option(
        "--trl-loss",
        panel=_TRAINER,
        metavar="LOSS",
        help="Its loss_type: sigmoid (the default), sigmoid_norm, ipo or sppo_hard.",
    ),
]
TrlReference = Annotated[
    str | None,
    _option(
        "--trl-reference",
        panel=_TRAINER,
        metavar="REF",
        help="Its ref_model in each round: fixed (the default), last (the last checkpoint), synced, or the last "
        "checkpoint's fraction, 0 to 1.",
    ),
]
TrlData = Annotated[
    str | None,
    _option(
        "--trl-data",
        panel=_TRAINER,
        metavar="DATA",
        help="Its pairs in each round: fixed (the default), on-policy, or the on-policy fraction, 0 to 1.",
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
ForecastRounds = Annotated[
    int,
    _option("--rounds", panel=_DYNAMICS, help="Rounds to forecast from the first model; with --alpha 1 the verdict."),
]
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
