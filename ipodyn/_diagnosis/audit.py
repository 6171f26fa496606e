"""Audit of whole sets of preferences: how often each ranking axiom holds, by objective and by what is sampled."""

import datetime
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._equilibria.fixed_point import fixed_point
from .._loops.mrs import MRS
from .._numerics.checks import HostArray, check_beta, check_policy, check_preference
from .._numerics.results import RESULTS
from .._numerics.types import Policy, Preference, Scalar
from .._numerics.version import VERSION
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .._ranking.axioms import AXIOMS
from .._ranking.criteria import criterion_pairs
from .._ranking.sampler import design, excess

if TYPE_CHECKING:
    import xarray

CHUNK = 1024  # matrices at once: bounds memory, and one compiled shape serves a whole set
SKEW = 0.9  # of the mass, on one response

# What a sampler sees: the objective, P, pi_ref, beta. It returns mu (K,), or (axioms, K) with one for each axiom, and
# whether it exists.
Draw = Callable[[AbstractObjective, Preference, Policy, Scalar], tuple[Array, Bool[Array, ""]]]
OwnSampler = HostArray | Callable[[Preference], Policy]
YES = np.bool_(True)


def _uniform(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
    return jnp.full_like(pi_ref, 1 / pi_ref.size), jnp.asarray(YES)


def _reference(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
    return pi_ref, jnp.asarray(YES)


def _on_policy(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
    # Without scores there is no such policy, and the search for it would use all its steps: it gets ties instead.
    exists = objective.solve_score(P, jnp.full_like(pi_ref, 1 / pi_ref.size)).result == RESULTS.successful
    P = jnp.where(exists, P, 0.5)
    star = fixed_point(MRS(P, alpha=0.0, beta=beta, lam=1.0, pi_ref=pi_ref, objective=objective), throw=False)
    return star.policy, exists & (star.result == RESULTS.successful)


def _skewed(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
    top = jnp.arange(pi_ref.size) == jnp.argmax(jnp.mean(P, axis=1))
    return jnp.where(top, SKEW, 0.0) + (1 - SKEW) / pi_ref.size, jnp.asarray(YES)


def _designed(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
    pairs = jnp.stack([criterion_pairs(P, axiom) for axiom in AXIOMS])
    automatic, none = jnp.asarray(np.nan, P.dtype), jnp.zeros((), P.dtype)
    sampler = jax.vmap(lambda pairs: design(excess(P, P), pairs, automatic, none))(pairs)
    return sampler.mu, jnp.asarray(YES)


BUILT_IN: dict[str, Draw] = {
    "uniform": _uniform,
    "reference": _reference,
    "on-policy": _on_policy,
    "skewed": _skewed,
    "designed": _designed,
}


def _own(sampler: Callable[[Preference], Policy]) -> Draw:
    def draw(objective: AbstractObjective, P: Preference, pi_ref: Policy, beta: Scalar) -> Any:
        mu = jnp.asarray(sampler(P), P.dtype)
        if mu.shape != pi_ref.shape:
            raise ValueError(f"a sampler returned shape {mu.shape} for `P` of shape {P.shape}: it must return (K,).")
        return mu, jnp.all(jnp.isfinite(mu))

    return draw


@functools.lru_cache(maxsize=32)
def _drawn(draw: Draw) -> Callable[..., tuple[Array, Array]]:
    """mu (M, axioms or 1, K) and whether it exists (M,) for a block of matrices, compiled."""

    @eqx.filter_jit
    def drawn(
        objective: AbstractObjective, P: Float[Array, "M K K"], pi_ref: Float[Array, "M K"], beta: Scalar
    ) -> tuple[Array, Array]:
        mu, exists = jax.vmap(lambda P, pi_ref: draw(objective, P, pi_ref, beta))(P, pi_ref)
        return mu if mu.ndim == 3 else mu[:, None], exists

    return drawn


@eqx.filter_jit
def _judge(
    objective: AbstractObjective, P: Float[Array, "M K K"], mu: Float[Array, "M samplers K"]
) -> tuple[Array, Array, Array]:
    """(margin, applies, whether scores exist), each (M, axioms), of a block of matrices."""

    def one(P: Preference, mu: Float[Array, "samplers K"]) -> tuple[Array, Array, Array]:
        solution = objective.solve_score(jnp.broadcast_to(P[:, :, None], (*P.shape, mu.shape[0])), mu.T)
        scores = jnp.broadcast_to(solution.score, (mu.shape[1], len(AXIOMS)))
        axioms = [axiom(P, scores[:, place]) for place, axiom in enumerate(AXIOMS.values())]
        defined = jnp.broadcast_to(solution.result == RESULTS.successful, len(AXIOMS))
        return jnp.stack([x.margin for x in axioms]), jnp.stack([x.applies for x in axioms]), defined

    return jax.vmap(one)(P, mu)


def audit(
    P: HostArray,
    *,
    samplers: Sequence[str] | Mapping[str, str | OwnSampler] | None = None,
    objectives: Sequence[AbstractObjective] | None = None,
    pi_ref: HostArray | None = None,
    beta: float = 1.0,
    atol: float | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> "xarray.Dataset":
    r"""For which fraction of a set of matrices each ranking axiom holds, by objective and by sampling distribution.

    What is ranked are the scores \(r(\mu)\), which are the policy's ranking where the reference is uniform.

    - `P`: shape (M, K, K) or (K, K), such as `preferences.P`; its dtype is that of the computation.
    - `samplers`: names of built-in ones, or a mapping from names to built-in names, arrays (K,) or (M, K), or functions
      from P (K, K) to mu (K,) that JAX can trace. None is all built-in ones ("reference" only with `pi_ref`):
      "uniform"; "reference", `pi_ref`; "on-policy", the policy that is the optimum for data it samples itself
      (`fixed_point` with alpha = 0, lam = 1); "skewed", nine tenths on the response that uniform sampling ranks first,
      the rest spread evenly; "designed", what `design_sampler` finds for the axiom in question.
    - `objectives`: None is `IPO()` and `DPO()`. They rank alike on the same data, so that they differ only where the
      sampler depends on the objective ("on-policy") or DPO has no finite scores.
    - `pi_ref`: shape (K,) or (M, K), None is uniform. - `beta` > 0. Both matter to "on-policy" alone.
    - `atol`: how far above 0 a margin must be, so that ties of scores do not count as kept by rounding; None is
      eps^0.6 of the dtype. - `attributes`: added to the dataset's.

    Returns an `xarray.Dataset`: `fraction` (objective, sampler, axiom), of the `number` of matrices to which the axiom
    applies and for which scores exist, NaN where there is none; and for every matrix `holds`, `margin` (NaN where
    scores do not exist, +inf where the axiom does not apply), `applies` (matrix, axiom), `defined`. For a table:
    `audit(P)["fraction"].to_series().unstack()`. Raises `ValueError` for wrong inputs, `ImportError` without xarray.

    >>> import ipodyn, jax.numpy as jnp
    >>> P = jnp.stack([ipodyn.problems.overshadowed_winner(3, eps) for eps in (0.05, 0.2)])  # the limit is 1/8
    >>> data = ipodyn.audit(P, samplers=["uniform"], objectives=[ipodyn.IPO()])
    >>> data.fraction.sel(axiom="condorcet").values.tolist()
    [[0.5]]
    """
    try:
        xarray = importlib.import_module("xarray")
    except ImportError as error:
        raise ImportError("`ipodyn.audit` needs xarray: pip install 'ipodyn[io]'") from error
    array = check_preference(P)
    array = array[None] if array.ndim == 2 else array
    M, K = array.shape[:2]
    check_beta(beta)
    draws, fixed = _resolve(samplers, M, K, array.dtype, with_reference=pi_ref is not None)
    reference = (
        np.full((M, K), 1 / K, array.dtype) if pi_ref is None else _policies(pi_ref, "pi_ref", M, K, array.dtype)
    )
    policies = {name: fixed.get(name, reference) for name in draws}
    judged = [IPO(), DPO()] if objectives is None else list(objectives)
    names = [type(objective).__name__ for objective in judged]
    if len(set(names)) < len(names):
        raise ValueError(f"`objectives` are {', '.join(names)}: give each once.")
    limit = float(jnp.finfo(array.dtype).eps) ** 0.6 if atol is None else atol
    margin, applies, defined = _judged(array, judged, draws, policies, jnp.asarray(beta, array.dtype))
    return xarray.Dataset(
        _variables(margin, applies, defined, limit),
        {"matrix": np.arange(M), "objective": names, "sampler": list(draws), "axiom": list(AXIOMS)},
        {
            "title": "audit of ranking axioms",
            "ipodyn_version": VERSION,
            "jax_version": jax.__version__,
            "dtype": str(array.dtype),
            "beta": float(beta),
            "atol": limit,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **(attributes or {}),
        },
    )


def _judged(
    array: np.ndarray,
    objectives: list[AbstractObjective],
    draws: dict[str, Draw],
    policies: dict[str, np.ndarray],
    beta: Scalar,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(margin, applies, defined), (M, objectives, samplers, axioms) and (M, axioms), in blocks of matrices."""
    M = len(array)
    shape = (M, len(objectives), len(draws), len(AXIOMS))
    margin, defined, applies = np.empty(shape, array.dtype), np.empty(shape, bool), np.empty((M, len(AXIOMS)), bool)
    size = min(CHUNK, M)
    for start in range(0, M, size):
        stop = min(start + size, M)
        rows = np.minimum(np.arange(start, start + size), M - 1)  # the last block repeats the last matrix
        block = jnp.asarray(array[rows])
        for which, (name, draw) in enumerate(draws.items()):
            given = jnp.asarray(policies[name][rows])
            mu, exists = _drawn(draw)(objectives[0], block, given, beta)
            for place, objective in enumerate(objectives):
                if place > 0 and draw is _on_policy:  # the one that depends on the objective
                    mu, exists = _drawn(draw)(objective, block, given, beta)
                parts = (np.asarray(x)[: stop - start] for x in _judge(objective, block, mu))
                margin[start:stop, place, which], applies[start:stop], scored = parts
                defined[start:stop, place, which] = scored & np.asarray(exists)[: stop - start, None]
    return margin, applies, defined


def _variables(margin: np.ndarray, applies: np.ndarray, defined: np.ndarray, atol: float) -> dict[str, tuple]:
    """The variables of the dataset, each with its dimensions, words and unit."""
    margin = np.where(defined, margin, np.nan)
    holds = margin > atol
    counted = applies[:, None, None] & defined
    number = counted.sum(axis=0)
    with np.errstate(invalid="ignore"):
        fraction = np.where(number > 0, (holds & counted).sum(axis=0) / np.maximum(number, 1), np.nan)
    each = ("matrix", "objective", "sampler", "axiom")
    described = {
        "fraction": (each[1:], fraction, "fraction of matrices for which the axiom holds", "1"),
        "number": (each[1:], number, "matrices to which the axiom applies and for which scores exist", "1"),
        "holds": (each, holds, "whether the axiom holds, vacuously where it does not apply", "1"),
        "margin": (each, margin, "least score difference over the pairs that the axiom names", "score"),
        "applies": (("matrix", "axiom"), applies, "whether the premise of the axiom is met", "1"),
        "defined": (each, defined, "whether the sampler and the scores exist", "1"),
    }
    return {
        key: (dims, data, {"long_name": text, "units": units}) for key, (dims, data, text, units) in described.items()
    }


def _resolve(
    samplers: Sequence[str] | Mapping[str, str | OwnSampler] | None, M: int, K: int, dtype: Any, *, with_reference: bool
) -> tuple[dict[str, Draw], dict[str, np.ndarray]]:
    """How to draw for each name, and the arrays of those that are given as such."""
    if samplers is None:
        samplers = [name for name in BUILT_IN if with_reference or name != "reference"]
    if not isinstance(samplers, Mapping):
        samplers = {name: name for name in samplers}
    draws: dict[str, Draw] = {}
    fixed: dict[str, np.ndarray] = {}
    for name, sampler in samplers.items():
        if isinstance(sampler, str):
            if sampler not in BUILT_IN:
                raise ValueError(f"there is no sampler {sampler!r}: give one of {', '.join(BUILT_IN)}, or an array.")
            draws[name] = BUILT_IN[sampler]
        elif callable(sampler):
            draws[name] = _own(sampler)
        else:
            draws[name] = _reference
            fixed[name] = _policies(sampler, f"samplers[{name!r}]", M, K, dtype)
    if not draws:
        raise ValueError("`samplers` is empty: give at least one.")
    return draws, fixed


def _policies(policies: HostArray, name: str, M: int, K: int, dtype: Any) -> np.ndarray:
    """(M, K), each a distribution."""
    array = np.asarray(policies)
    if array.shape not in ((K,), (M, K)):
        raise ValueError(f"`{name}` has shape {array.shape}: give ({K},), or ({M}, {K}) for the {M} matrices.")
    for row in array.reshape(-1, K):
        check_policy(row, K, name=name)
    return np.broadcast_to(array.astype(dtype), (M, K))
