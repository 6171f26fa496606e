r"""Loops on finite samples: n labelled pairs a round, and statistics that phases do not blur."""

from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, PRNGKeyArray

from ._empirical import check_ridge, draw_wins_block, empirical_scores
from ._engine import Devices, ProgressCallback, block_size, run_points
from ._loop import MRS, Round, start_policy
from ._objectives import AbstractObjective, AbstractResponse
from ._preferences import check_positive
from ._results import RESULTS, choose
from ._rollout import Plan, run
from ._simplex import entropy
from ._sweep import _SINGLE, _batch, _check_values, sweep_start
from ._types import BoolBlock, PolicyBlock, PreferenceBlock, ScalarBlock, ScalarLike, VectorLike, as_float

Keys: TypeAlias = Key[Array, "*batch"]


class _Memory(NamedTuple):
    """What a sampled round hands to the next: its key, the last score (a warm start), whether all fits converged."""

    key: Keys
    score: PolicyBlock
    converged: BoolBlock


class SampledResponse(AbstractResponse):
    """`beta * r(W)`, with W the labels of `num_pairs` pairs drawn anew in every round."""

    objective: AbstractObjective
    P: PreferenceBlock
    beta: ScalarBlock
    lam: ScalarBlock
    pi_0: PolicyBlock
    num_pairs: ScalarBlock
    ridge: ScalarBlock | None
    key: Keys

    def init(self) -> _Memory:
        return _Memory(self.key, jnp.zeros_like(self.pi_0), jnp.ones(self.pi_0.shape[1:], bool))

    def __call__(self, policy: PolicyBlock, memory: _Memory) -> tuple[PolicyBlock, _Memory]:
        keys = memory.key.reshape(-1)
        following, now = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        mu = self.lam[None] * policy + (1 - self.lam)[None] * self.pi_0
        wins = draw_wins_block(now.reshape(memory.key.shape), self.P, mu, self.num_pairs)
        fit = empirical_scores(self.objective, wins, self.ridge, memory.score)
        after = _Memory(following.reshape(memory.key.shape), fit.score, memory.converged & fit.converged)
        return self.beta[None] * fit.score, after

    def result(self, memory: _Memory) -> RESULTS:
        return choose(memory.converged, RESULTS.successful, RESULTS.max_steps_reached)


class Spread(NamedTuple):
    """A statistic of many trajectories: its mean over them and the standard error of that mean."""

    mean: Array
    error: Array


class FiniteOrbit(eqx.Module):
    """What loops on finite samples did, one entry for each trajectory. Statistics run over rounds 1..num_steps.

    - `final` (..., K): the last policy. - `mean` (..., K): its average over the rounds.
    - `variance` (...): time-averaged variance about that mean, the sum over responses k of Var_t(pi_t[k]).
    - `window_variance` (...): the same over the last window of rounds.
    - `entropy` (...): of `final`, in nats. - `saved` (..., num_steps, K): all policies, if asked for, or None.
    - `result`: `RESULTS.max_steps_reached` if a ridge fit did not converge.

    Trajectories of an oscillating loop differ in phase: an average of policies over them is smooth while each of them
    turns. So average what is taken within a trajectory: `across("variance")`.
    """

    final: Array
    mean: Array
    variance: Array
    window_variance: Array
    entropy: Array
    saved: Any
    result: RESULTS

    def across(self, name: str) -> Spread:
        """Mean over trajectories (the last batch axis) of `variance`, `window_variance` or `entropy`, and its error."""
        if name not in ("variance", "window_variance", "entropy"):
            raise ValueError(f"{name!r} is no statistic of a trajectory; use variance, window_variance or entropy.")
        values = jnp.asarray(getattr(self, name))
        number = values.shape[-1] if values.ndim else 0
        if number < 2:
            raise ValueError(f"`{name}` has shape {values.shape}; a spread needs at least 2 trajectories.")
        return Spread(jnp.mean(values, axis=-1), jnp.std(values, axis=-1, ddof=1) / number**0.5)


def variance_of_average(paths: Float[ArrayLike, "trajectories rounds K"]) -> Array:
    """What averaging policies over trajectories leaves of their variance in time: phases cancel, so it may be nothing.

    - `paths`: shape (trajectories, rounds, K). For contrast with the mean of the variances of the trajectories.

    >>> import numpy as np
    >>> t = np.arange(40)
    >>> turning = np.stack([0.5 + 0.1 * np.cos(2 * np.pi * (t / 40 + phase / 8)) for phase in range(8)])
    >>> paths = np.stack([turning, 1 - turning], axis=-1)
    >>> float(variance_of_average(paths)) < 1e-12 < float(paths.var(axis=1).sum(axis=-1).mean())
    True
    """
    average = jnp.mean(as_float(paths), axis=0)
    return jnp.sum(jnp.var(average, axis=0))


def _finite_round(loop: MRS, key: Keys, num_pairs: ScalarBlock, ridge: ScalarBlock | None) -> Round:
    population = loop.round()
    response = SampledResponse(loop.objective, loop.P, loop.beta, loop.lam, loop.pi_0, num_pairs, ridge, key)
    return Round(population.alpha, population.drive, response)


def typed_key(key: PRNGKeyArray) -> Key[Array, ""]:
    """A key of the new kind also for one of the old kind, an array of two numbers."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _itself(policy: Array) -> Array:
    return policy


def _orbit(one_round: Round, policy0: PolicyBlock, plan: Plan, keep: bool) -> FiniteOrbit:
    progress, saved = run(one_round, one_round.start(policy0), plan, _itself if keep else None)
    return FiniteOrbit(
        progress.state.policy,
        progress.moments.mean,
        progress.moments.variance(),
        progress.window.variance(),
        entropy(progress.state.policy),
        saved if keep else None,
        one_round.response.result(progress.state.memory),
    )


@eqx.filter_jit
def _finite_rollout(
    loop: MRS, key: Keys, policy0: Array, num_pairs: Array, ridge: Array | None, plan: Plan, keep: bool
) -> FiniteOrbit:
    return _orbit(_finite_round(loop, key, num_pairs, ridge), policy0, plan, keep)


def finite_rollout(
    loop: MRS,
    key: PRNGKeyArray,
    policy0: VectorLike | None = None,
    *,
    num_pairs: ScalarLike,
    num_steps: int = 3000,
    window: int | None = None,
    ridge: ScalarLike | None = None,
    paths: bool = False,
) -> FiniteOrbit:
    r"""Run a loop in which every round trains on `num_pairs` labelled pairs: one trajectory of a Markov chain.

    \(\pi_{t+1} = \mathrm{softmax}(\alpha\log\pi_t + (1-\alpha)\log\pi_{ref} + \beta\, r(W_t))\), with \(W_t\) the
    labels of pairs drawn from \(\mu_t\otimes\mu_t\) (`draw_wins`) and r the `empirical_score` of the loop's objective.
    As `num_pairs` grows it tends to `rollout`.

    - `key`: a JAX random key; many trajectories by `jax.vmap` over keys, or `finite_sweep`.
    - `policy0`: shape (K,); None starts at `loop.pi_0`. - `num_pairs` > 0: may be traced.
    - `num_steps`, `window`: as in `rollout`. - `ridge`: required for DPO, see `empirical_score`.
    - `paths`: keep all policies in `.saved`.

    Returns a `FiniteOrbit`. Source: Chen et al., arXiv 2602.12180, finite-sample experiments.

    >>> import ipodyn, jax
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=1.0, lam=1.0)
    >>> orbit = ipodyn.finite_rollout(loop, jax.random.key(0), num_pairs=100, num_steps=20)
    >>> orbit.final.shape, bool(orbit.variance > 0)  # sampling noise keeps it moving
    ((3,), True)
    """
    check_ridge(loop.objective, ridge)
    policy = start_policy(loop, None if policy0 is None else jnp.asarray(policy0))
    plan = Plan.of(num_steps, window)
    ridge = None if ridge is None else as_float(ridge, loop.P)
    return _finite_rollout(loop, typed_key(key), policy, as_float(num_pairs, loop.P), ridge, plan, paths)


class _Static(NamedTuple):
    """What is compiled in."""

    plan: Plan
    objective: Any  # a frozen equinox module without arrays
    own: frozenset[str]
    trajectories: int
    paths: bool
    key_type: str


def _block(static: _Static, arguments: dict[str, Any], index: Int[Array, " S"]) -> FiniteOrbit:
    which, trajectory = index // static.trajectories, index % static.trajectories

    def of_block(name: str) -> Array:
        field = arguments[name]
        if name in static.own:
            return jnp.take(field, which, axis=-1, mode="clip")
        return jnp.broadcast_to(field[..., None], (*field.shape, index.size))

    names = ("P", "alpha", "beta", "lam", "pi_ref", "pi_0")
    loop = MRS(**{name: of_block(name) for name in names}, objective=static.objective)
    # A trajectory's key is a matter of its loop and number alone, not of how the work is cut.
    root = jax.random.wrap_key_data(arguments["key"], impl=static.key_type)
    keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(root, i), j))(which, trajectory)
    ridge = arguments["ridge"]
    ridge = None if ridge is None else jnp.broadcast_to(ridge, index.shape)
    num_pairs = jnp.take(arguments["num_pairs"], which, mode="clip")
    return _orbit(_finite_round(loop, keys, num_pairs, ridge), of_block("policy0"), static.plan, static.paths)


def finite_sweep(
    loops: MRS,
    key: PRNGKeyArray,
    policy0: Float[ArrayLike, "..."] | VectorLike | None = None,
    *,
    num_pairs: Float[ArrayLike, "..."] | Int[ArrayLike, "..."] | float | int,
    num_trajectories: int = 64,
    num_steps: int = 3000,
    window: int | None = None,
    ridge: ScalarLike | None = None,
    paths: bool = False,
    size: int | None = None,
    devices: Devices | None = None,
    progress: ProgressCallback | None = None,
) -> FiniteOrbit:
    r"""Many trajectories of many loops on finite samples, by the blocked engine, on all devices.

    - `loops`: an `MRS` as `sweep` takes it, with a leading axis N on some fields; or one loop without any.
    - `key`: a JAX random key; trajectory r of loop i is that of `fold_in(fold_in(key, i), r)` in `finite_rollout`,
      however the work is cut. - `policy0`: shape (N, K) or (K,); None: as in `sweep`.
    - `num_pairs`: pairs a round, one number or (N,). - `num_trajectories`: of each loop.
    - `ridge`, `num_steps`, `window`, `paths`: as in `finite_rollout`. - `size`, `devices`, `progress`: as in `sweep`.

    Returns a `FiniteOrbit` of NumPy arrays, (N, trajectories, ...), or (trajectories, ...) for one loop.

    >>> import ipodyn, jax, jax.numpy as jnp
    >>> P = ipodyn.problems.three_cycle(0.4)
    >>> loops = jax.vmap(lambda beta: ipodyn.MRS(P, alpha=0.5, beta=beta, lam=1.0))(jnp.array([1.0, 2.0]))
    >>> orbits = ipodyn.finite_sweep(loops, jax.random.key(0), num_pairs=100, num_trajectories=8, num_steps=20)
    >>> orbits.final.shape, orbits.variance.shape, orbits.saved is None  # `paths=True` keeps the policies
    ((2, 8, 3), (2, 8), True)
    """
    check_ridge(loops.objective, ridge)
    if isinstance(num_trajectories, bool) or not isinstance(num_trajectories, int) or num_trajectories < 1:
        raise ValueError(f"`num_trajectories` is {num_trajectories!r}; it must be a whole number, at least 1.")
    check_positive(np.asarray(num_pairs), "num_pairs", "it is the number of labelled pairs a round")
    single = loops.P.ndim == 2 and loops.alpha.ndim == 0 and loops.pi_ref.ndim == 1 and loops.pi_0.ndim == 1
    if single:
        loops = eqx.tree_at(lambda loop: loop.alpha, loops, loops.alpha[None])
    fields = {name: np.asarray(getattr(loops, name)) for name in _SINGLE if name != "policy0"}
    fields["policy0"] = sweep_start(fields) if policy0 is None else np.asarray(policy0, fields["P"].dtype)
    own, num_loops = _batch(fields)
    _check_values(fields)
    dtype = fields["P"].dtype
    pairs = np.asarray(num_pairs, dtype)
    if pairs.shape not in ((), (num_loops,)):
        raise ValueError(f"`num_pairs` has shape {pairs.shape}; give one number, or {(num_loops,)}.")
    arguments: dict[str, Any] = {
        name: jnp.asarray(np.moveaxis(x, 0, -1) if name in own else x) for name, x in fields.items()
    }
    arguments |= {
        "num_pairs": jnp.asarray(np.broadcast_to(pairs, (num_loops,))),
        "ridge": None if ridge is None else as_float(ridge, fields["P"]),
        "key": jax.random.key_data(typed_key(key)),
    }
    static = _Static(
        Plan.of(num_steps, window),
        loops.objective,
        own,
        num_trajectories,
        paths,
        str(jax.random.key_impl(typed_key(key))),
    )
    size = block_size(fields["P"].shape[-1], dtype.itemsize) if size is None else size
    orbit = run_points(
        _block, static, arguments, num_loops * num_trajectories, size=size, devices=devices, progress=progress
    )
    shape = (num_trajectories,) if single else (num_loops, num_trajectories)

    def leading(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, -1, 0).reshape((*shape, *x.shape[:-1]))

    return jax.tree.map(leading, orbit)
