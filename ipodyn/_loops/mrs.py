"""The deployment loop: mixed reference and sampling (MRS)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .._numerics.checks import check_policy, check_positive, check_preference, check_unit_interval
from .._numerics.simplex import LOG_ZERO, log_policy
from .._numerics.types import PolicyBlock, PreferenceBlock, ScalarBlock, as_float
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .loop import AbstractLoop, known
from .normal_form import Round, State


class MRS(AbstractLoop):
    r"""One loop of iterated alignment: the trained policy samples the next data and moves the reference.

    \(\pi_{t+1} = \mathrm{softmax}(\alpha\log\pi_t + (1-\alpha)\log\pi_{ref} + \beta\, r(\mu_t))\) with
    \(\mu_t = \lambda\pi_t + (1-\lambda)\pi_0\) and r the score map of the objective.

    - `P`: shape (K, K), P[i, j] = Pr(i beats j).
    - `alpha` in [0, 1]: how far the reference follows the current policy. - `beta` > 0: strength of the preference
      signal relative to the KL anchor (larger = stronger; TRL's `beta` is `1 / beta`). - `lam` in [0, 1]: fraction of
      on-policy samples.
    - `pi_ref`, `pi_0`: shape (K,), the reference policy and the fixed off-policy sampler; None is uniform.
    - `objective`: `IPO()` or `DPO()`.

    Calling it runs one round, (K,) -> (K,). All fields are traced: sweeping them does not compile anew, and
    derivatives reach each. Shapes are checked always, values when they are there to look at (not under `jit`,
    `vmap`, `grad`): a wrong one raises `ValueError`. Source: Chen et al., arXiv 2602.12180, section on MRS.

    >>> import ipodyn, jax.numpy as jnp
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=0.8)
    >>> [round(float(p), 4) for p in loop(jnp.array([0.5, 0.3, 0.2]))]
    [0.4342, 0.2776, 0.2881]
    """

    P: PreferenceBlock
    alpha: ScalarBlock
    beta: ScalarBlock
    lam: ScalarBlock
    pi_ref: PolicyBlock
    pi_0: PolicyBlock
    objective: AbstractObjective

    def __init__(
        self,
        P: ArrayLike,
        *,
        alpha: ArrayLike,
        beta: ArrayLike,
        lam: ArrayLike,
        pi_ref: ArrayLike | None = None,
        pi_0: ArrayLike | None = None,
        objective: AbstractObjective | None = None,
    ):
        P = as_float(P)
        if P.ndim < 2 or P.shape[0] != P.shape[1] or P.shape[0] < 2:
            raise ValueError(f"`P` has shape {P.shape}; it must be (K, K) with K >= 2, batches by `jax.vmap`.")
        K = P.shape[0]
        uniform = jnp.full((K, *P.shape[2:]), 1 / K, P.dtype)
        self.P = P
        batch = P.shape[2:]
        self.alpha, self.beta, self.lam = as_float(alpha, P), as_float(beta, P), as_float(lam, P)
        for name in ("alpha", "beta", "lam"):
            if getattr(self, name).shape not in ((), batch):
                raise ValueError(
                    f"`{name}` has shape {getattr(self, name).shape}; `P` of shape {P.shape} takes one number, "
                    "and `jax.vmap` many."
                )
            setattr(self, name, jnp.broadcast_to(getattr(self, name), batch))
        self.pi_ref = uniform if pi_ref is None else as_float(pi_ref, P)
        self.pi_0 = uniform if pi_0 is None else as_float(pi_0, P)
        self.objective = IPO() if objective is None else objective
        for name in ("pi_ref", "pi_0"):
            policy = getattr(self, name)
            if policy.shape != (K, *batch):
                raise ValueError(f"`{name}` has shape {policy.shape}; `P` has shape {P.shape}, so give {(K, *batch)}.")
            if policy.ndim == 1 and known(policy):
                check_policy(policy, K, name=name)
        if P.ndim == 2 and known(P):
            check_preference(P)
        for name in ("alpha", "lam"):
            if known(getattr(self, name)):
                check_unit_interval(getattr(self, name), name)
        if known(self.beta):
            check_positive(self.beta, "beta")

    def round(self) -> "Round":
        """The loop in its normal form, for many rounds on logits."""
        anchor = (1 - self.alpha)[None] * log_policy(self.pi_ref)
        # (1 - alpha) log 0 jumps at alpha = 1: its derivative there is taken as 0, where -LOG_ZERO would overflow.
        excluded = jnp.broadcast_to(jnp.where(self.alpha < 1, LOG_ZERO, 0.0).astype(self.P.dtype)[None], anchor.shape)
        drive = jnp.where(self.pi_ref > 0, anchor, excluded)
        response = self.objective.response(self.P, beta=self.beta, lam=self.lam, pi_0=self.pi_0)
        return Round(self.alpha, drive, response)

    def start(self, policy: PolicyBlock) -> State:
        return self.round().start(policy)

    def step(self, state: State) -> State:
        return self.round()(state)

    def logits(self, state: State) -> PolicyBlock:
        return state.logits

    def check_start(self, policy: PolicyBlock, name: str) -> None:
        if known(self.pi_ref) and known(self.alpha):
            check_common(policy, self.pi_ref, self.alpha, name=name)


def check_common(policy: ArrayLike, pi_ref: ArrayLike, alpha: ArrayLike, *, name: str) -> None:
    """`ValueError` if a start (K, *batch) has no response in common with `pi_ref`: their mixture would be 0 everywhere.

    With alpha = 0 the start, and with alpha = 1 the reference, has no part in it.
    """
    mixed = (np.asarray(alpha) > 0) & (np.asarray(alpha) < 1)
    apart = ~((np.asarray(policy) > 0) & (np.asarray(pi_ref) > 0)).any(axis=0)
    if np.any(mixed & apart):
        start = "`policy0`" if name == "policy0" else f"`{name}`, where the loop starts,"
        raise ValueError(f"{start} and `pi_ref` have no response in common: their mixture is zero everywhere.")
