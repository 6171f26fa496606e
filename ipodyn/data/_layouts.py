"""Tables of comparisons as people have them, brought into one form: two responses, a score, a weight, a row each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._report import DataError
from ._tables import Ids, ids, numbers, require_columns
from ._texts import conversation_ids

if TYPE_CHECKING:
    import polars

# Names under which people keep the same thing, the likeliest first.
PROMPTS = ("prompt_id", "prompt", "question_id", "question", "instruction", "task_id", "query", "input")
RESPONSES = (
    ("first", "second"),
    ("model_a", "model_b"),
    ("model_1", "model_2"),
    ("response_a", "response_b"),
    ("response_1", "response_2"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
)
WINS = (("wins_a", "wins_b"), ("wins_1", "wins_2"), ("first_wins", "second_wins"))
TIES = ("ties", "draws", "tie")
MODELS = (("chosen_model", "rejected_model"), ("chosen-model", "rejected-model"))
WINNERS = ("winner", "verdict", "preference", "label")
FIRST = frozenset({"1", "a", "first", "left", "model_a", "response_a", "answer_a", "assistant_a", "win"})
SECOND = frozenset({"2", "b", "second", "right", "model_b", "response_b", "answer_b", "assistant_b", "loss"})
TIED = frozenset({"0", "3", "tie", "ties", "tied", "draw", "equal", "both", "neither", "tie (bothbad)", "bothbad"})
MISSING = frozenset({"", "-1", "na", "n/a", "nan", "null", "none", "invalid", "error"})
POOLED = "all prompts"


class Columns(NamedTuple):
    """What the user named; None is for the table to say."""

    prompt: str | None = None
    first: str | None = None
    second: str | None = None
    score: str | None = None
    weight: str | None = None
    winner: str | None = None
    wins: tuple[str, str] | None = None
    ties: str | None = None
    chosen: str | None = None
    rejected: str | None = None


class Comparisons(NamedTuple):
    """One comparison a row: codes of the two responses among `labels`, -1 for none; score of the first, weight."""

    prompts: Ids
    first: np.ndarray
    second: np.ndarray
    labels: list
    scores: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...]


def comparisons_in(frame: "polars.DataFrame", given: Columns, path: object, *, pooled: bool = False) -> Comparisons:
    """The comparisons in a table, by the columns that the user named or, where none are named, by those it has.

    - `pooled`: all rows belong to one prompt, and models stand for responses.

    Raises `DataError`, one line, where the table is none of the known layouts; it says which command would read it.
    """
    own, layout = _layout(frame, given, path, pooled)
    require_columns(frame, [] if own.weight is None else [own.weight], path)
    comparisons = layout(frame, own, path, pooled)
    weights, scores = comparisons.weights, comparisons.scores
    if own.weight is not None:
        weights = weights * numbers(frame, own.weight, path)
    _check_range(path, own.weight or "", weights, np.isnan(weights) | (weights >= 0), "0 or more")
    _check_range(path, own.score or "", scores, np.isnan(scores) | _in_unit(scores), "in [0, 1]")
    return comparisons._replace(weights=weights)


def _in_unit(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values <= 1)


_Layout = Callable[["polars.DataFrame", Columns, object, bool], Comparisons]


def _layout(frame: "polars.DataFrame", given: Columns, path: object, pooled: bool) -> tuple[Columns, _Layout]:
    """The columns to read, named or recognised, and how."""
    have = set(frame.columns)
    own = given
    if own.prompt is None:
        own = own._replace(prompt=next((name for name in PROMPTS if name in have), None))
    if own.weight is None and "weight" in have:
        own = own._replace(weight="weight")
    if own.chosen or own.rejected or (_none_of(given) and {"chosen", "rejected"} <= have):
        return own._replace(chosen=own.chosen or "chosen", rejected=own.rejected or "rejected"), _chosen
    if own.first is None and own.second is None:
        both = next((names for names in RESPONSES if set(names) <= have), None)
        own = own if both is None else own._replace(first=both[0], second=both[1])
    if own.wins is None and own.score is None and own.winner is None:
        own = own._replace(wins=next((names for names in WINS if set(names) <= have), None))
    if own.wins is not None:
        ties = next((name for name in TIES if name in have), None) if own.ties is None else own.ties
        return _with_responses(own._replace(ties=ties)), _counts
    if own.score is None and own.winner is None and "score" not in have:
        own = own._replace(winner=next((name for name in WINNERS if name in have), None))
    if own.winner is not None:
        return _with_responses(own), _winner
    own = _with_responses(own)._replace(score=own.score or "score")
    _check_known(frame, own, path, pooled)
    return own, _scored


def _none_of(given: Columns) -> bool:
    return not any((given.first, given.second, given.score, given.winner, given.wins))


def _with_responses(own: Columns) -> Columns:
    return own._replace(first=own.first or "first", second=own.second or "second")


def _check_known(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> None:
    """Raise, with what would read the table, where a column of the plain layout is missing."""
    needed = [own.first, own.second, own.score, *([] if pooled else [own.prompt or PROMPTS[0]])]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        noun = "column" if len(missing) == 1 else "columns"
        raise DataError(
            f"{path}: no {noun} {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(map(repr, frame.columns))}{advice(frame, path)}"
        )


def advice(frame: "polars.DataFrame", path: object) -> str:
    """The command that would read a table that is none of comparisons, as the end of a sentence; or nothing."""
    numeric = [name for name in frame.columns if frame[name].dtype.is_numeric()]
    prompt = next((name for name in PROMPTS if name in frame.columns), None)
    if any(set(names) <= set(frame.columns) for names in RESPONSES):
        likely = [name for name in numeric if name not in PROMPTS and not name.endswith("_id")]
        return f"; the column of scores is named by --score, such as --score {likely[0]}" if likely else ""
    if prompt is None:
        repeated = [name for name in frame.columns if 1 < frame[name].n_unique() <= frame.height / 2]
        prompt = repeated[0] if repeated else None
    attributes = [name for name in numeric if name != prompt and not name.endswith("_id")]
    if prompt is None or not attributes:
        return "; name them with --prompt, --first, --second and --score, --winner or --wins"
    return (
        f"; rated responses are read by: ipodyn diagnose {path} --prompt {prompt} --attributes {','.join(attributes)}"
    )


def _prompts(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> Ids:
    if pooled:
        return Ids(np.zeros(frame.height, int), [POOLED])
    require_columns(frame, [own.prompt or PROMPTS[0]], path)
    return ids(frame, [own.prompt or PROMPTS[0]], path)[0]


def _scored(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> Comparisons:
    assert own.score is not None
    scores = numbers(frame, own.score, path)
    return _between(frame, own, path, pooled, scores, np.ones(frame.height), ())


def _between(
    frame: "polars.DataFrame",
    own: Columns,
    path: object,
    pooled: bool,
    scores: np.ndarray,
    weights: np.ndarray,
    notes: tuple[str, ...],
) -> Comparisons:
    """Comparisons of two named responses a row."""
    assert own.first is not None and own.second is not None
    ahead, behind = ids(frame, [own.first, own.second], path)
    labels = ahead.labels if len(ahead.labels) > len(behind.labels) else behind.labels
    return Comparisons(_prompts(frame, own, path, pooled), ahead.codes, behind.codes, labels, scores, weights, notes)


def _winner(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> Comparisons:
    assert own.winner is not None and own.first is not None and own.second is not None
    require_columns(frame, [own.first, own.second, own.winner], path)
    texts = ["" if x is None else str(x).strip().lower().removesuffix(".0") for x in frame[own.winner].to_list()]
    named = [[str(x).strip().lower() for x in frame[name].to_list()] for name in (own.first, own.second)]
    if set(texts) - MISSING <= {"0", "1"} and "0" in texts:
        raise DataError(
            f"{path}: {own.winner!r} holds 0 and 1, which may say which response won or whether the first did; where "
            f"1 means that the first won, say --score {own.winner}, else write 1, 2 and tie"
        )
    scores = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if text in MISSING:
            continue
        if text in FIRST or text == named[0][row]:
            scores[row] = 1.0
        elif text in SECOND or text == named[1][row]:
            scores[row] = 0.0
        elif text in TIED:
            scores[row] = 0.5
        else:
            raise DataError(
                f"{path}: {own.winner!r} is {text!r} in row {row + 1}; write 1, 2, tie, or the name of the response "
                "that won"
            )
    note = (f"winners from {own.winner!r}, between {own.first!r} and {own.second!r}",)
    return _between(frame, own, path, pooled, scores, np.ones(len(texts)), note)


def _counts(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> Comparisons:
    assert own.wins is not None
    columns = [*own.wins, *([own.ties] if own.ties else [])]
    require_columns(frame, [own.first or "", own.second or "", *columns], path)
    values = [np.nan_to_num(numbers(frame, name, path)) for name in columns]
    for name, counts in zip(columns, values, strict=True):
        _check_range(path, name, counts, counts >= 0, "0 or more")
    ties = values[2] if own.ties else np.zeros(frame.height)
    weights = values[0] + values[1] + ties
    scores = (values[0] + ties / 2) / np.where(weights > 0, weights, 1)
    note = (f"counts of wins from {', '.join(map(repr, columns))}",)
    if not own.ties:
        note = (*note, "no column of ties: every comparison has a winner")
    if not pooled and own.prompt is None:
        pooled, note = True, (*note, "no column of prompts: all rows belong to one")
    return _between(frame, own, path, pooled, scores, weights, note)


def _chosen(frame: "polars.DataFrame", own: Columns, path: object, pooled: bool) -> Comparisons:
    """Pairs as preference trainers read them: the first response of each row, `chosen`, wins."""
    assert own.chosen is not None and own.rejected is not None
    require_columns(frame, [own.chosen, own.rejected], path)
    ones = np.ones(frame.height)
    if pooled:
        both = next((names for names in MODELS if set(names) <= set(frame.columns)), None)
        if both is None:
            raise DataError(
                f"{path}: --by model needs the columns {MODELS[0][0]!r} and {MODELS[0][1]!r}, which models the two "
                f"responses are of; the table has {', '.join(map(repr, frame.columns))}"
            )
        note = (f"models stand for responses: {both[0]!r} beat {both[1]!r}",)
        return _between(frame, own._replace(first=both[0], second=both[1]), path, True, ones, ones, note)
    prompts, first, second, labels = conversation_ids(frame, own.prompt, own.chosen, own.rejected, path)
    note = (f"{own.chosen!r} beat {own.rejected!r}; responses of the same text are one",)
    return Comparisons(prompts, first, second, labels, ones, ones, note)


def _check_range(path: object, column: str, values: np.ndarray, good: np.ndarray, range_: str) -> None:
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"{path}: column {column!r} must be {range_}, but row {row + 1} holds {values[row]:g}; rescale "
            "it, or remove the codes for missing answers"
        )
