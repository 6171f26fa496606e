"""Rounds that stop early: a few gradient steps on the round's loss from the current policy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._numerics.checks import check_positive
from .._numerics.simplex import centred, log_policy, mixture, softmax
from .._numerics.skew import safe_sqrt
from .._numerics.types import Policy, Scalar, ScalarLike, as_float
from .loop import AbstractLoop, as_policy, known
from .mrs import MRS


class InexactRound(AbstractLoop):
    r"""An `MRS` whose rounds are `steps` gradient steps of size `rate` on the round's loss, from the current policy.

    \(y \leftarrow y - \eta\nabla L(y)\) on logits, L the `loss` of the loop's objective with pairs from mu and the
    reference of the round. For IPO exactly \(z' = F(z) + (1 - 4\eta S(\mu))^m (z - F(z))\), S(mu) = diag(mu) - mu mu^T
    and F the full round: the same fixed point, where the Jacobian is 1 - Q (1 - J_F), Q = 1 - (1 - 4 eta S(mu))^m.
    `stability` gives its spectrum. For DPO the steps have the Hessian of its own loss, smaller by about 1 / beta^2.

    Few steps are a damping (`damped`) only where mu is uniform, s = 1 - (1 - 4 eta / K)^m. With lam < 1 they can make a
    stable loop unstable; interpolating logits or weights after a full round cannot. With alpha = 1 and lam = 1 nothing
    is cured: rounds freeze near a vertex, as S(mu) vanishes there. `residual` tells that from convergence, the
    variance of the policies does not.

    - `loop`: an `MRS` with pi_ref > 0. - `steps` >= 1: a whole number, part of the compiled program. - `rate` > 0: eta;
      below 1 for IPO, whose loss has a curvature of at most 2.

    Source: derived here.

    >>> import ipodyn, jax.numpy as jnp
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> few = ipodyn.InexactRound(loop, steps=3, rate=0.05)
    >>> s = 1 - (1 - 4 * 0.05 / 3) ** 3
    >>> star = ipodyn.fixed_point(loop).policy  # uniform, so that few steps are a damping
    >>> radii = [float(ipodyn.stability(x, star).radius) for x in (loop, few, ipodyn.damped(loop, s))]
    >>> [round(radius, 4) for radius in radii]
    [1.4731, 0.9428, 0.9428]
    """

    loop: MRS
    rate: Scalar
    steps: int = eqx.field(static=True)

    def __init__(self, loop: MRS, *, steps: int, rate: ScalarLike):
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"`steps` is {steps!r}; it must be a whole number of gradient steps, at least 1.")
        self.loop = loop
        self.rate = as_float(rate, loop.P)
        self.steps = steps
        if known(self.rate):
            check_positive(self.rate, "rate", "it is the size of a gradient step")
        if known(loop.pi_ref) and not np.all(np.asarray(loop.pi_ref) > 0):
            raise ValueError("`pi_ref` excludes responses: their log-ratios have no gradient. Leave them out of `P`.")

    @property
    def pi_0(self) -> Policy:
        return self.loop.pi_0

    def start(self, policy: Policy) -> Array:
        return log_policy(policy)

    def step(self, state: Array) -> Array:
        loop = self.loop
        mu = mixture(loop.lam, softmax(state), loop.pi_0)
        reference = loop.alpha * state + (1 - loop.alpha) * log_policy(loop.pi_ref)
        weights = 2 * mu[:, None] * mu[None] * loop.P
        beta = jnp.broadcast_to(loop.beta, weights.shape)

        def loss(logits: Array) -> Array:
            h = logits - reference
            return jnp.sum(weights * loop.objective.pair_losses(h[:, None] - h[None], beta))

        def descend(logits: Array, _: None) -> tuple[Array, None]:
            return logits - self.rate * jax.grad(loss)(logits), None

        return centred(jax.lax.scan(descend, state, None, length=self.steps)[0])

    def logits(self, state: Any) -> Array:
        return state

    def check_start(self, policy: Policy, name: str) -> None:
        if not np.all(np.asarray(policy) > 0):
            raise ValueError(f"`{name}` excludes responses: start inside the simplex.")

    def residual(self, policy: Float[ArrayLike, " K"]) -> Scalar:
        r"""\(|\Pi(F(z) - z)|\), how far one full round of `loop` would move the logits: 0 at fixed points only.

        - `policy`: shape (K,), inside the simplex.

        >>> import ipodyn, numpy as np
        >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=1.0, beta=8.0, lam=1.0)
        >>> few = ipodyn.InexactRound(loop, steps=3, rate=0.05)
        >>> vertex = np.array([1 - 2e-9, 1e-9, 1e-9])
        >>> float(np.abs(few(vertex) - vertex).max()) < 1e-8, round(float(few.residual(vertex)), 3)  # frozen
        (True, 3.394)
        """
        policy = as_policy(self, policy, "policy")
        return _residual(self.loop, policy)


@eqx.filter_jit
def _residual(loop: MRS, policy: Array) -> Array:
    moved = loop.step(loop.start(policy)).logits - log_policy(policy)
    return safe_sqrt(jnp.sum(centred(moved) ** 2))
