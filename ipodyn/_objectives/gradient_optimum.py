"""One-shot optima by gradient descent on the logits, the way a trainer finds them."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._numerics.results import RESULTS, choose, throw_unless_successful
from .._numerics.simplex import centred, log_policy, softmax
from .._numerics.types import (
    IntBlock,
    Logits,
    Policy,
    PolicyLike,
    Preference,
    PreferenceLike,
    Scalar,
    ScalarLike,
    as_float,
)
from .objective import AbstractObjective, Optimum

if TYPE_CHECKING:
    import optax


@functools.cache  # one object, so that one compilation serves every call
def default_optimiser() -> "optax.GradientTransformationExtraArgs":
    """L-BFGS with unit steps: the coordinates make the curvature at most 1, so no line search is needed."""
    import optax

    # A line search compares losses, whose rounding hides the last half of the digits; gradients keep them.
    return optax.chain(optax.scale_by_lbfgs(memory_size=20), optax.scale(-1.0))


def gradient_optimum(
    objective: AbstractObjective,
    P: PreferenceLike,
    mu: PolicyLike,
    pi_ref: PolicyLike,
    *,
    beta: ScalarLike = 1.0,
    optimiser: "optax.GradientTransformation | None" = None,
    logits0: Float[ArrayLike, " K"] | None = None,
    tolerance: float | None = None,
    max_steps: int = 2000,
    throw: bool = True,
) -> Optimum:
    r"""The minimiser of `objective.loss` by gradient descent on the logits, with any optax optimiser.

    For checking closed forms and for objectives that have none; `objective.optimum` is exact and cheaper. The
    optimiser sees y, with logits \(\log\pi_{ref} + \beta\, y / \sqrt{\mu}\), and the loss divided by twice its
    curvature in the margin: a change of coordinates that gives IPO curvature 1 for every beta and mu and DPO at most
    1, so that one learning rate serves all (`optax.sgd(1.0)` converges). A response with mu = 0 has no gradient and
    keeps its reference odds.

    - `optimiser`: an `optax.GradientTransformation`; None is L-BFGS. - `logits0`: shape (K,), where to start; None
      starts at the reference. - `tolerance`: stop when the residual falls below it; None is a few roundings of the
      dtype (at least 1e-12), times 1 + beta.
    - `max_steps`: gradient steps before `RESULTS.max_steps_reached`.

    The derivative in P, mu, pi_ref and beta (and in arrays of the objective) is that of the optimum, by the implicit
    function theorem, not that of the steps: it does not depend on the optimiser or where it starts. A response with
    mu = 0 has none in its mu: the optimum jumps as it is first sampled.

    Returns an `Optimum`: `.policy` (NaN where no optimum exists), `.result`, `.residual` (how far the logits are from
    stationarity: exactly their distance from the optimum for IPO), `.num_steps`.

    >>> import ipodyn, jax.numpy as jnp
    >>> P, half = jnp.array([[0.5, 0.75], [0.25, 0.5]]), jnp.full(2, 0.5)
    >>> optimum = ipodyn.gradient_optimum(ipodyn.IPO(), P, half, half, beta=4.0)
    >>> round(float(jnp.log(optimum.policy[0] / optimum.policy[1])), 6)
    1.0
    """
    P = as_float(P)
    mu, pi_ref, beta = as_float(mu, P), as_float(pi_ref, P), as_float(beta, P)
    eps = float(jnp.finfo(P.dtype).eps)
    bound = jnp.asarray(max(1e-12, 16 * eps), P.dtype) * (1 + beta) if tolerance is None else as_float(tolerance, P)
    start = jnp.zeros_like(mu)
    if logits0 is not None:
        start = jnp.where(pi_ref > 0, (as_float(logits0, P) - log_policy(pi_ref)) / beta * jnp.sqrt(mu), start)
    chosen = default_optimiser() if optimiser is None else optimiser
    optimum = _descend(objective, P, mu, pi_ref, beta, chosen, start, bound, max_steps)
    if not throw:
        return optimum
    return eqx.tree_at(lambda o: o.policy, optimum, throw_unless_successful(optimum.policy, optimum.result))


class _Descent(NamedTuple):
    """What the descent found: score-like coordinates r of the optimum, the last residual, and the steps."""

    score: Logits
    residual: Scalar
    num_steps: IntBlock


def _scale(mu: Policy) -> Policy:
    """1 / sqrt(mu), 0 where nothing is sampled."""
    return jnp.where(mu > 0, 1 / jnp.sqrt(jnp.where(mu > 0, mu, 1.0)), 0.0)


def _scaled_loss(
    objective: AbstractObjective, P: Preference, mu: Policy, pi_ref: Policy, beta: Scalar
) -> Callable[[Logits], Scalar]:
    """The loss at logits log pi_ref + beta r, over twice its curvature in the margin (in units of beta)."""
    curvature = beta**2 * jax.grad(jax.grad(objective.pair_losses))(jnp.zeros((), P.dtype), beta)
    log_ref = log_policy(pi_ref)
    return lambda score: objective.loss(log_ref + beta * score, P, mu, pi_ref, beta=beta) / (2 * curvature)


@eqx.filter_custom_jvp
def _descent(
    problem: tuple[AbstractObjective, Preference, Policy, Policy, Scalar],
    start: Logits,
    bound: Scalar,
    *,
    optimiser: "optax.GradientTransformation",
    max_steps: int,
) -> _Descent:
    import optax

    solver = optax.with_extra_args_support(optimiser)
    scale, beta, scaled = _scale(problem[2]), problem[4], _scaled_loss(*problem)

    def loss(y: Logits) -> Scalar:
        return scaled(scale * y)

    value_and_grad = jax.value_and_grad(loss)

    def residual(gradient: Logits) -> Scalar:
        return beta * jnp.max(jnp.abs(gradient * scale))

    def unfinished(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        _, _, _, gradient, count = carry
        size = residual(gradient)
        return (size > bound) & jnp.isfinite(size) & (count < max_steps)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        y, state, value, gradient, count = carry
        updates, state = solver.update(gradient, state, y, value=value, grad=gradient, value_fn=loss)
        y = optax.apply_updates(y, updates)
        value, gradient = value_and_grad(y)
        return y, state, value, gradient, count + 1

    value, gradient = value_and_grad(start)
    # optax promotes dtypes and ranks implicitly; a user who forbids that globally is not to be punished for it.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        carry = (start, solver.init(start), value, gradient, jnp.zeros((), jnp.int32))
        y, _, _, gradient, count = jax.lax.while_loop(unfinished, step, carry)
    return _Descent(centred(scale * y), residual(gradient), count)


@_descent.def_jvp
def _descent_jvp(primals, tangents, *, optimiser, max_steps):
    """Implicit function theorem on the stationarity of the loss, whatever the optimiser: H dr = -d(gradient)."""
    problem, start, bound = primals
    descent = _descent(problem, start, bound, optimiser=optimiser, max_steps=max_steps)
    _, P, mu, pi_ref, _ = problem

    def gradient(problem: Any) -> Logits:
        return jax.grad(_scaled_loss(*problem))(descent.score)

    _, pushed = eqx.filter_jvp(gradient, (problem,), (tangents[0],))
    # In the coordinates of the descent, where H has size 1; the gauge and responses without a gradient stand still.
    scale, moves = _scale(mu), (mu > 0) & (pi_ref > 0)
    gauge = jnp.where(moves, jnp.sqrt(mu), 0.0)
    H = jax.hessian(_scaled_loss(*problem))(descent.score) * scale[:, None] * scale[None]
    H = H + gauge[:, None] * gauge[None] + jnp.diag(jnp.where(moves, 0.0, 1.0).astype(P.dtype))
    change = -scale * jnp.linalg.solve(H, jnp.where(moves, scale * pushed, 0.0))
    return descent, _Descent(centred(change), jnp.zeros_like(descent.residual), None)  # pyright: ignore[reportArgumentType]


@eqx.filter_jit
def _descend(
    objective: AbstractObjective,
    P: Preference,
    mu: Policy,
    pi_ref: Policy,
    beta: Scalar,
    optimiser: "optax.GradientTransformation",
    start: Logits,
    bound: Scalar,
    max_steps: int,
) -> Optimum:
    start, bound = jax.lax.stop_gradient((start, bound))
    problem = (objective, P, mu, pi_ref, beta)
    descent = _descent(problem, start, bound, optimiser=optimiser, max_steps=max_steps)
    size = descent.residual
    policy = softmax(log_policy(pi_ref) + beta * descent.score)
    result = choose(size <= bound, RESULTS.successful, RESULTS.max_steps_reached)
    result = choose(jnp.isfinite(size), result, RESULTS.lost_finiteness)
    # Towards an optimum at infinity gradients vanish, too: only the objective can tell.
    exists = objective.solve_score(P, mu).result != RESULTS.diverging_scores
    result = choose(exists, result, RESULTS.diverging_scores)
    policy = jnp.where(exists & jnp.isfinite(size), policy, jnp.nan)
    return Optimum(policy, result, size, descent.num_steps)
