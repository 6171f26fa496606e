"""What tables and pictures need of a stability map, gathered from a few matrices at a time.

Memory is that of some numbers for each (alpha, beta), however many matrices there are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .evidence.evidence import Code, Variable
from .evidence.registry import described
from .shards import DIMENSIONS

if TYPE_CHECKING:
    import xarray

_POINTS_PER_BLOCK = 1 << 18
_SAMPLED_POINTS = 1 << 22  # of each variable whose median or histogram is drawn
_LEAST_SAMPLE = 101  # matrices

Fields = Mapping[str, np.ndarray]


class MapStatistics:
    """Counts, moments and extremes over the matrices of a map, for each (alpha, beta).

    `add` takes the next matrices; which of them come together changes the last digits, so they come by `blocks`.
    Medians are those of `sample_size` matrices, drawn with a fixed seed: all of them up to some millions of points.
    """

    def __init__(
        self,
        variables: Iterable[Variable],
        alpha: np.ndarray,
        beta: np.ndarray,
        num_matrices: int,
        *,
        attrs: Mapping[str, Any],
    ):
        self.variables = {variable.name: variable for variable in variables}
        self.alpha, self.beta = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)
        self.num_matrices, self.attrs = num_matrices, dict(attrs)
        shape, cells = (self.alpha.size, self.beta.size), self.alpha.size * self.beta.size
        coded = {name: len(variable.codes) for name, variable in self.variables.items() if variable.codes}
        self._counts = {name: [np.zeros(shape, np.int64) for _ in range(number)] for name, number in coded.items()}
        nothing = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
        averaged = [name for name, variable in self.variables.items() if variable.averaged]
        self._moments = dict.fromkeys(averaged, nothing)
        bounds = [name for name, variable in self.variables.items() if variable.boundary or variable.certifies]
        self._below_one = {name: np.zeros(shape, np.int64) for name in bounds}
        self._extremes = {name: (np.full(shape, np.nan), np.full(shape, np.nan)) for name in bounds}
        size = min(num_matrices, max(_LEAST_SAMPLE, _SAMPLED_POINTS // cells))
        every = size == num_matrices
        drawn = np.random.default_rng(0).choice(num_matrices, 0 if every else size, replace=False, shuffle=False)
        self._drawn = np.arange(num_matrices) if every else np.sort(drawn)
        self._sample: dict[str, list[np.ndarray]] = {name: [] for name in (averaged if cells == 1 else bounds)}
        self._seen = 0

    @classmethod
    def of(cls, dataset: "xarray.Dataset") -> "MapStatistics":
        """Those of a whole map."""
        cells = [str(name) for name, values in dataset.data_vars.items() if set(values.dims) == set(DIMENSIONS)]
        variables = [described(name, dataset[name].attrs) for name in cells]
        ordered = dataset.transpose(*DIMENSIONS, ...)
        statistics = cls(
            variables,
            np.asarray(dataset["alpha"]),
            np.asarray(dataset["beta"]),
            dataset.sizes["matrix"],
            attrs={str(name): value for name, value in dataset.attrs.items()},
        )
        for block in statistics.blocks([{name: np.asarray(ordered[name]) for name in statistics.variables}]):
            statistics.add(block)
        return statistics

    def blocks(self, pieces: Iterable[Fields]) -> Iterator[Fields]:
        """The same matrices, in blocks of a length that only the grid decides, however the pieces were cut."""
        length = max(1, _POINTS_PER_BLOCK // (self.alpha.size * self.beta.size))
        held: list[Fields] = []
        count = 0
        for piece in pieces:
            held.append(piece)
            count += _length(piece)
            if count >= length:
                joined = _joined(held)
                for first in range(0, count - count % length, length):
                    yield {name: values[first : first + length] for name, values in joined.items()}
                held = [{name: values[count - count % length :].copy() for name, values in joined.items()}]
                count %= length
        if count:
            yield _joined(held)

    def add(self, fields: Fields) -> None:
        """Take the next matrices: fields of shape (matrices, alphas, betas)."""
        count = _length(fields)
        for name, counts in self._counts.items():
            for code, number in enumerate(counts):
                number += np.count_nonzero(fields[name] == code, axis=0)
        for name, moments in self._moments.items():
            self._moments[name] = _merged(moments, _moments_of(np.asarray(fields[name], np.float64)))
        for name, below in self._below_one.items():
            values, (least, largest) = np.asarray(fields[name], np.float64), self._extremes[name]
            below += np.count_nonzero(values < 1, axis=0)
            self._extremes[name] = np.fmin(least, np.fmin.reduce(values)), np.fmax(largest, np.fmax.reduce(values))
        first, stop = np.searchsorted(self._drawn, (self._seen, self._seen + count))
        for name, sample in self._sample.items():
            sample.append(fields[name][self._drawn[first:stop] - self._seen])
        self._seen += count

    def counts(self, variable: str) -> dict[str, np.ndarray]:
        """Name -> (A, B) number of the matrices with that flag."""
        named = zip(self.variables[variable].codes, self._counts[variable], strict=True)
        return {code.name: number for code, number in named}

    def fractions(self, variable: str = "regime") -> dict[str, np.ndarray]:
        """Name -> (A, B) fraction of the matrices with that flag."""
        return {name: number / self.num_matrices for name, number in self.counts(variable).items()}

    def noted(self) -> Iterator[tuple[Code, np.ndarray]]:
        """Each code that is pointed out, and the (A, B) number of the matrices with it."""
        for name, counts in self._counts.items():
            for number, code in self.variables[name].noted():
                yield code, counts[number]

    def fraction_below_one(self, variable: str) -> np.ndarray:
        """(A, B) fraction of the matrices whose bound or radius is below 1."""
        return self._below_one[variable] / self.num_matrices

    def moments(self, variable: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over matrices, NaN where no matrix has a number."""
        count, mean, squares = self._moments[variable]
        there, most = count > 0, np.maximum(count, 1)
        return np.where(there, mean, np.nan), np.where(there, np.sqrt(squares / most), np.nan)

    def extremes(self, variable: str) -> tuple[np.ndarray, np.ndarray]:
        """(A, B) smallest and largest value, NaN where no matrix has a number."""
        return self._extremes[variable]

    @property
    def sample_size(self) -> int:
        return self._drawn.size

    def sample(self, variable: str) -> np.ndarray:
        """(sample_size, A, B) the values of the drawn matrices."""
        return np.concatenate(self._sample[variable])

    def median(self, variable: str) -> np.ndarray:
        """(A, B) median over the drawn matrices that have a number, NaN where none has."""
        values = np.sort(self.sample(variable), axis=0)  # NaN comes last
        count = np.count_nonzero(~np.isnan(values), axis=0)
        middle = np.maximum(count[None] - 1, 0)
        lower, upper = (np.take_along_axis(values, place, axis=0)[0] for place in (middle // 2, (middle + 1) // 2))
        return np.asarray((np.float64(1) * lower + upper) / 2)


def _length(fields: Fields) -> int:
    return len(next(iter(fields.values())))


def _joined(held: list[Fields]) -> Fields:
    return held[0] if len(held) == 1 else {name: np.concatenate([piece[name] for piece in held]) for name in held[0]}


def _moments_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean and sum of squared deviations over matrices, of those that are numbers."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    mean = np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1)
    return count, mean, (np.where(there, values - mean, 0) ** 2).sum(axis=0)


def _merged(
    one: tuple[np.ndarray, np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chan, Golub & LeVeque (1979), eq. (2.1): exact, and without the cancellation of a sum of squares."""
    count = one[0] + other[0]
    weight = other[0] / np.maximum(count, 1)
    apart = other[1] - one[1]
    return count, one[1] + apart * weight, one[2] + other[2] + apart**2 * one[0] * weight
