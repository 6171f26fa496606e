"""Judged pairs to preferences: the loader of tables with one comparison a row."""

import dataclasses
import math
import os
import pathlib
from typing import Any

import numpy as np

from .._numerics.deprecation import renamed_keywords
from .._numerics.randomness import RandomKey, host_generator, key_words
from .._preferences.pairs import pairs
from ._groups import all_subsets, check_grouping, check_number, disjoint_complete_groups
from ._layouts import Columns, Comparisons, comparisons_in
from ._matrices import from_rounded
from ._report import DataError, LoadReport, counted
from ._set import PreferenceSet
from ._tables import Ids, label_array, name_of, read_table
from ._tournaments import Tournaments, tournaments

# What becomes of a row; the later ones win where several apply.
_USED, _ITSELF, _WEIGHTLESS, _NO_SCORE, _NO_RESPONSE, _NO_PROMPT, _NO_GROUP, _INCOMPLETE, _ONE_ORDER = range(9)


@renamed_keywords("0.3", seed="key")
def load_pairs(
    path: str | os.PathLike[str] | Any,
    *,
    prompt: str | None = None,
    first: str | None = None,
    second: str | None = None,
    score: str | None = None,
    weight: str | None = None,
    winner: str | None = None,
    wins: tuple[str, str] | None = None,
    ties: str | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    by: str = "response",
    group: int | None = None,
    subsets: str = "disjoint",
    both_orders: bool = False,
    prior: float | int = 0.0,
    key: RandomKey = 0,
    limit: int = 1_000_000,
) -> PreferenceSet:
    r"""Preference matrices from a table of judged pairs, one row a comparison of two responses to a prompt.

        P[i, j] = (sum of w s + prior / 2) / (sum of w + prior)

    over all comparisons of i with j, where s is the score of i (the row's score, or 1 minus it where i came
    second). A matrix needs every one of its pairs; `prior` steadies thin counts but invents no pair.

    - `path`: a CSV, TSV, JSON-lines (each also .gz) or Parquet file, or a frame of polars or pandas, or a
      `datasets.Dataset`.
    - Columns by name; what is not named is recognised: `prompt` and two responses (`first` and `second`, `model_a`
      and `model_b`, ...) with one of
        - `score`: of the first response, in [0, 1]: 1 it wins, 0 it loses, 1/2 a tie, or any number between;
        - `winner`: 1, 2 or tie, a or b, or the name of the response that won; -1 and empty are missing;
        - `wins`: two columns of counts, and `ties`;
      or, as trainers keep pairs, `chosen` and `rejected`, texts or lists of messages. Responses of the same text are
      one response.
    - `weight`: a column, not negative; "weight" is used if there is one. Repeated rows are repeated votes.
    - `by`: "response", or "model": the two columns name models, which stand for responses, and all prompts are pooled.
    - `group`: K. `None` takes whole prompts whose tournament is complete, which must then all have one size.
      With K, groups of K responses whose pairs were all seen: `subsets="disjoint"`, greedily along a
      random order (of `key`, a JAX random key or a number to make one from), or `"all"`, every one (overlapping; at
      most `limit` subsets are tried).
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
    if by not in ("response", "model"):
        raise DataError(f"by is {by!r}; say 'response', or 'model' for models that stand for responses")
    given = Columns(prompt, first, second, score, weight, winner, wins, ties, chosen, rejected)
    read = comparisons_in(read_table(path), given, name_of(path), pooled=by == "model")
    rows = _ranked(read)
    seen = tournaments(
        rows.fate == _USED,
        rows.prompts.codes,
        rows.first,
        rows.second,
        rows.scores,
        rows.weights,
        both_orders=both_orders,
        prior=prior,
    )
    which, places = _groups(name_of(path), seen, group, subsets, host_generator(key), limit)
    if which.size == 0:
        raise DataError(_nothing(name_of(path), seen, group, rows.fate, both_orders))
    K = places.shape[1]
    a, b = pairs(K)
    upper = seen.entries(which, places[:, a], places[:, b])
    lower = seen.entries(which, places[:, b], places[:, a])
    fate = _fates(rows.fate, seen, which, np.concatenate([upper, lower]), both_orders)
    names, prompt_names, notes = _names(rows, K)
    kept = "complete tournaments" if group is None else f"{subsets} complete groups of {group}, seed {key_words(key)}"
    orders = ", both orders averaged" if both_orders else ""
    comparisons = np.zeros((which.size, K, K))
    comparisons[:, a, b] = comparisons[:, b, a] = seen.counts[upper]
    return PreferenceSet(
        P=from_rounded(seen.P[upper], K),
        prompts=prompt_names[seen.prompts[which]],
        responses=names[seen.members[seen.first[which][:, None] + places]],
        report=_report(fate, seen, which, group, len(rows.prompts.labels), read.notes + notes),
        source=f"pairs {pathlib.Path(name_of(path)).name}, {kept}{orders}" + (f", prior {prior:g}" if prior else ""),
        counts=comparisons,
    )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The columns of a table of comparisons: `first` and `second` are places in `responses`, which increase."""

    prompts: Ids
    responses: list
    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    @property
    def fate(self) -> np.ndarray:
        """What becomes of each row before any grouping."""
        fate = np.full(self.scores.size, _USED, np.int8)
        fate[self.first == self.second] = _ITSELF
        fate[self.weights == 0] = _WEIGHTLESS
        fate[np.isnan(self.scores) | np.isnan(self.weights)] = _NO_SCORE
        fate[(self.first < 0) | (self.second < 0)] = _NO_RESPONSE
        fate[self.prompts.codes < 0] = _NO_PROMPT
        return fate


def _names(rows: _Rows, K: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Ids of the responses and of the prompts that can be stored, and what is to be said of them."""
    names, shortened = label_array(rows.responses)
    prompts, prompts_shortened = label_array(rows.prompts.labels)
    notes = ("prompts are long texts: replaced by running numbers",) * prompts_shortened
    notes += ("responses are long texts: replaced by running numbers",) * shortened
    notes += ("two responses a prompt: they hold no circle, so that nothing here can turn",) * (K == 2)
    return names, prompts, notes


def _ranked(comparisons: Comparisons) -> _Rows:
    order = sorted(range(len(comparisons.labels)), key=comparisons.labels.__getitem__)
    rank = np.empty(len(order) + 1, int)
    rank[order], rank[-1] = np.arange(len(order)), -1  # code -1, a missing id, stays -1
    responses = [comparisons.labels[place] for place in order]
    first, second = rank[comparisons.first], rank[comparisons.second]
    return _Rows(comparisons.prompts, responses, first, second, comparisons.scores, comparisons.weights)


def _fates(
    before: np.ndarray, seen: Tournaments, which: np.ndarray, entries: np.ndarray, both_orders: bool
) -> np.ndarray:
    """What becomes of each row in the end, `entries` being those of `found.P` that matrices of `which` are made of."""
    fate = before.copy()
    needed = np.zeros(seen.P.size, bool)
    needed[entries] = True
    fate[seen.rows] = np.where(np.isin(seen.owner, which), _NO_GROUP, _INCOMPLETE)
    if both_orders:
        fate[seen.rows[~seen.seen[seen.entry]]] = _ONE_ORDER
    fate[seen.rows[needed[seen.entry]]] = _USED
    return fate


def _report(
    fate: np.ndarray, seen: Tournaments, which: np.ndarray, group: int | None, prompts: int, notes: tuple[str, ...]
) -> LoadReport:
    """The account of rows with a `fate` and of `prompts`, of which those in `which` gave matrices."""
    what = "an incomplete tournament" if group is None else f"no complete group of {group}"
    made = len(np.unique(which))
    return LoadReport(
        rows_read=fate.size,
        rows_used=int((fate == _USED).sum()),
        rows_dropped=_tally(fate, group, what),
        prompts_read=prompts,
        prompts_used=made,
        prompts_dropped=counted(
            {"without a usable row": prompts - len(seen), f"with {what}": len(seen) - made},
        ),
        matrices_made=which.size,
        notes=notes,
    )


def _tally(fate: np.ndarray, group: int | None, what: str) -> dict[str, int]:
    """How many rows were dropped for which reason."""
    words = {
        _ITSELF: "comparing a response with itself",
        _WEIGHTLESS: "of weight 0",
        _NO_SCORE: "without a score or weight",
        _NO_RESPONSE: "without a response id",
        _NO_PROMPT: "without a prompt",
        _NO_GROUP: f"in no group of {group}",
        _INCOMPLETE: f"of prompts with {what}",
        _ONE_ORDER: "in pairs seen in one order only",
    }
    numbers = np.bincount(fate, minlength=len(words) + 1).tolist()
    return counted({words[code]: numbers[code] for code in sorted(words, key=words.__getitem__)})


def _groups(
    path: object,
    seen: Tournaments,
    group: int | None,
    subsets: str,
    rng: np.random.Generator,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Complete groups: the prompt of each, (groups,), and the places of its members, (groups, K); possibly none."""
    complete = seen.complete
    if group is None:
        sizes, counts = np.unique(seen.sizes[complete], return_counts=True)
        if len(sizes) > 1:
            seen_sizes = ", ".join(f"{c:,} of {int(s)}" for s, c in zip(sizes, counts, strict=True))
            raise DataError(
                f"{path}: complete tournaments have several sizes ({seen_sizes} responses), but one set has "
                f"one K; choose it by `group`, for example group {int(sizes.min())}"
            )
        which = np.flatnonzero(complete)
        return which, np.tile(np.arange(int(sizes.max(initial=0))), (which.size, 1))
    # A prompt of K responses has one group or none. Only among more is there something to choose.
    whole = np.flatnonzero(complete & (seen.sizes == group))
    groups = [np.tile(np.arange(group), (whole.size, 1))]
    which = [whole]
    larger = seen.sizes > group
    if subsets == "all":
        check_number(seen.sizes, group, limit, path)
        a, b = pairs(group)
        for prompt in np.flatnonzero(larger).tolist():
            places = all_subsets(int(seen.sizes[prompt]), group)
            groups.append(places[seen.seen_in(prompt)[places[:, a], places[:, b]].all(axis=1)])
            which.append(np.full(len(groups[-1]), prompt))
    elif larger.any():
        for prompt, size in enumerate(seen.sizes.tolist()):
            if size <= group:
                rng.permutation(size)  # so that what a key chooses of one prompt depends on no other's gaps
            else:
                groups.append(disjoint_complete_groups(rng, seen.seen_in(prompt), group))
                which.append(np.full(len(groups[-1]), prompt))
    owners = np.concatenate(which)
    order = np.argsort(owners, kind="stable")
    return owners[order], np.concatenate(groups)[order]


def _nothing(path: object, seen: Tournaments, group: int | None, fate: np.ndarray, both_orders: bool) -> str:
    """Why no matrix could be made, in one line."""
    if not len(seen):
        reasons = _tally(fate, group, "")
        return f"{path}: no usable row: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    most = int(seen.sizes.max())
    if group is not None and most < group:
        return f"{path}: no prompt has {group} responses (the most is {most}); use groups of {most} or fewer"
    cure = "compare the missing pairs" if group is not None and group <= 2 else "use smaller groups"
    cure += ", or do not ask for both orders" if both_orders else ""
    what = "tournament" if group is None else f"group of {group} responses"
    return f"{path}: no prompt has a complete {what}, with every pair compared; {cure}"
