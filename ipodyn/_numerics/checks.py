"""Value checks on the host: preferences, policies and parameters, each with the culprit and the cure."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from .types import ScalarLike

# What the checks accept: anything `np.asarray` takes, so that bad input meets a sentence, not a type error.
HostArray: TypeAlias = ArrayLike | Sequence[Any]

_EVERY_PAIR = "average the two orders, P = (P + 1 - P.T) / 2"


def _host_floats(values: HostArray, name: str) -> np.ndarray:
    """`values` as a NumPy array in its own floating dtype; integers and booleans become float64."""
    if isinstance(values, Tracer):
        raise TypeError(f"`{name}` is traced: its values are not known here. Check it outside jit, vmap and grad.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` is ragged: give rows of one length.") from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if array.dtype.kind in "bui":
        return array.astype(np.float64)
    raise ValueError(f"`{name}` holds {array.dtype} values: give real numbers.")


def _tolerance(array: np.ndarray, atol: float | None) -> float:
    """Eight roundings of the dtype, and no less than float32 or seven-digit text leaves behind."""
    return max(8 * float(jnp.finfo(array.dtype).eps), 1e-6) if atol is None else atol


def _first(bad: np.ndarray | np.bool_) -> tuple[tuple[int, ...], str]:
    """The index of the first bad entry and how many more there are, as words."""
    where = np.argwhere(bad)
    more = len(where) - 1
    return tuple(int(index) for index in where[0]), f" (and {more} more)" if more else ""


def _place(name: str, index: tuple[int, ...]) -> str:
    """`P` matrix 3, entry (0, 1): the last two indices name the pair."""
    if len(index) == 3:
        return f"`{name}` matrix {index[0]}, entry ({index[1]}, {index[2]})"
    return f"`{name}` entry {index[0] if len(index) == 1 else index}" if index else f"`{name}`"


def check_preference(P: HostArray, *, name: str = "P", atol: float | None = None) -> np.ndarray:
    r"""Checks that `P` holds preference probabilities: in [0, 1], diagonal 1/2 and \(P + P^\top = 1\).

    - `P`: shape (K, K), or (M, K, K) for M matrices, K >= 2; P[i, j] is the probability that i beats j.
    - `name`: what to call it in messages.
    - `atol`: how far P[i, j] + P[j, i] may be from 1 and P[i, i] from 1/2. By default 1e-6, or eight
      roundings of the dtype where that is more; the range [0, 1] is exact.

    Returns the values unchanged as a NumPy array, in their own floating dtype; integers become float64.

    Raises `ValueError`, one line: what is wrong, where (matrix, entry, value), and the cure. It looks at
    values, so it belongs outside `jit`.

    >>> import ipodyn
    >>> ipodyn.check_preference([[0.5, 0.7], [0.4, 0.5]])
    Traceback (most recent call last):
    ...
    ValueError: `P` entry (0, 1) is 0.7 and entry (1, 0) is 0.4: they must sum to 1. To mend it, average the
    two orders, P = (P + 1 - P.T) / 2.
    """
    array = _host_floats(P, name)
    if array.ndim not in (2, 3) or array.shape[-1] != array.shape[-2]:
        raise ValueError(f"`{name}` has shape {array.shape}: give (K, K), or (M, K, K) for M matrices.")
    K = array.shape[-1]
    if K < 2:
        raise ValueError(f"`{name}` has shape {array.shape}: comparisons need at least 2 responses, K >= 2.")
    if array.size == 0:
        raise ValueError(f"`{name}` has shape {array.shape}: it holds no matrix. Give at least one.")
    transpose = "P.T" if array.ndim == 2 else "P.swapaxes(1, 2)"
    diagonal = np.broadcast_to(np.eye(K, dtype=bool), array.shape)
    # Sums in float64 (or wider), so that the check adds no rounding of its own.
    wide = array.astype(np.promote_types(array.dtype, np.float64)) if array.dtype.kind == "f" else array.astype(float)
    tolerance = _tolerance(array, atol)

    bad = ~np.isfinite(wide)
    if bad.any():
        index, more = _first(bad)
        cure = (
            "set the diagonal to 1/2"
            if index[-1] == index[-2]
            else "drop that matrix, or set a pair that was never compared to 1/2 both ways"
        )
        raise ValueError(f"{_place(name, index)} is {wide[index]}{more}: {cure}.")
    bad = (wide < 0) | (wide > 1)
    if bad.any():
        index, more = _first(bad)
        cure = (
            "margins in [-1, 1] become probabilities by P = (1 + margin) / 2"
            if wide[index] < 0
            else "divide percentages by 100, counts of wins W by the comparisons, P = W / (W + W.T)"
        )
        raise ValueError(f"{_place(name, index)} is {wide[index]}, outside [0, 1]{more}: {cure}.")
    bad = diagonal & (np.abs(wide - 0.5) > tolerance)
    if bad.any():
        index, more = _first(bad)
        raise ValueError(
            f"{_place(name, index)} on the diagonal is {wide[index]}{more}: a response against itself "
            "is 1/2; set the diagonal to 0.5."
        )
    bad = np.abs(wide + wide.swapaxes(-1, -2) - 1) > tolerance
    if bad.any():
        index, _ = _first(bad)
        pairs = int(bad.sum()) // 2
        more = f" ({pairs - 1} more such pairs)" if pairs > 1 else ""
        back = (*index[:-2], index[-1], index[-2])
        raise ValueError(
            f"{_place(name, index)} is {wide[index]} and entry {back[-2:]} is {wide[back]}{more}: "
            f"they must sum to 1. To mend it, {_EVERY_PAIR.replace('P.T', transpose)}."
        )
    return array


def check_policy(
    policy: HostArray, K: int | None = None, *, name: str = "policy", atol: float | None = None
) -> np.ndarray:
    r"""Checks that `policy` is a distribution over the responses: entries >= 0 that sum to 1.

    - `policy`: shape (K,); `K`: the number of responses it must have, any where None.
    - `atol`: how far the sum may be from 1; by default 1e-6, or eight roundings of the dtype where that is
      more.

    Returns the values unchanged as a NumPy array. Raises `ValueError` with the culprit and the cure.

    >>> import ipodyn
    >>> ipodyn.check_policy([0.7, 0.7], 2, name="pi_ref")
    Traceback (most recent call last):
    ...
    ValueError: `pi_ref` sums to 1.4: it must sum to 1. Divide it by its sum.
    """
    array = _host_floats(policy, name)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{name}` has shape {array.shape}: give one probability for each response, shape (K,).")
    if K is not None and array.shape != (K,):
        raise ValueError(
            f"`{name}` has {array.size} entries for {K} responses: give one probability for each response."
        )
    wide = array.astype(np.float64)
    bad = ~np.isfinite(wide)
    if bad.any():
        index, more = _first(bad)
        raise ValueError(f"{_place(name, index)} is {wide[index]}{more}: give finite probabilities.")
    bad = wide < 0
    if bad.any():
        index, more = _first(bad)
        raise ValueError(
            f"{_place(name, index)} is {wide[index]}, negative{more}: give probabilities; "
            "softmax turns logits into them."
        )
    if abs(wide.sum() - 1) > _tolerance(array, atol):
        cure = "Divide it by its sum." if wide.sum() > 0 else "Give some response a positive probability."
        raise ValueError(f"`{name}` sums to {wide.sum():.9g}: it must sum to 1. {cure}")
    return array


def check_unit_interval(value: HostArray, name: str, cure: str = "give a number from 0 to 1") -> np.ndarray:
    """Checks that a number or every entry of an array lies in [0, 1]; returns it as a NumPy array.

    - `value`: any shape; `name`: what to call it in the message; `cure`: how the message ends.

    >>> import ipodyn
    >>> ipodyn.check_unit_interval(1.5, "lam")
    Traceback (most recent call last):
    ...
    ValueError: `lam` is 1.5, outside [0, 1]: give a number from 0 to 1.
    """
    array = _host_floats(value, name)
    bad = ~((array >= 0) & (array <= 1))  # this way round NaN is bad too
    if bad.any():
        index, more = _first(bad)
        raise ValueError(f"{_place(name, index)} is {array[index]}, outside [0, 1]{more}: {cure}.")
    return array


def check_positive(value: HostArray, name: str, cure: str = "give a finite number above 0") -> np.ndarray:
    """Checks that a number or every entry of an array is finite and above 0; returns it as a NumPy array.

    - `value`: any shape; `name`: what to call it in the message; `cure`: how the message ends.

    >>> import ipodyn
    >>> ipodyn.check_positive([1.0, 0.0], "beta")
    Traceback (most recent call last):
    ...
    ValueError: `beta` entry 1 is 0.0, not in (0, inf): give a finite number above 0.
    """
    array = _host_floats(value, name)
    bad = ~((array > 0) & (array < np.inf))
    if bad.any():
        index, more = _first(bad)
        raise ValueError(f"{_place(name, index)} is {array[index]}, not in (0, inf){more}: {cure}.")
    return array


def check_alpha(alpha: HostArray, *, name: str = "alpha") -> np.ndarray:
    """`check_unit_interval` for how far the reference follows the current policy."""
    return check_unit_interval(alpha, name, "0 keeps the reference fixed, 1 makes it the current policy")


def check_lam(lam: HostArray, *, name: str = "lam") -> np.ndarray:
    """`check_unit_interval` for the fraction of on-policy samples."""
    return check_unit_interval(lam, name, "0 samples from the fixed policy, 1 from the current one")


def check_beta(beta: HostArray, *, name: str = "beta") -> np.ndarray:
    """`check_positive` for the strength of the preference signal, 1 / the KL coefficient."""
    return check_positive(
        beta, name, "it is 1 / the KL coefficient, so large means a weak anchor; a trainer's 0.1 is 10 here"
    )


def host_value(x: ScalarLike) -> float | None:
    """`x` as a number, where it is one already and not traced."""
    return None if isinstance(x, Tracer) else np.asarray(x).item()
