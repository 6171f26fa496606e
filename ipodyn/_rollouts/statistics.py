"""Statistics in a stream: moments, windows, and how rounds are cut into chunks."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._numerics.types import PolicyBlock, ScalarBlock

CHUNK = 64  # rounds whose sums are taken about one policy, before they are merged in


class Moments(eqx.Module):
    """Mean and sum of squared deviations of `count` policies; merged exactly, whatever the order (Chan et al.)."""

    count: Array
    mean: PolicyBlock
    squares: ScalarBlock

    @classmethod
    def empty(cls, like: PolicyBlock) -> "Moments":
        return cls(jnp.zeros((), like.dtype), jnp.zeros_like(like), jnp.zeros_like(like[0]))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        weight = other.count / jnp.maximum(count, 1)
        apart = other.mean - self.mean
        mean = self.mean + weight * apart
        squares = self.squares + other.squares + self.count * weight * jnp.sum(apart**2, axis=0)
        return Moments(count, mean, squares)

    def variance(self) -> ScalarBlock:
        return self.squares / jnp.maximum(self.count, 1)


@dataclasses.dataclass(frozen=True)
class Chunking:
    """How `num_steps` rounds are cut: one odd piece first, then equal chunks; a window is a whole number of chunks."""

    odd: int
    chunk: int
    num_chunks: int
    chunks_per_window: int

    @classmethod
    def of(cls, num_steps: int, window: int | None) -> "Chunking":
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"`num_steps` is {num_steps!r}; it must be a whole number of rounds, at least 1.")
        if window is None:
            window = max(1, num_steps // 10)
        if not 1 <= window <= num_steps:
            raise ValueError(f"`window` is {window}; it must be between 1 and `num_steps` = {num_steps} rounds.")
        per_window = -(-window // CHUNK)
        chunk = window // per_window  # a window is rounded down to whole chunks
        return cls(num_steps % chunk, chunk, num_steps // chunk, per_window)

    @property
    def window(self) -> int:
        return self.chunk * self.chunks_per_window

    def opens(self) -> tuple[Bool[Array, " chunks"], Bool[Array, " chunks"]]:
        """Which chunks open a window, and which of them do so in the first half of the run.

        Windows are counted from the end, so that the last one is whole.
        """
        chunks = jnp.arange(self.num_chunks)
        opens = (chunks - self.num_chunks) % self.chunks_per_window == 0
        return opens, opens & (2 * chunks <= self.num_chunks)


class RunningStatistics(eqx.Module):
    """What is known after some rounds: the state and moments.

    Those of all rounds, of the running and the previous window, and of the last window of the first half of the run.
    """

    state: Any
    moments: Moments
    window: Moments
    previous: Moments
    halfway: Moments

    @classmethod
    def begin(cls, state: Any, policy: PolicyBlock) -> "RunningStatistics":
        empty = Moments.empty(policy)
        return cls(state, empty, empty, empty, empty)

    def extend(self, state: Any, chunk: Moments, opens: tuple[Array, Array]) -> "RunningStatistics":
        """Add a chunk; `opens`: whether it opens a window, so the running one becomes the previous, and that early."""
        new_window, early = opens
        empty = Moments.empty(chunk.mean)

        def choose(condition: Array, a: Any, b: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)

        previous = choose(new_window, self.window, self.previous)
        halfway = choose(early, self.window, self.halfway)
        window = choose(new_window, empty, self.window).merge(chunk)
        return RunningStatistics(state, self.moments.merge(chunk), window, previous, halfway)


def decay_of(progress: RunningStatistics) -> ScalarBlock:
    """The fall of the log of the variance per round, from the window halfway (none: the previous) to the last.

    Over half of the run what dies out shows, where windows beside each other differ by what part of a turn they hold.
    """
    far = progress.halfway.count > 0
    before = jnp.where(far, progress.halfway.variance(), progress.previous.variance())
    count = progress.window.count
    # Halfway is the last window that ended in the first half; what lies between are whole windows.
    apart = jnp.where(far, jnp.ceil(progress.moments.count / (2 * count)) * count, count)
    late = progress.window.variance()
    both = (late > 0) & (before > 0)
    fall = jnp.log(jnp.where(both, before, 1)) - jnp.log(jnp.where(both, late, 1))
    return jnp.where(both, fall, 0) / jnp.maximum(apart, 1)
