"""Preferences split into what a score explains and what goes round in circles."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._numerics.deprecation import renamed_attribute
from .._numerics.types import PolicyBlock, PreferenceBlock, PreferenceLike, ScalarBlock
from .structure import as_matrix


class HodgeSplit(eqx.Module):
    """The answer of `hodge_split`; all in the unit of P, probability.

    - `score`: shape (K,), the potential, mean zero. - `gradient`, `cyclic`: shape (K, K), the two skew parts.
    - `triangles`: shape (T, 3), the T = K (K - 1) (K - 2) / 6 triples i < j < k. - `curl`: shape (T,), how far round
      each the preferences run: above 0 i over j over k over i, below 0 the other way.
    - `fraction`: shape (T,), each triangle's part of the cyclic energy, summing to 1; all 0 where there is none.
    - `gradient_energy`, `cyclic_energy`: (), sums of squares over pairs i < j.
    """

    score: PolicyBlock
    gradient: PreferenceBlock
    cyclic: PreferenceBlock
    triangles: Int[Array, "T 3"]
    curl: Float[Array, "T *batch"]
    fraction: Float[Array, "T *batch"]
    gradient_energy: ScalarBlock
    cyclic_energy: ScalarBlock

    @property
    def cyclic_fraction(self) -> ScalarBlock:
        """The cyclic energy over the whole; 0 where every pair ties."""
        total = self.gradient_energy + self.cyclic_energy
        return jnp.where(total > 0, self.cyclic_energy / jnp.where(total > 0, total, 1.0), 0.0)

    share = renamed_attribute("share", "fraction", "0.3")
    cyclic_share = renamed_attribute("cyclic_share", "cyclic_fraction", "0.3")


def hodge_split(P: PreferenceLike) -> HodgeSplit:
    r"""The transitive and the cyclic part of preferences: \(P_{ij} - 1/2 = (s_i - s_j) + C_{ij}\).

    s is the least-squares potential on the complete graph, the row means of \(A = (P - P^\top)/2\), and C sums to zero
    in every row. The parts are orthogonal. C is spread over three-cycles: with
    \(\mathrm{curl}_{ijk} = A_{ij} + A_{jk} + A_{ki}\), \(C_{ij} = \frac1K \sum_k \mathrm{curl}_{ijk}\) and its energy
    is \(\frac1K\sum_{i<j<k} \mathrm{curl}_{ijk}^2\), which gives each triangle its part.

    - `P`: shape (K, K), one matrix; batch with `jax.vmap`. Memory O(K^3).

    Returns a `HodgeSplit`. On uniform data the IPO score is s up to a constant: it sees the transitive part only.
    "Transitive" is meant linearly: a Bradley-Terry P has a small cyclic part too, though it has no majority cycle.

    Source: Jiang, Lim, Yao and Ye, *Statistical ranking and combinatorial Hodge theory*, Math. Programming 127 (2011).

    >>> import ipodyn
    >>> split = ipodyn.hodge_split(ipodyn.problems.three_cycle(0.3))
    >>> split.triangles.tolist(), round(float(split.curl[0]), 6), round(float(split.cyclic_fraction), 6)
    ([[0, 1, 2]], 0.9, 1.0)
    """
    P = as_matrix(P)
    K = P.shape[0]
    skew = (P - P.T) / 2
    score = jnp.mean(skew, axis=1)
    gradient = score[:, None] - score[None, :]
    cyclic = skew - gradient
    triangles = np.array(list(itertools.combinations(range(K), 3)), dtype=np.int32).reshape(-1, 3)
    i, j, k = triangles.T
    curl = skew[i, j] + skew[j, k] + skew[k, i]
    squares = curl**2
    total = jnp.sum(squares)
    fraction = jnp.where(total > 0, squares / jnp.where(total > 0, total, 1.0), 0.0)
    return HodgeSplit(
        score=score,
        gradient=gradient,
        cyclic=cyclic,
        triangles=jnp.asarray(triangles),
        curl=curl,
        fraction=fraction,
        gradient_energy=jnp.sum(gradient**2) / 2,
        cyclic_energy=jnp.sum(cyclic**2) / 2,
    )
