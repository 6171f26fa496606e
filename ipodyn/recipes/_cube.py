"""Recipes that are points of the (alpha, beta, lam) cube, each with a name and words for its numbers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import ArrayLike

from .._loops.mrs import MRS
from .._numerics.checks import check_alpha, check_beta, check_lam, check_positive
from .._numerics.simplex import log_policy, matvec, softmax
from .._numerics.types import PolicyBlock, ScalarLike
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective


class Recipe(eqx.Module):
    """A point of the (alpha, beta, lam) cube with a name.

    - `alpha` in [0, 1], `beta` > 0, `lam` in [0, 1]: as in `MRS`; numbers or traced scalars. - `objective`.
    - `name`, `remark`: what it is called and what to know about it. - `rounds`: 1 if only the first round is meant.
    - `tokens`: completion length of a trainer that averages log-ratios over tokens, or None. - `notes`: where the
      numbers come from, a line each.

    `str(recipe)` is `recipe.describe()`.
    """

    alpha: ScalarLike
    beta: ScalarLike
    lam: ScalarLike
    objective: AbstractObjective
    name: str = eqx.field(static=True)
    remark: str = eqx.field(static=True)
    rounds: int | None = eqx.field(static=True, default=None)
    tokens: float | None = eqx.field(static=True, default=None)
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    def loop(self, P: ArrayLike, *, pi_ref: ArrayLike | None = None, pi_0: ArrayLike | None = None) -> MRS:
        """The loop on a preference matrix: `MRS(P, alpha=..., beta=..., lam=...)`; None is uniform."""
        return MRS(P, **self.point(), pi_ref=pi_ref, pi_0=pi_0, objective=self.objective)

    def point(self) -> dict[str, Any]:
        """`{"alpha": ..., "beta": ..., "lam": ...}`, the keyword arguments of everything else."""
        return {"alpha": self.alpha, "beta": self.beta, "lam": self.lam}

    def describe(self) -> str:
        """The recipe in words, one line a number, saying which way it points."""
        alpha, beta, lam = (_number(x) for x in (self.alpha, self.beta, self.lam))
        objective = type(self.objective).__name__
        lines = [f"{self.name}, {objective}" + (f": {self.remark}" if self.remark else "")]
        lines.append(f"  alpha = {alpha}  {reference_words(self.alpha)} (up: the reference follows the policy)")
        lines.append(
            f"  beta  = {beta}  strength of the preference signal (up: further from the reference); "
            f"{self._trainer_beta()} (up: closer to it)"
        )
        lines.append(f"  lam   = {lam}  {data_words(self.lam)} (up: more data from the current policy)")
        if self.rounds == 1:
            lines.append("  one round: the first policy is the answer")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def _trainer_beta(self) -> str:
        """What TRL calls beta; its IPO averages log-ratios over the tokens of a completion."""
        if self.tokens is not None and self.tokens != 1:
            return f"TRL's beta is {_number(self.tokens * _inverse(self.beta))} at {self.tokens:g} tokens a completion"
        if self.tokens == 1 or self.objective.trl_loss_type != "ipo":
            return f"TRL's beta is {_number(_inverse(self.beta))}"
        return f"TRL's beta is {_number(_inverse(self.beta))} times the tokens of a completion"

    def __str__(self) -> str:
        return self.describe()


def traced(x: Any) -> bool:
    return isinstance(x, Tracer)


def _inverse(x: Any) -> Any:
    return x if traced(x) else 1 / float(x)


def _number(x: Any) -> str:
    return "(traced)" if traced(x) else f"{float(x):.6g}"


def reference_words(alpha: Any) -> str:
    if traced(alpha) or 0 < float(alpha) < 1:
        return "the reference is part first, part current policy"
    return "the reference stays at the start" if float(alpha) == 0 else "the reference is the last checkpoint"


def data_words(lam: Any) -> str:
    if traced(lam) or 0 < float(lam) < 1:
        return "pairs are part fixed data, part sampled from the current policy"
    return "all pairs are fixed data" if float(lam) == 0 else "all pairs are sampled from the current policy"


def make_recipe(
    name: str,
    remark: str,
    objective: AbstractObjective | None,
    rounds: int | None = None,
    *,
    alpha: ScalarLike,
    beta: ScalarLike,
    lam: ScalarLike,
) -> Recipe:
    for check, value in ((check_alpha, alpha), (check_beta, beta), (check_lam, lam)):
        if not traced(value):
            check(value)
    return Recipe(alpha, beta, lam, IPO() if objective is None else objective, name, remark, rounds)


def custom(
    *, alpha: ScalarLike, beta: ScalarLike, lam: ScalarLike, objective: AbstractObjective | None = None
) -> Recipe:
    """Any point of the cube, for its description and translation.

    >>> import ipodyn
    >>> ipodyn.recipes.custom(alpha=0.9, beta=5.0, lam=0.8).name
    'custom'
    """
    return make_recipe("custom", "", objective, alpha=alpha, beta=beta, lam=lam)


def one_shot(*, beta: ScalarLike, objective: AbstractObjective | None = None) -> Recipe:
    """IPO or DPO from fixed data, once: the first round of (0, beta, 0). (Later rounds repeat it.)

    >>> import ipodyn, numpy as np
    >>> P = ipodyn.problems.bradley_terry(np.array([1.0, 0.0]))
    >>> first = ipodyn.recipes.one_shot(beta=2.0).loop(P)(np.array([0.5, 0.5]))
    >>> half = np.array([0.5, 0.5])
    >>> bool(np.allclose(first, ipodyn.IPO().optimum(P, half, half, beta=2.0)))
    True
    """
    return make_recipe("one-shot", "trained once on fixed data", objective, 1, alpha=0.0, beta=beta, lam=0.0)


def online(*, beta: ScalarLike, objective: AbstractObjective | None = None) -> Recipe:
    """The reference stays, data come from the current policy: (0, beta, 1). Online or iterative IPO/DPO.

    For IPO it is the logit best response to oneself: its fixed point is a logit equilibrium of precision beta.

    >>> import ipodyn
    >>> print(ipodyn.recipes.online(beta=10.0))
    online, IPO: the logit best response to the current policy
      alpha = 0  the reference stays at the start (up: the reference follows the policy)
      beta  = 10  strength of the preference signal (up: further from the reference); TRL's beta is 0.1 times
    the tokens of a completion (up: closer to it)
      lam   = 1  all pairs are sampled from the current policy (up: more data from the current policy)
    """
    remark = "the logit best response to the current policy"
    return make_recipe("online", remark, objective, alpha=0.0, beta=beta, lam=1.0)


def last_checkpoint(*, beta: ScalarLike, objective: AbstractObjective | None = None) -> Recipe:
    """The reference is the last checkpoint, the data are fixed: (1, beta, 0). The logits drift to a vertex.

    >>> import ipodyn
    >>> ipodyn.recipes.last_checkpoint(beta=2.0).point()
    {'alpha': 1.0, 'beta': 2.0, 'lam': 0.0}
    """
    remark = "nothing anchors it: the logits drift to a vertex"
    return make_recipe("last-checkpoint", remark, objective, alpha=1.0, beta=beta, lam=0.0)


def self_rewarding(*, beta: ScalarLike, objective: AbstractObjective | None = None) -> Recipe:
    """Reference and data are the last checkpoint: (1, beta, 1). Self-rewarding loops, SPPO, Hedge in self-play.

    No attractor inside the simplex: on a cycle it spirals outwards, with a winner it collapses onto it.

    >>> import ipodyn
    >>> ipodyn.recipes.self_rewarding(beta=2.0).point()
    {'alpha': 1.0, 'beta': 2.0, 'lam': 1.0}
    """
    remark = "nothing anchors it: no attractor inside the simplex"
    return make_recipe("self-rewarding", remark, objective, alpha=1.0, beta=beta, lam=1.0)


def _check_steps(eta: ScalarLike, tau: ScalarLike, *, strictly: bool) -> None:
    if traced(eta) or traced(tau):
        return
    check_positive(eta, "eta", "it is a step size above 0")
    check_positive(tau, "tau", "it is the KL coefficient, above 0")
    product = float(eta) * float(tau)  # pyright: ignore[reportArgumentType]
    if product > 1 or (strictly and product >= 1):
        raise ValueError(
            f"`eta * tau` is {product:g}: it must be {'below' if strictly else 'at most'} 1. Take smaller steps `eta`."
        )


def mirror_descent(*, eta: ScalarLike, tau: ScalarLike, objective: AbstractObjective | None = None) -> Recipe:
    r"""Online mirror descent with step `eta` towards the KL-regularised equilibrium: (1 - eta tau, eta, 1).

    - `eta` > 0: step. - `tau` > 0: KL coefficient of the game (TRL's `beta`), with eta tau at most 1.

    The fixed point does not depend on `eta`: it is the logit quantal response equilibrium of the game P with precision
    beta / (1 - alpha) = 1 / tau around pi_ref. Whether it is reached does.

    >>> import ipodyn
    >>> recipe = ipodyn.recipes.mirror_descent(eta=0.5, tau=0.2)
    >>> {name: round(value, 6) for name, value in recipe.point().items()}
    {'alpha': 0.9, 'beta': 0.5, 'lam': 1.0}
    """
    _check_steps(eta, tau, strictly=False)
    remark = "towards the KL-regularised equilibrium, whose precision is beta / (1 - alpha)"
    return make_recipe("mirror-descent", remark, objective, alpha=1 - eta * tau, beta=eta, lam=1.0)


def nash_md(*, eta: ScalarLike, tau: ScalarLike) -> Recipe:
    r"""Nash-MD, followed through its geometric mixture: the loop (1 - eta tau, (1 - eta tau) eta, 1).

    Nash-MD trains against a geometric mixture with the reference, where `MRS` mixes samplers linearly:
    \(\pi_{t+1} = \mathrm{softmax}(\log m_t + \eta P m_t)\), \(m_t \propto \pi_t^{1-\eta\tau}\pi_{ref}^{\eta\tau}\).
    The mixtures themselves do follow a loop of the cube: with a = 1 - eta tau,
    \(\log m_{t+1} = a \log m_t + (1 - a)\log\pi_{ref} + a\eta P m_t\) up to a constant. So rollouts, fixed points and
    stability of `nash_md(...).loop(P)` are those of Nash-MD, with its mixture for the policy; `nash_md_policy` gives
    the trained policy that belongs to a mixture. The mixture settles, if it does, on the logit equilibrium of precision
    1 / tau - eta: with a constant step Nash-MD stays that far from the regularised equilibrium.

    - `eta` > 0: step. - `tau` > 0: KL coefficient, with eta tau below 1. The score is IPO's, P m.

    Source: Munos et al., *Nash learning from human feedback*, arXiv 2312.00886, section on Nash-MD; the change
    of variables is derived here, by substitution.

    >>> import ipodyn
    >>> recipe = ipodyn.recipes.nash_md(eta=0.5, tau=0.2)
    >>> {name: round(value, 6) for name, value in recipe.point().items()}
    {'alpha': 0.9, 'beta': 0.45, 'lam': 1.0}
    """
    _check_steps(eta, tau, strictly=True)
    remark = "the policy of the loop is its geometric mixture with the reference, which it trains against"
    alpha = 1 - eta * tau
    return make_recipe("nash-md", remark, None, alpha=alpha, beta=alpha * eta, lam=1.0)


def nash_md_policy(loop: MRS, mixture: ArrayLike) -> PolicyBlock:
    r"""The policy that Nash-MD trains against `mixture`: \(\mathrm{softmax}(\log m + \eta P m)\).

    - `loop`: of `nash_md`, so that eta = beta / alpha. - `mixture`: shape (K,), a policy of that loop.

    Raising the policy to the power alpha and mixing in the reference gives the next mixture.

    >>> import ipodyn, jax.numpy as jnp
    >>> loop = ipodyn.recipes.nash_md(eta=0.5, tau=0.2).loop(ipodyn.problems.three_cycle(0.3))
    >>> mixture = jnp.array([0.5, 0.3, 0.2])
    >>> power = ipodyn.recipes.nash_md_policy(loop, mixture) ** loop.alpha  # the reference is uniform
    >>> bool(jnp.allclose(power / power.sum(), loop(mixture)))
    True
    """
    mixture = jnp.asarray(mixture, loop.P.dtype)
    eta = loop.beta / loop.alpha
    return softmax(log_policy(mixture) + eta[None] * matvec(loop.P, mixture))


# What the command line offers: with `beta` alone, and with a step and a KL coefficient.
BY_BETA: dict[str, Callable[..., Recipe]] = {
    "one-shot": one_shot,
    "online": online,
    "last-checkpoint": last_checkpoint,
    "self-rewarding": self_rewarding,
}
BY_STEP: dict[str, Callable[..., Recipe]] = {"mirror-descent": mirror_descent, "nash-md": nash_md}
