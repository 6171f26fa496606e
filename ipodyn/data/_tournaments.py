"""The comparisons of many prompts, each among its own responses: sums over rows, without a loop over prompts."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tournaments:
    """T prompts with a usable row. What each has, of different sizes n, lies behind that of the one before.

    - `prompts`, `sizes` (T,): codes, increasing, and numbers of responses n.
    - `members`: response ranks, increasing for each prompt; `first` (T,) is where those of a prompt begin.
    - `P`, `seen`, `counts`: n * n entries for each prompt, row by row: Pr(i beats j), NaN where the pair was not (or
      not fully) seen; whether it was; comparisons of each pair, or their weight. `cell` (T,): where each begins.
    - `rows`, `owner`, `entry`: of each usable row of the table its place there, the prompt (0 .. T - 1) and the entry
      of `P` with the row's first response before its second.
    """

    prompts: np.ndarray
    sizes: np.ndarray
    members: np.ndarray
    first: np.ndarray
    P: np.ndarray
    seen: np.ndarray
    counts: np.ndarray
    cell: np.ndarray
    rows: np.ndarray
    owner: np.ndarray
    entry: np.ndarray

    def __len__(self) -> int:
        return self.sizes.size

    @property
    def complete(self) -> np.ndarray:
        """(T,) where every pair was seen."""
        return np.logical_and.reduceat(self.seen, self.cell) if len(self) else np.zeros(0, bool)

    def seen_in(self, prompt: int) -> np.ndarray:
        """(n, n) which pairs of a prompt were seen."""
        n, begin = int(self.sizes[prompt]), int(self.cell[prompt])
        return self.seen[begin : begin + n * n].reshape(n, n)

    def entries(self, which: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Where the pairs of places (a, b), shape (groups, pairs), of the prompts `which` (groups,) stand in `P`."""
        return self.cell[which][:, None] + a * self.sizes[which][:, None] + b


def tournaments(
    usable: np.ndarray,
    prompts: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    *,
    both_orders: bool,
    prior: float | int,
) -> Tournaments:
    """The tournaments of all prompts that have a usable row, by the columns of the table."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(prompts[rows], kind="stable")]
    codes, owner = np.unique(prompts[rows], return_inverse=True)
    # One number for a prompt and a response in it, so that sorting them sorts both.
    span = 1 + max(int(first.max(initial=0)), int(second.max(initial=0)))
    pairs = np.concatenate([owner * span + first[rows], owner * span + second[rows]])
    keys, places = np.unique(pairs, return_inverse=True)
    del pairs
    sizes = np.bincount(keys // span, minlength=codes.size)
    begins, cells = _begins(sizes), _begins(sizes**2)
    x, y = (part - begins[owner] for part in np.split(places, 2))
    entry = cells[owner] + x * sizes[owner] + y

    number = int((sizes**2).sum())
    wins = np.bincount(entry, weights[rows] * scores[rows], number)  # of i, where i came first
    weight = np.bincount(entry, weights[rows], number)
    across = _transposed(sizes, cells)
    total = weight + weight[across]
    with np.errstate(invalid="ignore", divide="ignore"):
        if both_orders:
            ahead = wins / weight
            mean = (ahead + 1 - ahead[across]) / 2
        else:
            mean = (wins + weight[across] - wins[across]) / total
        P = (mean * total + prior / 2) / (total + prior)
    P[across == np.arange(number)] = 0.5
    return Tournaments(codes, sizes, keys % span, begins, P, np.isfinite(P), total, cells, rows, owner, entry)


def _begins(sizes: np.ndarray) -> np.ndarray:
    """Where each begins, if they lie one behind the other."""
    return np.cumsum(sizes) - sizes


def _transposed(sizes: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Of every entry of the (n, n) tables, the place of the transposed one."""
    n, begin = np.repeat(sizes, sizes**2), np.repeat(cells, sizes**2)
    row, column = np.divmod(np.arange(n.size) - begin, n)
    return begin + column * n + row
