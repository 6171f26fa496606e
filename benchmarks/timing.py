"""Times of programs side by side: interleaved, so that what else the machine does hits both alike."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a few measurements."""

    median: float
    smallest: float
    largest: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))

    def scaled(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.smallest * factor, self.largest * factor, self.repeats)

    def inverse(self) -> "Spread":
        return Spread(1 / self.median, 1 / self.largest, 1 / self.smallest, self.repeats)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two programs in turns: `ratio` is (work of a / time of a) / (work of b / time of b), pair by pair."""

    ratio: Spread
    rate_a: Spread
    rate_b: Spread
    first_a: float  # seconds that the first call took above the median: compilation
    first_b: float
    output_a: Any
    output_b: Any


def seconds(program: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    output = program()
    return time.perf_counter() - start, output


def interleaved(
    a: Callable[[], Any], b: Callable[[], Any], repeats: int, *, work_a: float = 1.0, work_b: float = 1.0
) -> Pair:
    """Time a, b, a, b, ... `repeats` times each, after one call of each that compiles."""
    first_a, output_a = seconds(a)
    first_b, output_b = seconds(b)
    times_a, times_b = [], []
    for _ in range(repeats):
        times_a.append(seconds(a)[0])
        times_b.append(seconds(b)[0])
    return Pair(
        Spread.of([(work_a / s) / (work_b / t) for s, t in zip(times_a, times_b, strict=True)]),
        Spread.of([work_a / s for s in times_a]),
        Spread.of([work_b / t for t in times_b]),
        max(0.0, first_a - statistics.median(times_a)),
        max(0.0, first_b - statistics.median(times_b)),
        output_a,
        output_b,
    )
