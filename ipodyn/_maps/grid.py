"""The points of a stability map, checked once, and how blocks of them are cut out on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._loops.mrs import MRS, check_common
from .._loops.starts import DEFAULT_START, default_start, start_words
from .._numerics.checks import check_policy, check_positive, check_preference, check_unit_interval
from .._numerics.types import PolicyBlock, ScalarLike, VectorLike
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from ..data import PreferenceSet
from .batch import batch_last

# On the host until the engine sends a tile to the devices, in one go; traced in kernels.
_HostArray = Array | np.ndarray


class Tile(eqx.Module):
    """Some matrices with every (alpha, beta), matrices fastest, so that blocks are cut out as contiguous slices.

    The matrices are repeated along the last axis with period `count`, further than a block is long: a block may begin
    anywhere and run over the end. (Gathering the entries of P point by point costs more than a fixed point.)
    """

    P: Float[_HostArray, "K K length"]
    pi_ref: Float[_HostArray, "K length"]
    pi_0: Float[_HostArray, "K length"]
    policy0: Float[_HostArray, "K length"]
    count: Int[_HostArray, ""]
    alpha: Float[_HostArray, " A"]
    beta: Float[_HostArray, " B"]
    lam: Float[_HostArray, ""]
    objective: AbstractObjective

    def loops(self, index: Int[Array, " S"]) -> tuple[MRS, PolicyBlock]:
        """The loops of the consecutive points `index`, batch axis last, and where they start."""
        first, size = index[0] % self.count, index.shape[0]
        cell = index // self.count

        def cut(x: _HostArray) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, first, size, axis=-1)

        loop = MRS(
            cut(self.P),
            alpha=jnp.take(self.alpha, cell // self.beta.size, mode="clip"),
            beta=jnp.take(self.beta, cell % self.beta.size, mode="clip"),
            lam=jnp.broadcast_to(self.lam, index.shape),
            pi_ref=cut(self.pi_ref),
            pi_0=cut(self.pi_0),
            objective=self.objective,
        )
        return loop, cut(self.policy0)


class Grid(eqx.Module):
    """The points of a map: every alpha with every beta with every matrix, in this order, the last fastest.

    Points of one block then share (alpha, beta), so that they settle, and the block is left, at about the same time.
    Matrices and policies lie as the user gave them; `tile` puts the axis of matrices last. `start`: what to call
    `policy0`.
    """

    P: Float[np.ndarray, "M K K"]
    alpha: Float[np.ndarray, " A"]
    beta: Float[np.ndarray, " B"]
    lam: Float[np.ndarray, ""]
    pi_ref: Float[np.ndarray, "M K"]
    pi_0: Float[np.ndarray, "M K"]
    policy0: Float[np.ndarray, "M K"]
    objective: AbstractObjective
    start: str = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        P: ArrayLike | PreferenceSet,
        *,
        alpha: ScalarLike | VectorLike,
        beta: ScalarLike | VectorLike,
        lam: ScalarLike = 1.0,
        objective: AbstractObjective | None = None,
        pi_ref: ArrayLike | VectorLike | None = None,
        pi_0: ArrayLike | VectorLike | None = None,
        policy0: ArrayLike | VectorLike | None = None,
        dtype: str | np.dtype | None = None,
    ) -> "Grid":
        """What `stability_map` is given, checked; `ValueError` names the culprit. The values of a set are trusted.

        `dtype`: of the map; None is that of P.
        """
        matrices = P.P if isinstance(P, PreferenceSet) else check_preference(P)
        matrices = matrices[None] if matrices.ndim == 2 else matrices
        matrices = matrices.astype(jax.dtypes.canonicalize_dtype(dtype or matrices.dtype), copy=False)
        alphas, betas = _axis(alpha, "alpha", matrices), _axis(beta, "beta", matrices)
        check_unit_interval(alphas, "alpha")
        check_positive(betas, "beta")
        check_unit_interval(lam, "lam")
        reference, off_policy = _policies(pi_ref, "pi_ref", matrices), _policies(pi_0, "pi_0", matrices)
        if policy0 is None:
            starts, start = np.asarray(default_start(off_policy.T, reference.T)).T, DEFAULT_START
        else:
            starts, start = _policies(policy0, "policy0", matrices), start_words(np.asarray(policy0))
            check_common(starts.T, reference.T, alphas[:, None], name="policy0")
        scores = IPO() if objective is None else objective
        share = np.asarray(lam, matrices.dtype)
        return cls(matrices, alphas, betas, share, reference, off_policy, starts, scores, start)

    @property
    def points_per_matrix(self) -> int:
        return self.alpha.size * self.beta.size

    def tile(self, matrices: np.ndarray, size: int, most: int | None = None) -> Tile:
        """Some matrices, in the order given, for blocks of `size` points.

        Always of one shape, a power of two: ranges of one set, and sets of nearly the same size, share their program.
        `most`: how many matrices the largest range has, if that is known; None is all of them.
        """
        longest = len(self.P) if most is None else most
        at = np.resize(np.arange(matrices.size), 1 << (max(longest, matrices.size) + size - 1).bit_length())

        def repeated(rows: np.ndarray) -> np.ndarray:
            return batch_last(rows[matrices])[..., at]

        return Tile(
            repeated(self.P),
            repeated(self.pi_ref),
            repeated(self.pi_0),
            repeated(self.policy0),
            np.asarray(matrices.size, np.int32),
            self.alpha,
            self.beta,
            self.lam,
            self.objective,
        )


def _axis(values: ScalarLike | VectorLike, name: str, matrices: np.ndarray) -> np.ndarray:
    values = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"`{name}` has shape {values.shape}; give a number or a list of numbers, at least one.")
    return values.astype(matrices.dtype)


def _policies(policy: ArrayLike | VectorLike | None, name: str, matrices: np.ndarray) -> np.ndarray:
    """(M, K): the policy of each matrix; one for all is not repeated in memory."""
    M, K = matrices.shape[:2]
    rows = np.full(K, 1 / K) if policy is None else np.asarray(policy)
    if rows.shape not in ((K,), (M, K)):
        raise ValueError(f"`{name}` has shape {rows.shape}; give ({K},) for all matrices or ({M}, {K}), one each.")
    for row in np.atleast_2d(rows):
        check_policy(row, K, name=name)
    return np.broadcast_to(rows.astype(matrices.dtype), (M, K))
