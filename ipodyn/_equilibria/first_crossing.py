"""Where a function of t in [0, 1] first rises to 0: a scan, closer looks at its maxima, then a bracket.

Many cases side by side, batch axes behind. Each step evaluates the function once for every case, which is all that
costs; a case goes through the three parts at its own pace, and each part has a state of its own.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp

from .._loops.loop import where
from .._numerics.types import BoolBlock, IntBlock, ScalarBlock

NUM_POINTS = 48  # of the scan
CLOSE = 0.05  # a maximum on the scan is looked into if its parabola rises above minus this
HUMP_STEPS = 24
BRACKET_STEPS = 60
ILLINOIS_STEPS = 30  # afterwards, as at a jump, each step halves the bracket
GOLDEN = (3 - 5**0.5) / 2

# From t and what the last evaluation handed on: the height, what to hand on, and whether there is a height at all.
Height: TypeAlias = Callable[[ScalarBlock, Any], tuple[ScalarBlock, Any, BoolBlock]]


class Scan(eqx.Module):
    """Even steps from 0 to 1: the number of the next point, and the last two points with their heights."""

    number: IntBlock
    last: ScalarBlock
    last_height: ScalarBlock
    before: ScalarBlock
    before_height: ScalarBlock

    def trial(self, num_points: int) -> ScalarBlock:
        return jnp.minimum(self.number, num_points - 1).astype(self.last.dtype) / (num_points - 1)

    def after(self, t: ScalarBlock, height: ScalarBlock) -> "Scan":
        return Scan(self.number + 1, t, height, self.last, self.last_height)

    def peaks(self, height: ScalarBlock) -> BoolBlock:
        """Whether a next point of this height makes the last one a maximum, and the parabola comes close to 0."""
        rise, fall = self.last_height - self.before_height, self.last_height - height
        tiny = jnp.finfo(height.dtype).tiny
        top = self.last_height + (rise - fall) ** 2 / (8 * jnp.maximum(rise + fall, tiny))
        return (self.number > 1) & (rise >= 0) & (fall >= 0) & (rise + fall > 0) & (top >= -CLOSE)


class Hump(eqx.Module):
    """Golden section: `left < best < right` enclose a maximum."""

    left: ScalarBlock
    left_height: ScalarBlock
    best: ScalarBlock
    best_height: ScalarBlock
    right: ScalarBlock
    tries: IntBlock

    @classmethod
    def around(cls, scan: Scan, right: ScalarBlock) -> "Hump":
        tries = jnp.zeros_like(scan.number)
        return cls(scan.before, scan.before_height, scan.last, scan.last_height, right, tries)

    def trial(self) -> ScalarBlock:
        """A point in the larger part."""
        on, back = self.right - self.best, self.best - self.left
        return jnp.where(on > back, self.best + GOLDEN * on, self.best - GOLDEN * back)

    def after(self, t: ScalarBlock, height: ScalarBlock) -> "Hump":
        """The trial becomes the best point, or a new end."""
        better, beyond = height > self.best_height, t > self.best
        best, best_height = where(better, (t, height), (self.best, self.best_height))
        end = where(better, (self.best, self.best_height), (t, height))
        left, left_height = where(better == beyond, end, (self.left, self.left_height))
        right = jnp.where(better == beyond, self.right, end[0])
        return Hump(left, left_height, best, best_height, right, self.tries + 1)

    def below(self, t: ScalarBlock) -> tuple[ScalarBlock, ScalarBlock]:
        """The nearest point before t, and its height."""
        return where(t > self.best, (self.best, self.best_height), (self.left, self.left_height))


class Bracket(eqx.Module):
    """False position with halved weights (Illinois): the height is below 0 at `low`, not below it at `high`."""

    low: ScalarBlock
    low_height: ScalarBlock
    high: ScalarBlock
    high_height: ScalarBlock
    side: IntBlock  # on which the last trial lay: 1 above, -1 below, 0 none yet
    tries: IntBlock

    @classmethod
    def between(cls, low: tuple[ScalarBlock, ScalarBlock], high: tuple[ScalarBlock, ScalarBlock]) -> "Bracket":
        zero = jnp.zeros(high[0].shape, jnp.int32)
        return cls(*low, *high, zero, zero)

    def trial(self) -> ScalarBlock:
        apart = self.low_height - self.high_height
        fraction = jnp.clip(self.low_height / jnp.where(apart == 0, -1.0, apart), 0.0, 1.0)
        # Every third step halves the bracket, whatever the function does.
        halve = (self.tries % 3 == 2) | (self.tries >= ILLINOIS_STEPS) | ~jnp.isfinite(apart)
        return self.low + jnp.where(halve, 0.5, fraction) * (self.high - self.low)

    def after(self, t: ScalarBlock, height: ScalarBlock) -> "Bracket":
        above = height >= 0
        low_height = jnp.where(above & (self.side > 0), self.low_height / 2, self.low_height)
        high_height = jnp.where(~above & (self.side < 0), self.high_height / 2, self.high_height)
        low, low_height = where(above, (self.low, low_height), (t, height))
        high, high_height = where(above, (t, height), (self.high, high_height))
        return Bracket(low, low_height, high, high_height, jnp.where(above, 1, -1), self.tries + 1)

    def closed(self, height: ScalarBlock) -> BoolBlock:
        """Whether the last trial, of this height, is the crossing as far as the dtype can tell."""
        eps = float(jnp.finfo(height.dtype).eps)
        exact = (jnp.abs(height) <= 4 * eps) | (self.high - self.low <= 2 * eps)
        return exact | (self.tries > BRACKET_STEPS)


SCAN, HUMP, BRACKET, OVER = range(4)


class _Search(eqx.Module):
    """Which part each case is in, the states of all three, and the last evaluation; `t` comes next."""

    part: IntBlock
    t: ScalarBlock
    scan: Scan
    hump: Hump
    bracket: Bracket
    height: ScalarBlock
    carry: Any
    exists: BoolBlock
    starts_above: BoolBlock


class Crossing(eqx.Module):
    """What `first_crossing` found.

    - `t` (): the crossing, if `crosses`; else the last value that was looked at. - `height`, `carry`: of the function
      there. - `below` (): the last value below the crossing that was looked at; 1 where nothing crosses.
    - `crosses` (): whether the height passes 0 from below. - `starts_above` (): whether it is not below 0 at t = 0.
    - `exists` (): False where the function had no height and the search was given up.
    """

    t: ScalarBlock
    height: ScalarBlock
    carry: Any
    below: ScalarBlock
    crosses: BoolBlock
    starts_above: BoolBlock
    exists: BoolBlock


def _begin(zero: ScalarBlock, carry: Any) -> _Search:
    count, no = jnp.zeros(zero.shape, jnp.int32), jnp.zeros(zero.shape, bool)
    scan = Scan(count, zero, zero, zero, zero)
    bracket = Bracket.between((zero, zero), (zero, zero))
    return _Search(count, zero, scan, Hump.around(scan, zero), bracket, zero, carry, ~no, no)


def _after(search: _Search, height: ScalarBlock, carry: Any, exists: BoolBlock, num_points: int) -> _Search:
    """The search, knowing the height at `search.t`."""
    t, scan, hump, above = search.t, search.scan, search.hump, height >= 0
    scans, humps = search.part == SCAN, search.part == HUMP
    starts_above = scans & above & (scan.number == 0)
    enters = above & (humps | (scans & (scan.number > 0)))
    looks = scans & ~above & scan.peaks(height)
    returns = humps & ~above & (hump.tries >= HUMP_STEPS)

    low = where(humps, hump.below(t), (scan.last, scan.last_height))
    bracket = where(enters, Bracket.between(low, (t, height)), search.bracket.after(t, height))
    hump = where(looks, Hump.around(scan, t), hump.after(t, height))
    scan = where(scans, scan.after(t, height), scan)
    part = jnp.where(enters, BRACKET, jnp.where(looks, HUMP, jnp.where(returns, SCAN, search.part)))
    ends = (search.part == BRACKET) & bracket.closed(height)
    exhausted = (part == SCAN) & (scan.number >= num_points)
    # Without a height, what follows would be worth nothing.
    over = ends | exhausted | starts_above | ~exists
    following = jnp.where(part == SCAN, scan.trial(num_points), jnp.where(part == HUMP, hump.trial(), bracket.trial()))
    part, following = jnp.where(over, OVER, part), jnp.where(over, t, following)
    return _Search(part, following, scan, hump, bracket, height, carry, exists, starts_above)


def first_crossing(function: Height, carry: Any, zero: ScalarBlock, *, num_points: int = NUM_POINTS) -> Crossing:
    """The smallest t in [0, 1] at which a function reaches 0 from below.

    - `function(t, carry)`: its height at t, what is handed to the next evaluation (a warm start), and whether it has a
      height. It may jump, and may be inf, but not NaN. - `carry`: for the first evaluation. - `zero`: 0 in the shape
      and dtype of t.

    The scan takes `num_points` values; a maximum between them that comes close to 0 is looked into, and the first sign
    change closed in on. Two crossings closer together than that resolves, with no maximum that it notices, are missed.
    """

    def step(search: _Search) -> _Search:
        # Cases that failed are over, but their lanes run on: at the start of the range, which costs the others least.
        handed = where(search.exists, search.carry, carry)
        height, after, exists = function(jnp.where(search.exists, search.t, 0.0), handed)
        following = _after(search, height, after, exists, num_points)
        return where(search.part == OVER, search, following)

    search = jax.lax.while_loop(lambda search: jnp.any(search.part != OVER), step, _begin(zero, carry))
    crosses = search.bracket.high > 0
    below = jnp.where(crosses, search.bracket.low, jnp.where(search.starts_above, 0.0, 1.0))
    return Crossing(search.t, search.height, search.carry, below, crosses, search.starts_above, search.exists)
