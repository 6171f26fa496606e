r"""Exact stability boundaries in the (alpha, beta) plane, for many preference matrices at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._loops.mrs import MRS
from .._numerics.types import ScalarLike, VectorLike, as_float
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .critical import BETA, Critical, solve_critical

BLOCK = 256  # curves' points per block: the batch axis of the kernel


@eqx.filter_jit
def _boundary(
    P: Array, alpha: Array, lam: Array, pi_ref: Array, pi_0: Array, largest: Array, objective: AbstractObjective
) -> Critical:
    matrices, alphas = P.shape[0], alpha.shape[0]
    size = min(BLOCK, matrices * alphas)
    blocks = -(-matrices * alphas // size)
    index = jnp.minimum(jnp.arange(blocks * size), matrices * alphas - 1).reshape(blocks, size)
    last = jnp.moveaxis(P, 0, -1)

    def one_block(index: Array) -> Critical:
        def take(x: Array, at: Array) -> Array:
            return jnp.take(x, at, axis=-1, mode="clip")

        matrix = index // alphas
        loop = MRS(
            take(last, matrix),
            alpha=take(alpha, index % alphas),
            beta=jnp.ones(index.shape, P.dtype),
            lam=jnp.broadcast_to(lam, index.shape),
            pi_ref=take(pi_ref.T, matrix),
            pi_0=take(pi_0.T, matrix),
            objective=objective,
        )
        critical = solve_critical(loop, BETA, largest)
        return eqx.tree_at(lambda f: f.policy, critical, critical.policy.T)

    curves = jax.lax.map(one_block, index)

    def cut(x: Array) -> Array:
        return x.reshape(blocks * size, *x.shape[2:])[: matrices * alphas].reshape(matrices, alphas, *x.shape[2:])

    return jax.tree.map(cut, curves)


def stability_boundary(
    P: Float[ArrayLike, "M K K"],
    *,
    alpha: VectorLike,
    lam: ScalarLike = 1.0,
    pi_ref: Float[ArrayLike, "#M K"] | None = None,
    pi_0: Float[ArrayLike, "#M K"] | None = None,
    objective: AbstractObjective | None = None,
    largest: float = 1e4,
) -> Critical:
    r"""The critical beta of many matrices over a grid of alpha: the exact edge of local stability, one curve a matrix.

    `critical_beta` for every pair, in blocks, so that memory does not grow with their number beyond the answer.
    Multiply by `lam` for a curve in the (alpha, beta * lam) plane. Never raises on values: see `.result`.

    - `P`: shape (M, K, K). - `alpha`: shape (A,), in [0, 1]. - `pi_ref`, `pi_0`: shape (M, K) or (1, K); None is
      uniform. - `largest`: end of the search in beta.

    Returns a `Critical` with fields of shape (M, A), `policy` (M, A, K). `value` has first derivatives only: second
    ones do not pass the loop over blocks (NaN, or an error of JAX's). `jax.vmap` of `critical_beta` has them.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = jnp.stack([ipodyn.problems.three_cycle(a) for a in (0.3, 0.5)])
    >>> edge = ipodyn.stability_boundary(P, alpha=[0.0, 0.5])
    >>> [[round(float(b), 4) for b in row] for row in edge.value]
    [[5.7735, 5.0], [3.4641, 3.0]]
    """
    P = as_float(P)
    if P.ndim != 3 or P.shape[1] != P.shape[2]:
        raise ValueError(f"`P` has shape {P.shape}; it must be (M, K, K).")
    alpha = as_float(jnp.asarray(alpha), P)
    if alpha.ndim != 1:
        raise ValueError(f"`alpha` has shape {alpha.shape}; it must be (A,), a grid of values.")
    shape = P.shape[:2]
    uniform = jnp.full(shape, 1 / shape[1], P.dtype)
    pi_ref = uniform if pi_ref is None else jnp.broadcast_to(as_float(pi_ref, P), shape)
    pi_0 = uniform if pi_0 is None else jnp.broadcast_to(as_float(pi_0, P), shape)
    objective = IPO() if objective is None else objective
    return _boundary(P, alpha, as_float(lam, P), pi_ref, pi_0, jnp.asarray(largest, P.dtype), objective)
