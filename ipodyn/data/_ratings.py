"""Ratings to preferences: the HelpSteer recipe, and the loader of rating tables."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from .._numerics.deprecation import renamed_keywords
from .._numerics.randomness import RandomKey, host_generator, key_words, random_key
from .._numerics.types import as_float
from .._preferences.pairs import from_upper, pairs
from ._groups import check_grouping, check_number, groups_of_prompts
from ._matrices import from_rounded
from ._report import DataError, LoadReport, counted
from ._set import PreferenceSet
from ._tables import Ids, ids, label_array, numbers, read_table, require_columns


def ratings_to_preferences(
    key: PRNGKeyArray,
    ratings: Float[ArrayLike, "*n K attributes"] | Int[ArrayLike, "*n K attributes"],
    *,
    scale: float | int = 1.0,
) -> Float[Array, "*n K K"]:
    r"""Preference matrices by the HelpSteer recipe: one attribute, drawn at random, decides each pair.

        P[i, j] = sigmoid((r[i, a] - r[j, a]) / scale),   a drawn uniformly, once for each pair {i, j}

    Different pairs may be decided by different attributes, so cycles can arise, which no single attribute
    (and no average of attributes) gives. `P + P.T == 1` holds exactly in floating point, and equal
    differences give equal entries. Pure, and works under `jit` and `vmap`.

    - `key`: a JAX random key; the same key gives the same matrices.
    - `ratings`: shape (n, K, attributes), or (K, attributes) for a single prompt; higher is better.
    - `scale`: > 0, in the unit of the ratings: the difference that makes odds of e to 1.

    Returns shape (n, K, K), or (K, K). A NaN rating gives NaN entries; the loaders drop such rows beforehand.

    Source: Chen, He, Jordan, Yao, arXiv 2602.12180, section on experiments, HelpSteer.

    >>> import jax, numpy as np
    >>> ratings = np.array([[4.0, 0.0], [2.0, 2.0], [0.0, 4.0]])  # three responses, two attributes at odds
    >>> P = ratings_to_preferences(jax.random.key(0), ratings)
    >>> [round(float(p), 3) for p in (P[0, 0], P[0, 1] + P[1, 0], abs(P[0, 1] - 0.5))]
    [0.5, 1.0, 0.381]
    """
    _check_scale(scale)
    return _recipe(key, as_float(ratings), scale)


@jax.jit
def _recipe(key: PRNGKeyArray, ratings: Array, scale: float | int | Array) -> Array:
    return from_upper(_decided(key, ratings, scale, jax.nn.sigmoid), ratings.shape[-2])


def _decided(key: PRNGKeyArray, ratings: Any, scale: Any, sigmoid: Callable[[Any], Any]) -> Any:
    """(*n, pairs): the chance of i against j by the attribute drawn for the pair, of a NumPy or a JAX array."""
    differences = _differences(ratings) / scale
    xp: Any = differences.__array_namespace__()
    chosen = xp.asarray(_draw_attributes(key, differences.shape[:-1], differences.shape[-1]))
    return _win_probability(xp.take_along_axis(differences, chosen[..., None], axis=-1)[..., 0], sigmoid)


def attribute_average(
    ratings: Float[ArrayLike, "*n K attributes"] | Int[ArrayLike, "*n K attributes"],
    *,
    scale: float | int = 1.0,
) -> Float[Array, "*n K K"]:
    r"""The expectation of `ratings_to_preferences` over its draws: the mean over attributes of the sigmoids.

        P[i, j] = mean over a of sigmoid((r[i, a] - r[j, a]) / scale)

    Deterministic and smooth in the ratings, but *not* the paper's recipe: averaging removes most cycles.

    - `ratings`: shape (n, K, attributes) or (K, attributes).   - `scale`: > 0, in the unit of the ratings.

    >>> P = attribute_average(np.array([[4.0, 0.0], [2.0, 2.0], [0.0, 4.0]]))
    >>> round(float(P[0, 1]), 3)
    0.5
    """
    _check_scale(scale)
    return _average(as_float(ratings), scale)


@jax.jit
def _average(ratings: Array, scale: float | int | Array) -> Array:
    upper = jnp.mean(_win_probability(_differences(ratings) / scale, jax.nn.sigmoid), axis=-1)
    # A mean of ones may round to just above 1.
    return from_upper(jnp.minimum(upper, 1), ratings.shape[-2])


def _differences(ratings: Any) -> Any:
    """(*n, pairs, attributes): rating differences of the pairs i < j, of a NumPy or a JAX array."""
    i, j = pairs(ratings.shape[-2])
    return ratings[..., i, :] - ratings[..., j, :]


def _check_scale(scale: float | int) -> None:
    if not scale > 0:
        raise ValueError(f"`scale` is {scale}; it must be positive")


def _draw_attributes(key: PRNGKeyArray, shape: tuple[int, ...], attributes: int) -> Array:
    # int32 whatever the precision, so that a key means the same draws with and without x64.
    return jax.random.randint(key, shape, 0, attributes, dtype=jnp.int32)


def _win_probability(difference: Any, sigmoid: Callable[[Any], Any]) -> Any:
    """sigmoid(d), as 1 - sigmoid(-d) for d < 0: so that sigmoid(d) + sigmoid(-d) is 1 to the last bit."""
    xp: Any = difference.__array_namespace__()
    return xp.where(difference >= 0, sigmoid(difference), 1 - sigmoid(-difference))


def _sigmoid_on_host(x: np.ndarray) -> np.ndarray:
    """Where x >= 0; nothing overflows elsewhere."""
    return 1 / (1 + np.exp(-np.abs(x)))


@renamed_keywords("0.3", seed="key")
def load_ratings(
    path: str | os.PathLike[str],
    *,
    prompt: str,
    attributes: Sequence[str],
    response: str | None = None,
    group: int = 4,
    subsets: str = "disjoint",
    scale: float | int = 1.0,
    key: RandomKey = 0,
    limit: int = 1_000_000,
) -> PreferenceSet:
    """Preference matrices from a table of ratings, one row a response, by the HelpSteer recipe.

    Responses to one prompt are put into groups of `group`, and `ratings_to_preferences` turns each group into
    a matrix. Rows without a prompt, a response id or a rating are dropped, and counted in the report.

    - `path`: a CSV, TSV, JSON-lines (each also .gz) or Parquet file.
    - `prompt`, `attributes`, `response`: column names. Without `response` every row is a response of its own,
      named by its row number (from 0); with it, a response that is repeated with equal ratings counts once.
    - `group`: K, at least 2.   - `scale`: see `ratings_to_preferences`.
    - `subsets`: `"disjoint"`, a random partition of each prompt's responses into groups (a remainder
      is left over); or `"all"`, every subset of K (overlapping), at most `limit` in total.
    - `key`: of the partition and of the draws of attributes; a JAX random key, or a number to make one from.

    Raises `DataError`, one line with the culprit and the cure.
    """
    names = [attributes] if isinstance(attributes, str) else list(attributes)
    check_grouping(group, subsets, limit)
    _check_scale(scale)
    _check_names(names, prompt, response)
    frame = read_table(path)
    require_columns(frame, [prompt, *([] if response is None else [response]), *names], path)
    ratings = np.stack([numbers(frame, name, path) for name in names], axis=1)
    prompts = ids(frame, [prompt], path)[0]
    responses = None if response is None else ids(frame, [response], path)[0]
    return ratings_to_set(
        path, prompts, responses, ratings, group=group, subsets=subsets, scale=scale, key=key, limit=limit
    )


def _check_names(names: list[str], prompt: str, response: str | None) -> None:
    if not names:
        raise DataError("no attributes named; give at least one column of ratings")
    columns = [prompt, *([] if response is None else [response]), *names]
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"column {twice!r} is named twice; name each column once")


def ratings_to_set(
    path: str | os.PathLike[str],
    prompts: Ids,
    responses: Ids | None,
    ratings: np.ndarray,
    *,
    group: int,
    subsets: str,
    scale: float | int,
    key: RandomKey,
    limit: int,
    source: str = "",
    synthetic: bool = False,
) -> PreferenceSet:
    """`load_ratings` from columns in memory: ratings have shape (rows, attributes), NaN where missing."""
    fate = _fates(path, prompts, responses, ratings)
    usable = np.flatnonzero(fate == "")
    order = usable[np.argsort(prompts.codes[usable], kind="stable")]  # rows of each prompt in the order of the file
    sizes = np.bincount(prompts.codes[usable], minlength=len(prompts.labels))
    if subsets == "all":
        check_number(sizes, group, limit, path)
    owners, places = groups_of_prompts(host_generator(key), sizes, group, subsets)
    if not owners.size:
        most = int(sizes.max(initial=0))
        cure = f"use groups of {most} or fewer" if most > 1 else "check the prompt column and the ratings"
        raise DataError(f"{path}: no prompt has {group} usable responses (the most is {most}); {cure}")
    groups = order[(np.cumsum(sizes) - sizes)[owners][:, None] + places]

    fate[order[(sizes < group)[prompts.codes[order]]]] = f"of prompts with fewer than {group} usable responses"
    used = np.zeros(len(ratings), bool)
    used[groups] = True
    fate[(fate == "") & ~used] = f"left over after groups of {group}"
    # The recipe of `ratings_to_preferences`, in float64 whatever JAX's precision.
    upper = _decided(random_key(key), ratings[groups], scale, _sigmoid_on_host)
    labels, shortened = label_array(prompts.labels)
    notes = ("prompts are long texts: replaced by running numbers",) * shortened
    return PreferenceSet(
        P=from_rounded(upper, group),
        prompts=labels[owners],
        responses=groups if responses is None else label_array(responses.labels)[0][responses.codes[groups]],
        report=_report(fate, used, sizes, group, len(groups), notes),
        source=source or f"ratings {pathlib.Path(path).name}, {subsets} groups of {group}, seed {key_words(key)}",
        synthetic=synthetic,
    )


def _fates(path: str | os.PathLike[str], prompts: Ids, responses: Ids | None, ratings: np.ndarray) -> np.ndarray:
    """Why each row is dropped before any grouping; "" where it is not."""
    fate = np.full(len(ratings), "", dtype=object)
    fate[~np.isfinite(ratings).all(axis=1)] = "without a finite rating in every attribute"
    if responses is not None:
        fate[responses.codes < 0] = "without a response id"
    fate[prompts.codes < 0] = "without a prompt"
    if responses is not None:
        _mark_repeats(path, fate, prompts, responses, ratings)
    return fate


def _report(
    fate: np.ndarray, used: np.ndarray, sizes: np.ndarray, group: int, matrices: int, notes: tuple[str, ...]
) -> LoadReport:
    """The account of rows with a `fate` and of prompts with `sizes` usable rows."""
    return LoadReport(
        rows_read=len(used),
        rows_used=int(used.sum()),
        rows_dropped=_tally(fate[~used]),
        prompts_read=len(sizes),
        prompts_used=int((sizes >= group).sum()),
        prompts_dropped=counted(
            {
                "without a usable row": int((sizes == 0).sum()),
                f"with fewer than {group} usable responses": int(((sizes > 0) & (sizes < group)).sum()),
            }
        ),
        matrices_made=matrices,
        notes=notes,
    )


def _mark_repeats(
    path: str | os.PathLike[str], fate: np.ndarray, prompts: Ids, responses: Ids, ratings: np.ndarray
) -> None:
    """Mark rows that repeat an earlier (prompt, response); raise if they rate it differently."""
    usable = np.flatnonzero(fate == "")
    pair = prompts.codes[usable].astype(np.int64) * len(responses.labels) + responses.codes[usable]
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    earlier = usable[first[inverse]]
    repeats = earlier != usable
    differ = repeats & (ratings[usable] != ratings[earlier]).any(axis=1)
    if differ.any():
        place = np.flatnonzero(differ)[0]
        raise DataError(
            f"{path}: rows {earlier[place] + 1} and {usable[place] + 1} rate the same response to the same "
            "prompt differently; average them first, or leave `response` out if they are different responses"
        )
    fate[usable[repeats]] = "repeating an earlier row"


def _tally(reasons: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    return counted(dict(zip(names.tolist(), counts.tolist(), strict=True)))
