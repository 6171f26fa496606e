"""Groups of K responses to one prompt: a seeded partition, or every subset."""

import functools
import itertools
import math

import numpy as np

from ._report import DataError

SUBSETS = ("disjoint", "all")


def check_grouping(group: int | None, subsets: str, limit: int) -> None:
    """Raise one line if the grouping arguments make no sense."""
    if group is not None and group < 2:
        raise DataError(f"group is {group}; a preference matrix needs at least 2 responses")
    if subsets not in SUBSETS:
        raise DataError(f"unknown subsets {subsets!r}: choose 'disjoint' or 'all'")
    if limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")


def check_number(sizes: np.ndarray, group: int, limit: int, path: object) -> None:
    """Raise one line if all subsets of `group` out of prompts of these `sizes` are more than `limit`."""
    number = sum(math.comb(int(size), group) for size in sizes)
    if number > limit:
        raise DataError(
            f"{path}: all subsets of {group} responses are {number:,} matrices, more than the limit of "
            f"{limit:,}; use disjoint groups, or raise `limit`"
        )


@functools.lru_cache(maxsize=16)
def all_subsets(size: int, group: int) -> np.ndarray:
    """(size choose group, group): every subset of range(size), each in increasing order."""
    flat = itertools.chain.from_iterable(itertools.combinations(range(size), group))
    subsets = np.fromiter(flat, int).reshape(-1, group)
    subsets.setflags(write=False)  # the cache hands out the same array again
    return subsets


def groups_of_prompts(
    rng: np.random.Generator, sizes: np.ndarray, group: int, subsets: str
) -> tuple[np.ndarray, np.ndarray]:
    """Groups of the responses of prompts that have `sizes` of them: whose, (groups,), and their places, (groups, K).

    Prompts stand in their order, and places of a group increase. "disjoint": a random partition of each prompt's
    responses, less its remainder; "all": every subset.
    """
    owners = np.flatnonzero(sizes >= group)
    numbers = sizes[owners]
    if subsets == "all":
        chosen = {size: all_subsets(size, group) for size in np.unique(numbers).tolist()}
        places = [chosen[size] for size in numbers.tolist()]
        counts = [len(part) for part in places]
    else:
        orders = np.concatenate([np.zeros(0, int), *(rng.permutation(size) for size in numbers.tolist())])
        counts = numbers // group
        place = np.arange(orders.size) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        filling = place < np.repeat(counts * group, numbers)
        places = [np.sort(orders[filling].reshape(-1, group), axis=1)]
    return np.repeat(owners, counts), np.concatenate([np.zeros((0, group), int), *places])


def disjoint_complete_groups(rng: np.random.Generator, seen: np.ndarray, group: int) -> np.ndarray:
    """Disjoint groups in which every pair was seen, taken greedily along a random order of the responses.

    `seen`: (size, size) bool, symmetric. Where all pairs were seen this is the partition of `groups_of_prompts`.
    """
    remaining = [int(i) for i in rng.permutation(len(seen))]
    groups: list[list[int]] = []
    while len(remaining) >= group:
        start = remaining.pop(0)
        members = _extend([start], [i for i in remaining if seen[start, i]], seen, group)
        if members is not None:
            remaining = [i for i in remaining if i not in members]
            groups.append(sorted(members))
    return np.asarray(groups, int).reshape(-1, group)


def _extend(members: list[int], candidates: list[int], seen: np.ndarray, group: int) -> list[int] | None:
    """The first complete group with `members` (every candidate is seen with all of them), or None."""
    if len(members) == group:
        return members
    for place, i in enumerate(candidates):
        if len(members) + len(candidates) - place < group:
            return None
        later = [j for j in candidates[place + 1 :] if seen[i, j]]
        extended = _extend([*members, i], later, seen, group)
        if extended is not None:
            return extended
    return None
