"""Several fixed points of one loop, as far as a search from many starts finds them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._loops.mrs import MRS
from .._numerics.randomness import RandomKey, random_key
from .._numerics.results import RESULTS
from .._numerics.simplex import softmax, supported
from .._numerics.types import BoolBlock, IntBlock, Scalar
from .fixed_point import solve_fixed_point

MOST = 16  # fixed points that are kept


class FixedPoints(eqx.Module):
    """What `fixed_points` found.

    - `policies` (16, K): different fixed points, that of `fixed_point` first where it was found; from `number` on the
      first one again. - `number` (): how many; there may be more that no start led to.
    - `fractions` (16,): of the searches that ended in a fixed point, the fraction that ended in this one; 0 from
      `number` on. - `failed` (): the fraction of searches that found none.
    """

    policies: Float[Array, "most K"]
    number: IntBlock
    fractions: Float[Array, " most"]
    failed: Scalar

    @property
    def unique(self) -> BoolBlock:
        """Whether one was found, and no second."""
        return self.number == 1


@eqx.filter_jit
def _fixed_points(loop: MRS, key: Key[Array, ""], num_starts: int) -> FixedPoints:
    K, dtype = loop.P.shape[0], loop.P.dtype
    eps = float(jnp.finfo(dtype).eps)
    spreads, noises = jax.random.split(key)
    # Logits from nearly uniform to nearly a vertex.
    scale = 12 * jax.random.uniform(spreads, (num_starts, 1), dtype)
    logits = scale * jax.random.normal(noises, (num_starts, K), dtype)
    starts = softmax(jnp.where(supported(loop.pi_ref)[:, None], logits.T, -jnp.inf)).T
    first = solve_fixed_point(loop)
    rest = jax.vmap(lambda start: solve_fixed_point(loop, start))(starts)
    policies = jnp.concatenate([first.policy[None], rest.policy])
    solved = jnp.append(rest.result == RESULTS.successful, first.result == RESULTS.successful)
    solved = jnp.roll(solved, 1)
    distance = jnp.max(jnp.abs(policies[:, None] - policies[None]), axis=2)
    same = (distance <= eps**0.4) & solved[:, None] & solved[None]
    earlier = jnp.tril(same, -1)
    new = solved & ~jnp.any(earlier, axis=1)
    (at,) = jnp.nonzero(new, size=MOST, fill_value=num_starts + 1)
    kept = at <= num_starts
    at = jnp.where(kept, at, jnp.argmax(new))
    total = jnp.maximum(jnp.sum(solved), 1)
    fractions = jnp.where(kept, jnp.sum(same[at], axis=1) / total, 0.0).astype(dtype)
    return FixedPoints(policies[at], jnp.sum(new), fractions, 1 - jnp.mean(solved.astype(dtype)))


def fixed_points(loop: MRS, *, key: RandomKey, num_starts: int = 64) -> FixedPoints:
    r"""The different fixed points that Newton's method finds from `num_starts` random policies and from pi_ref.

    MRS-IPO with alpha < 1 has exactly one, and so has MRS-DPO where `convergence_certificate` holds. MRS-DPO with lam <
    1 may have several, of which `fixed_point` gives the one that grows out of pi_ref: its curve in beta / (1 - alpha)
    folds. Two that are closer than eps^0.4 of the dtype count as one.

    - `key`: a JAX random key or a whole number. - `num_starts` >= 1.

    Returns `FixedPoints`. A search, no proof: `unique` says that no second was found. Source: derived here.

    >>> import ipodyn, jax, numpy as np
    >>> P = np.array([[0.5, 0.3749, 0.4066], [0.6251, 0.5, 0.0292], [0.5934, 0.9708, 0.5]])
    >>> pi_ref, pi_0 = jax.nn.softmax(np.array([2.631, 4.285, -6.917])), np.array([0.0029, 0.8731, 0.124])
    >>> loop = ipodyn.MRS(P, alpha=0.0, beta=6.2, lam=0.5, pi_ref=pi_ref, pi_0=pi_0, objective=ipodyn.DPO())
    >>> int(ipodyn.fixed_points(loop, key=0).number)
    3
    """
    if isinstance(num_starts, bool) or not isinstance(num_starts, int) or num_starts < 1:
        raise ValueError(f"`num_starts` is {num_starts!r}; it must be a whole number of starts, at least 1.")
    return _fixed_points(loop, random_key(key), num_starts)
