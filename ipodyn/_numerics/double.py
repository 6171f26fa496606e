"""Arithmetic with twice the digits of the dtype: a number is the unevaluated sum `high + low` of two floats.

Every operation is exact up to a few eps^2, in whatever precision JAX runs, and fuses like any other. Sources: Knuth,
The Art of Computer Programming 2, 4.2.2 (sum); Dekker, Numer. Math. 18 (1971) (product). Products are split by masking
bits, so that it does not matter whether a compiler contracts a product and a sum into one operation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

INTEGERS = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}  # by the bytes of the float that they share their bits with


class Double(NamedTuple):
    """`high + low`, with |low| at most half a unit in the last place of `high`."""

    high: Float[Array, "..."]
    low: Float[Array, "..."]

    def __add__(self, other: "Double") -> "Double":  # type: ignore[override]
        total = two_sum(self.high, other.high)
        return two_sum(total.high, total.low + (self.low + other.low))

    def __mul__(self, other: "Double") -> "Double":  # type: ignore[override]
        product = two_product(self.high, other.high)
        return two_sum(product.high, product.low + (self.high * other.low + self.low * other.high))

    def reciprocal(self) -> "Double":
        guess = 1 / self.high
        product = self * Double(guess, jnp.zeros_like(guess))
        # One Newton step, guess * (2 - x * guess): the remainder 1 - x * guess is small, and exact.
        remainder = (1 - product.high) - product.low
        return two_sum(guess, guess * remainder)


def two_sum(a: Float[Array, "..."], b: Float[Array, "..."]) -> Double:
    """`a + b` exactly."""
    total = a + b
    part = total - a
    return Double(total, (a - (total - part)) + (b - part))


def _halves(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The upper half of the digits, and the rest."""
    integer = INTEGERS[x.dtype.itemsize]
    dropped = (jnp.finfo(x.dtype).nmant + 2) // 2
    bits = jax.lax.bitcast_convert_type(x, integer)
    high = jax.lax.bitcast_convert_type(bits & jnp.asarray(-(1 << dropped), integer), x.dtype)
    return high, x - high


def two_product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Double:
    """`a * b` exactly, but for what underflows."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    low = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return Double(product, low)
