"""The points of a stability map, and how blocks of them are cut out on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._loops.mrs import MRS
from .._numerics.types import PolicyBlock
from .._objectives.objective import AbstractObjective

# On the host until the engine sends a region to the devices, in one go; traced in kernels.
_HostArray = Array | np.ndarray


class Region(eqx.Module):
    """A range of matrices with every (alpha, beta), matrices fastest, so that blocks are cut out as contiguous slices.

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
    """

    P: Float[np.ndarray, "K K M"]
    alpha: Float[np.ndarray, " A"]
    beta: Float[np.ndarray, " B"]
    lam: Float[np.ndarray, ""]
    pi_ref: Float[np.ndarray, "K M"]
    pi_0: Float[np.ndarray, "K M"]
    policy0: Float[np.ndarray, "K M"]
    objective: AbstractObjective

    @property
    def points_per_matrix(self) -> int:
        return self.alpha.size * self.beta.size

    def region(self, matrices: np.ndarray, size: int, most: int | None = None) -> Region:
        """Some matrices, in the order given, for blocks of `size` points.

        Always of one shape, a power of two: ranges of one set, and sets of nearly the same size, share their program.
        `most`: how many matrices the largest range has, if that is known; None is all of them.
        """
        longest = self.P.shape[-1] if most is None else most
        length = 1 << (max(longest, matrices.size) + size - 1).bit_length()
        at = np.resize(matrices, length)

        def tiled(x: np.ndarray) -> np.ndarray:
            return x[..., at]

        return Region(
            tiled(self.P),
            tiled(self.pi_ref),
            tiled(self.pi_0),
            tiled(self.policy0),
            np.asarray(matrices.size, np.int32),
            self.alpha,
            self.beta,
            self.lam,
            self.objective,
        )
