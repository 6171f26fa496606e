"""A ball around a stable fixed point that no round leaves: a basin of attraction with a proof."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._loops.loop import as_policy, start_policy
from .._loops.mrs import MRS
from .._numerics.simplex import kl_divergence, supported
from .._numerics.types import BoolBlock, PolicyBlock, ScalarBlock, ScalarLike, as_float
from .certificate import check_ipo, solve_certificate, squared_turning
from .fixed_point import FixedPoint


class Basin(eqx.Module):
    r"""What `certified_basin` proves: of policies with \(KL(\pi^*\|\pi) \le c\), none leaves, and KL shrinks.

    - `kl` (): the radius c of the ball, in nats; 0 where there is none, inf where every start is inside.
    - `rate` (): KL from the fixed point is multiplied by at most this in every round inside the ball.
    - `policy` (K,): the fixed point at its centre.
    """

    kl: ScalarBlock
    rate: ScalarBlock
    policy: PolicyBlock

    def contains(self, policy: Float[ArrayLike, " K"]) -> BoolBlock:
        """Whether a loop that starts at `policy`, shape (K,), is proved to converge to the fixed point.

        >>> import ipodyn, numpy as np
        >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.5), alpha=0.0, beta=3.0, lam=1.0)
        >>> basin = ipodyn.certified_basin(loop, ipodyn.fixed_point(loop))
        >>> [bool(basin.contains(np.array(start))) for start in ([0.35, 0.33, 0.32], [0.4, 0.3, 0.3])]
        [True, False]
        """
        policy = as_float(policy, self.policy)
        if policy.shape != self.policy.shape:
            raise ValueError(f"`policy` has shape {policy.shape}; the fixed point has {self.policy.shape}.")
        alike = jnp.all(supported(policy) == supported(self.policy), axis=0)
        return alike & (self.kl > 0) & (kl_divergence(self.policy, policy) <= self.kl)


def solve_basin(loop: MRS, policy: PolicyBlock, rate: ScalarBlock | None = None) -> Basin:
    """`certified_basin` for a loop whose fields have batch axes behind; compiles nothing by itself."""
    turning = squared_turning(loop, policy)
    squared_radius = loop.alpha**2 + turning
    rate = (1 + squared_radius) / 2 if rate is None else rate
    usable = (rate < 1) & (rate >= loop.alpha) & (rate > squared_radius)
    turns = usable & (turning > 0)
    stretch = jnp.sqrt(jnp.where(turns, (rate - loop.alpha**2) / jnp.where(turns, turning, 1.0), 1.0))
    # kl(p || stretch p) of two outcomes, infinite where the policy cannot grow by that factor.
    rest = jnp.where(policy < 1, 1 - policy, 1.0)
    rise = (stretch[None] - 1) * policy / rest
    grows = (policy > 0) & (policy < 1) & (rise < 1)
    fall = jnp.log1p(-jnp.where(grows, rise, 0.0))
    distances = jnp.where(grows, -policy * jnp.log(stretch)[None] - rest * fall, jnp.inf)
    ball = jnp.maximum(jnp.min(distances, axis=0), 0.0)
    everywhere = (turning == 0) | (solve_certificate(loop).rate <= rate)
    return Basin(jnp.where(usable, jnp.where(everywhere, jnp.inf, ball), 0.0), rate, policy)


@eqx.filter_jit
def _basin(loop: MRS, policy: PolicyBlock, rate: Array | None) -> Basin:
    return solve_basin(loop, policy, rate)


def certified_basin(loop: MRS, star: FixedPoint | Float[ArrayLike, " K"], *, rate: ScalarLike | None = None) -> Basin:
    r"""The ball around a stable fixed point of MRS-IPO from which convergence is proved, at a given rate.

    With \(\gamma > 1\) such that \(\alpha^2 + (\gamma\beta\lambda\omega)^2\) is the rate, omega as in `stability`: as
    long as no probability is above gamma times that of the fixed point, before and after a round,
    \(KL(\pi^*\|\pi') \le \max(\alpha, \alpha^2 + (\gamma\beta\lambda\omega)^2)\, KL(\pi^*\|\pi)\). So the ball
    \(KL(\pi^*\|\pi) \le c = \min_i kl(\pi^*_i \| \gamma\pi^*_i)\), kl that of two outcomes, is never left.

    Proof. KL is at least the kl of one response against the rest, so that in the ball no probability exceeds gamma
    times that of the fixed point. As in `convergence_certificate`, with the metric gamma S(pi*): there -log u + u - 1
    and its like are at least (u - 1)^2 / (2 gamma), and gamma S^1/2 A S^1/2 has norm gamma omega. Moving the start to
    the fixed point along logits, the first policy whose next one left the ball would be on its edge and shrink.

    Small where the fixed point is peaked: c is of the order of its smallest probability. Where every start is proved to
    converge at this rate, by `convergence_certificate`, c is infinite.

    - `star`: from `fixed_point`, or its policy, shape (K,); the formulas mean nothing elsewhere.
    - `rate` in (0, 1): None is (1 + rho^2) / 2, half-way from the exact local rate to none. The smaller the rate, the
      smaller the ball; 0 at rates below alpha and rho^2.

    Returns a `Basin`. Differentiable. Source: derived here; nearest published is the convergence of magnetic mirror
    descent, Sokota et al., arXiv 2206.05825.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.5), alpha=0.0, beta=3.0, lam=1.0)
    >>> basin = ipodyn.certified_basin(loop, ipodyn.fixed_point(loop))
    >>> round(float(basin.rate), 6), round(float(basin.kl), 4)  # rho^2 = 0.75
    (0.875, 0.0016)
    """
    check_ipo(loop, "a basin is known for IPO().")
    policy = as_policy(loop, star.policy if isinstance(star, FixedPoint) else jnp.asarray(star), "star")
    return _basin(loop, start_policy(loop, policy), None if rate is None else as_float(rate, loop.P))
