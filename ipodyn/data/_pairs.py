"""Judged pairs to preferences: the loader of tables with one comparison a row."""

import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

from ._groups import all_subsets, check_grouping, check_number, disjoint_complete_groups
from ._matrices import from_upper
from ._report import DataError, LoadReport, counted
from ._set import PreferenceSet
from ._tables import ids, label_array, numbers, read_table, require_columns

_WEIGHT = "weight"  # read where the table has it, unless another column is named


class _Tournament(NamedTuple):
    """The comparisons of one prompt among its `n` responses."""

    members: np.ndarray  # (n,) response ranks, increasing
    P: np.ndarray  # (n, n) Pr(i beats j); NaN where the pair was not (or not fully) seen
    seen: np.ndarray  # (n, n) bool
    rows: np.ndarray  # rows of the table
    counts: np.ndarray  # (n, n) comparisons of each pair, or their weight, in both orders
    pairs: np.ndarray  # (rows, 2) places in `members` of each row's two responses


def load_pairs(
    path: str | os.PathLike[str],
    *,
    prompt: str = "prompt_id",
    first: str = "first",
    second: str = "second",
    score: str = "score",
    weight: str | None = None,
    group: int | None = None,
    subsets: str = "disjoint",
    both_orders: bool = False,
    prior: float | int = 0.0,
    seed: int = 0,
    limit: int = 1_000_000,
) -> PreferenceSet:
    r"""Preference matrices from a table of judged pairs, one row a comparison of two responses to a prompt.

        P[i, j] = (sum of w s + prior / 2) / (sum of w + prior)

    over all comparisons of i with j, where s is the score of i (the row's score, or 1 minus it where i came
    second). A matrix needs every one of its pairs; `prior` steadies thin counts but invents no pair.

    - `path`: a CSV, TSV, JSON-lines (each also .gz) or Parquet file.
    - `prompt`, `first`, `second`, `score`, `weight`: column names. The score is that of the first response,
      in [0, 1]: 1 it wins, 0 it loses, 1/2 a tie, or any share between. Weights are positive; without
      `weight`, a column called "weight" is used if there is one, else all count 1. Repeated rows are repeated
      votes.
    - `group`: K. `None` takes whole prompts whose tournament is complete, which must then all have one size.
      With K, groups of K responses whose pairs were all seen: `subsets="disjoint"`, greedily along a seeded
      random order, or `"all"`, every one (overlapping; at most `limit` subsets are tried).
    - `both_orders`: count a pair as seen only if each response came first at least once, and average the
      means of the two orders with equal weight. Judges favour a position; this cancels it.
    - `prior`: >= 0, in comparisons: pseudo-comparisons that end in a tie, added to each seen pair.

    Rows without a value, of weight 0, or that compare a response with itself are dropped, and counted in the
    report. Responses stand in increasing order of their ids. Raises `DataError`, one line with the culprit
    and the cure.
    """
    check_grouping(group, subsets, limit)
    if not (prior >= 0 and math.isfinite(prior)):
        raise DataError(f"prior is {prior}; it must be a finite number of comparisons, 0 or more")
    frame = read_table(path)
    if weight is None and _WEIGHT in frame.columns:
        weight = _WEIGHT
    require_columns(frame, [prompt, first, second, score, *([] if weight is None else [weight])], path)
    scores = numbers(frame, score, path)
    weights = np.ones(len(scores)) if weight is None else numbers(frame, weight, path)
    _check_range(path, score, scores, np.isnan(scores) | ((scores >= 0) & (scores <= 1)), "in [0, 1]")
    _check_range(path, weight or "", weights, np.isnan(weights) | (weights >= 0), "0 or more")
    prompts = ids(frame, [prompt], path)[0]
    ahead, behind = ids(frame, [first, second], path)
    labels = ahead.labels if len(ahead.labels) > len(behind.labels) else behind.labels
    order = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.empty(len(labels) + 1, int)
    rank[order], rank[-1] = np.arange(len(labels)), -1  # code -1, a missing id, stays -1
    i, j = rank[ahead.codes], rank[behind.codes]

    fate = np.full(frame.height, "", dtype=object)
    fate[i == j] = "comparing a response with itself"
    fate[weights == 0] = "of weight 0"
    fate[np.isnan(scores) | np.isnan(weights)] = "without a score or weight"
    fate[(i < 0) | (j < 0)] = "without a response id"
    fate[prompts.codes < 0] = "without a prompt"

    tournaments = _tournaments(fate == "", prompts.codes, i, j, scores, weights, both_orders, prior)
    found = _groups(path, tournaments, group, subsets, np.random.default_rng(seed), limit)
    if not any(len(places) for places in found.values()):
        raise DataError(_nothing(path, tournaments, group, fate, both_orders))
    K = next(places.shape[1] for places in found.values() if len(places))

    used = np.zeros(frame.height, bool)
    uppers, pair_counts, prompt_codes, members = [], [], [], []
    a, b = np.triu_indices(K, 1)
    for code, places in found.items():
        tournament = tournaments[code]
        uppers.append(tournament.P[places[:, a], places[:, b]])
        pair_counts.append(tournament.counts[places[:, a], places[:, b]])
        prompt_codes += [code] * len(places)
        members.append(tournament.members[places])
        needed = np.zeros_like(tournament.seen)
        needed[places[:, a], places[:, b]] = True
        needed |= needed.T
        used[tournament.rows] = needed[tournament.pairs[:, 0], tournament.pairs[:, 1]]
    made = {code for code, places in found.items() if len(places)}
    what = "an incomplete tournament" if group is None else f"no complete group of {group}"
    unseen = "in pairs seen in one order only" if both_orders else ""
    for code, tournament in tournaments.items():
        rows, (x, y) = tournament.rows, tournament.pairs.T
        fate[rows] = f"in no group of {group}" if code in made else f"of prompts with {what}"
        if unseen:
            fate[rows[~tournament.seen[x, y]]] = unseen
    reasons, counts = np.unique(fate[~used].astype(str), return_counts=True)

    names, shortened = label_array([labels[place] for place in order])
    prompt_names, prompts_shortened = label_array(prompts.labels)
    notes = ("prompts are long texts: replaced by running numbers",) * prompts_shortened
    notes += ("responses are long texts: replaced by running numbers",) * shortened
    P = from_upper(np.concatenate(uppers), K)
    comparisons = np.zeros_like(P)
    comparisons[:, a, b] = comparisons[:, b, a] = np.concatenate(pair_counts)
    kept = "complete tournaments" if group is None else f"{subsets} complete groups of {group}, seed {seed}"
    orders = ", both orders averaged" if both_orders else ""
    return PreferenceSet(
        P=P,
        prompts=prompt_names[np.asarray(prompt_codes)],
        responses=names[np.concatenate(members)],
        report=LoadReport(
            rows_read=frame.height,
            rows_used=int(used.sum()),
            rows_dropped=counted(dict(zip(reasons.tolist(), counts.tolist(), strict=True))),
            prompts_read=len(prompts.labels),
            prompts_used=len(made),
            prompts_dropped=counted(
                {
                    "without a usable row": len(prompts.labels) - len(tournaments),
                    f"with {what}": len(tournaments) - len(made),
                }
            ),
            matrices_made=len(P),
            notes=notes,
        ),
        source=f"pairs {pathlib.Path(path).name}, {kept}{orders}" + (f", prior {prior:g}" if prior else ""),
        counts=comparisons,
    )


def _check_range(path: object, column: str, values: np.ndarray, good: np.ndarray, range_: str) -> None:
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"{path}: column {column!r} must be {range_}, but row {row + 1} holds {values[row]:g}; rescale "
            "it, or remove the codes for missing answers"
        )


def _tournaments(
    usable: np.ndarray,
    prompts: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    both_orders: bool,
    prior: float | int,
) -> dict[int, _Tournament]:
    """The tournament of every prompt that has a usable row, by the code of the prompt."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(prompts[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(prompts[rows], prepend=-1))
    result = {}
    for rows_here in np.split(rows, starts[1:]) if len(rows) else []:
        members, places = np.unique(np.stack([first[rows_here], second[rows_here]]), return_inverse=True)
        x, y = places.reshape(2, -1)
        n = len(members)
        wins, weight = np.zeros((n, n)), np.zeros((n, n))  # of i, where i came first
        np.add.at(wins, (x, y), weights[rows_here] * scores[rows_here])
        np.add.at(weight, (x, y), weights[rows_here])
        total = weight + weight.T
        with np.errstate(invalid="ignore", divide="ignore"):
            if both_orders:
                ahead = wins / weight
                mean = (ahead + 1 - ahead.T) / 2
            else:
                mean = (wins + weight.T - wins.T) / total
            P = (mean * total + prior / 2) / (total + prior)
        np.fill_diagonal(P, 0.5)
        pairs = np.stack([x, y], axis=1)
        result[int(prompts[rows_here[0]])] = _Tournament(members, P, np.isfinite(P), rows_here, total, pairs)
    return result


def _groups(
    path: object,
    tournaments: dict[int, _Tournament],
    group: int | None,
    subsets: str,
    rng: np.random.Generator,
    limit: int,
) -> dict[int, np.ndarray]:
    """For each prompt, (groups, K) places of the members of its complete groups; possibly none."""
    found = {}
    if group is None:
        for code, (members, _, seen, *_) in tournaments.items():
            n = len(members)
            found[code] = np.arange(n)[None] if seen.all() else np.zeros((0, n), int)
        sizes, counts = np.unique([g.shape[1] for g in found.values() if len(g)], return_counts=True)
        if len(sizes) > 1:
            seen_sizes = ", ".join(f"{c:,} of {int(s)}" for s, c in zip(sizes, counts, strict=True))
            raise DataError(
                f"{path}: complete tournaments have several sizes ({seen_sizes} responses), but one set has "
                f"one K; choose it by `group`, for example group {int(sizes.min())}"
            )
        return {code: g for code, g in found.items() if len(g)}
    if subsets == "all":
        check_number(np.asarray([len(t.members) for t in tournaments.values()]), group, limit, path)
    for code, (members, _, seen, *_) in tournaments.items():
        if subsets == "all":
            places = all_subsets(len(members), group)
            a, b = np.triu_indices(group, 1)
            places = places[seen[places[:, a], places[:, b]].all(axis=1)]
        else:
            places = disjoint_complete_groups(rng, seen, group)
        found[code] = places
    return found


def _nothing(
    path: object, tournaments: dict[int, _Tournament], group: int | None, fate: np.ndarray, both_orders: bool
) -> str:
    """Why no matrix could be made, in one line."""
    if not tournaments:
        reasons, counts = np.unique(fate.astype(str), return_counts=True)
        return f"{path}: no usable row: " + ", ".join(
            f"{count:,} {reason}" for reason, count in zip(reasons, counts, strict=True)
        )
    most = max(len(t.members) for t in tournaments.values())
    if group is not None and most < group:
        return f"{path}: no prompt has {group} responses (the most is {most}); use groups of {most} or fewer"
    cure = "compare the missing pairs" if group is not None and group <= 2 else "use smaller groups"
    cure += ", or do not ask for both orders" if both_orders else ""
    what = "tournament" if group is None else f"group of {group} responses"
    return f"{path}: no prompt has a complete {what}, with every pair compared; {cure}"
