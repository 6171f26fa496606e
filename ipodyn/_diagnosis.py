r"""The diagnosis of a loop over many prompts: which of them are at risk, why, and what to change."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ._critical import CODES, solve_critical
from ._engine import ProgressCallback
from ._fixed_point import solve_fixed_point
from ._hodge import hodge_split
from ._loop import MRS
from ._objectives import IPO, AbstractObjective
from ._preferences import check_alpha, check_beta, check_lam, check_policy, check_preference
from ._results import RESULTS
from ._simplex import entropy, kl_divergence
from ._stability import solve_stability
from ._structure import has_cycle, strong_order
from ._types import PolicyLike

BLOCK, SMALL_BLOCK = 256, 32  # prompts at once: two compiled shapes serve any number of them
CLOSE = 0.95  # a spectral radius from here on counts as close to the boundary
COLLAPSED = 0.05  # an entropy below this share of log K counts as a collapse, as in `RegimeThresholds`
POSTERIOR_DRAWS = 64
PRIOR = 0.5  # pseudo-wins of either side (Jeffreys)
RECOMMENDED = {"share": 0.95, "radius_max": 0.95, "entropy_share": 0.1}

# What a prompt can be; worst first. `unknown` had no fixed point that could be certified.
VERDICTS = ("unanchored", "unknown", "unstable", "close", "collapsed", "calm")
AT_RISK = ("unanchored", "unknown", "unstable", "close", "collapsed")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A setting at which 95 % of the prompts settle with margin, changing as little as possible.

    With margin is: a radius below 0.95 and an entropy of at least 10 % of log K.

    - `changed`: what differs from the user's setting, "nothing", "beta" or "alpha"; "infeasible" where neither alone
      suffices (then the numbers are the user's). - `share`: of the prompts that settle with margin there.
    """

    alpha: float
    beta: float
    lam: float
    changed: str
    share: float


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; arrays have one entry for each of M prompts, NaN where it does not exist.

    - `alpha`, `beta`, `lam`, `objective`: the loop that was asked about.
    - `cyclic`, `strongly_transitive` (M,): a majority cycle; an order that holds against every opponent.
    - `cyclic_share` (M,): share of the squared preferences that no score explains. - `triangle` (M, 3): the responses
      (rows of P) that carry most of it, in the order i, j, k in which they go round.
    - `curl` (M,): how far round it goes, at most 3/2. - `triangle_share` (M,): its share of the cyclic part.
    - `policy` (M, K), `entropy` (M,), `drift` (M,): the fixed point, its entropy and its KL from the reference, nats.
    - `residual`, `radius`, `omega`, `period` (M,): as `fixed_point` and `stability` say. - `solved` (M,).
    - `critical_beta`, `critical_alpha`, `critical_lam` (M,): where stability is lost, the other two as they are; inf
      where it never is.
    - `verdict` (M,): one of `VERDICTS`. - `counted`: whether the input had counts; if so, `stable_probability`,
      `radius_low`, `radius_high` (M,): share of posterior draws of P that are stable, 5 % and 95 % quantiles.
    - `recommendation`: a setting to use.
    """

    alpha: float
    beta: float
    lam: float
    objective: str
    cyclic: np.ndarray
    strongly_transitive: np.ndarray
    cyclic_share: np.ndarray
    triangle: np.ndarray
    curl: np.ndarray
    triangle_share: np.ndarray
    policy: np.ndarray
    entropy: np.ndarray
    drift: np.ndarray
    solved: np.ndarray
    residual: np.ndarray
    radius: np.ndarray
    omega: np.ndarray
    period: np.ndarray
    critical_beta: np.ndarray
    critical_alpha: np.ndarray
    critical_lam: np.ndarray
    verdict: np.ndarray
    counted: bool
    stable_probability: np.ndarray
    radius_low: np.ndarray
    radius_high: np.ndarray
    recommendation: Recommendation

    def __len__(self) -> int:
        return self.radius.size

    @property
    def stable(self) -> np.ndarray:
        """(M,) which fixed points are certified and stable."""
        return self.solved & (self.radius < 1)

    @property
    def at_risk(self) -> np.ndarray:
        """(M,) which prompts are in one of the states `AT_RISK`."""
        return np.isin(self.verdict, AT_RISK)

    @property
    def turning(self) -> np.ndarray:
        """(M,) which fixed points are unstable or close to it, and turn: those whose period matters."""
        return np.isin(self.verdict, ("unstable", "close")) & np.isfinite(self.period)

    def number(self, verdict: str) -> int:
        """How many prompts have a verdict."""
        return int((self.verdict == verdict).sum())

    def riskiest(self) -> np.ndarray:
        """Indices of the prompts at risk, the worst first: by verdict, then by radius, then by entropy."""
        rank = np.array([VERDICTS.index(verdict) for verdict in self.verdict])
        order = np.lexsort((self.entropy, -np.nan_to_num(self.radius), rank))
        return order[self.at_risk[order]]

    def safe_beta(self, share: float) -> float:
        """The largest beta up to which this share of the prompts stays stable, alpha and lam as they are."""
        return _edge(self.critical_beta, share)

    def safe_alpha(self, share: float) -> float:
        """The same for alpha."""
        return _edge(self.critical_alpha, share)

    def safe_lam(self, share: float) -> float:
        """The same for lam."""
        return _edge(self.critical_lam, share)


def _edge(critical: np.ndarray, share: float) -> float:
    """The value that only a share 1 - `share` of the prompts does not reach; unknown ones count as unsafe."""
    values = np.sort(np.nan_to_num(critical, nan=0.0, posinf=np.inf))
    return float(values[values.size - math.ceil(share * values.size - 1e-9)])


class _Facts(NamedTuple):
    """What is computed of one block, prompts last."""

    policy: Array | np.ndarray
    entropy: Array | np.ndarray
    drift: Array | np.ndarray
    solved: Array | np.ndarray
    hopeless: Array | np.ndarray
    residual: Array | np.ndarray
    radius: Array | np.ndarray
    omega: Array | np.ndarray
    period: Array | np.ndarray


@eqx.filter_jit
def _facts(loop: MRS) -> _Facts:
    star = solve_fixed_point(loop)
    found = solve_stability(loop, star.policy)
    spread = entropy(star.policy)
    drift = kl_divergence(star.policy, loop.pi_ref)
    solved = star.result == RESULTS.successful
    hopeless = star.result == RESULTS.diverging_scores  # at every alpha, beta and lam
    return _Facts(star.policy, spread, drift, solved, hopeless, star.residual, found.radius, found.omega, found.period)


@eqx.filter_jit
def _critical(loop: MRS, ends: Array) -> Array:
    """Critical alpha, beta and lam, (3, prompts): one search, because compiling it is what takes time."""
    M, kinds = loop.alpha.shape[0], len(CODES)
    loops = jax.tree.map(lambda x: jnp.concatenate([x] * kinds, axis=-1), loop)
    which = jnp.repeat(jnp.arange(kinds, dtype=jnp.int32), M)
    return solve_critical(loops, which, jnp.repeat(ends, M)).value.reshape(kinds, M)


class _Structure(NamedTuple):
    """Of one matrix."""

    cyclic: Array
    strongly_transitive: Array
    cyclic_share: Array
    triangle: Int[Array, " 3"]
    curl: Array
    triangle_share: Array


@jax.jit
@jax.vmap
def _structure(P: Array) -> _Structure:
    split = hodge_split(P)
    if split.curl.shape[0] == 0:  # two responses have no triangle
        none = jnp.zeros((), P.dtype)
        return _Structure(has_cycle(P), strong_order(P).holds, none, jnp.zeros(3, jnp.int32), none, none)
    worst = jnp.argmax(split.share)
    i, j, k = split.triangles[worst]
    forward = split.curl[worst] >= 0
    triangle = jnp.where(forward, jnp.stack([i, j, k]), jnp.stack([i, k, j]))
    return _Structure(
        has_cycle(P),
        strong_order(P).holds,
        split.cyclic_share,
        triangle,
        jnp.abs(split.curl[worst]),
        split.share[worst],
    )


def _blocks(M: int) -> list[tuple[np.ndarray, int]]:
    """Indices of every block, padded by its last one, and how many are real."""
    size = BLOCK if M > SMALL_BLOCK else SMALL_BLOCK
    starts = range(0, M, size)
    return [(np.minimum(np.arange(first, first + size), M - 1), min(size, M - first)) for first in starts]


def _verdicts(facts: dict[str, np.ndarray], K: int, alpha: float) -> np.ndarray:
    radius = facts["radius"]
    collapsed = facts["entropy"] < COLLAPSED * math.log(K)
    verdict = np.select(
        [~facts["solved"], radius >= 1, radius >= CLOSE, collapsed],
        ["unknown", "unstable", "close", "collapsed"],
        "calm",
    )
    return np.full_like(verdict, "unanchored", dtype="<U10") if alpha == 1 else verdict.astype("<U10")


class _Setting(NamedTuple):
    """A value of one parameter, and the share of the prompts that settle with margin there."""

    value: float
    share: float


def _lower(name: str, value: float, calm_share: Callable[[float], float]) -> _Setting | None:
    """The largest value below the user's at which enough prompts settle with margin: down a ladder, then bisection."""
    rungs = value * 2.0 ** (-np.arange(1, 81) / 8) if name == "beta" else np.linspace(value, 0, 33)[1:]
    above = value
    for rung in rungs:
        if calm_share(float(rung)) >= RECOMMENDED["share"]:
            break
        above = float(rung)
    else:
        return None
    below = float(rung)
    for _ in range(10):
        middle = (above + below) / 2
        above, below = (above, middle) if calm_share(middle) >= RECOMMENDED["share"] else (middle, below)
    return _Setting(below, calm_share(below))


def _recommend(
    calm_share: Callable[..., float], reachable: float, alpha: float, beta: float, lam: float
) -> Recommendation:
    """The user's own setting if it is safe with margin; else less beta; else less alpha.

    `reachable`: the share of the prompts that can settle at any setting.
    """
    own = calm_share()
    if own >= RECOMMENDED["share"]:
        return Recommendation(alpha, beta, lam, "nothing", own)
    if reachable < RECOMMENDED["share"]:
        return Recommendation(alpha, beta, lam, "infeasible", own)
    if alpha < 1 and (found := _lower("beta", beta, lambda beta: calm_share(beta=beta))) is not None:
        return Recommendation(alpha, found.value, lam, "beta", found.share)
    if alpha > 0 and (found := _lower("alpha", alpha, lambda alpha: calm_share(alpha=alpha))) is not None:
        return Recommendation(found.value, beta, lam, "alpha", found.share)
    return Recommendation(alpha, beta, lam, "infeasible", own)


def diagnose(
    P: Float[ArrayLike, "M K K"],
    *,
    alpha: float | int,
    beta: float | int,
    lam: float | int,
    objective: AbstractObjective | None = None,
    pi_ref: PolicyLike | None = None,
    pi_0: PolicyLike | None = None,
    counts: Float[ArrayLike, "M K K"] | Int[ArrayLike, "M K K"] | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Diagnosis:
    r"""Of every prompt: what its preferences are like, where the loop settles, how far that is from instability.

    - `P`: shape (M, K, K), one matrix for each prompt. - `alpha`, `beta`, `lam`, `objective`: the loop, as in `MRS`.
    - `pi_ref`, `pi_0`: shape (K,), for all prompts; None is uniform.
    - `counts`: shape (M, K, K), how many comparisons each entry rests on, or None. With them P is drawn again from its
      posterior, Beta(W + 1/2, L + 1/2) for each pair, to say how sure stability is. - `seed`: of these draws.
    - `progress`: called with (prompts done, prompts in all).

    Returns a `Diagnosis` of NumPy arrays; its numbers are those of `fixed_point`, `stability`, `critical_beta`,
    `critical_alpha`, `critical_lam` and `hodge_split`. A prompt whose fixed point could not be certified
    has `solved` False and the verdict "unknown"; with alpha = 1 nothing anchors the loop, and all are "unanchored". All
    of it is local: a stable fixed point may have a cycle beside it, which `stability_map` looks for.

    >>> import ipodyn, numpy as np
    >>> P = np.stack([ipodyn.problems.three_cycle(a) for a in (0.1, 0.4)])
    >>> found = ipodyn.diagnose(P, alpha=0.5, beta=5.0, lam=1.0)
    >>> found.verdict.tolist(), found.critical_beta.round(3).tolist(), found.recommendation.changed
    (['calm', 'unstable'], [15.0, 3.75], 'beta')
    """
    matrices = check_preference(P)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    for check, value in ((check_alpha, alpha), (check_beta, beta), (check_lam, lam)):
        check(value)
    alpha, beta, lam = float(alpha), float(beta), float(lam)
    M, K = matrices.shape[:2]
    objective = IPO() if objective is None else objective
    policies = {}
    for name, policy in (("pi_ref", pi_ref), ("pi_0", pi_0)):
        policies[name] = np.full(K, 1 / K) if policy is None else check_policy(np.asarray(policy), K, name=name)

    def loop_of(P: np.ndarray, **changed: float) -> MRS:
        size = len(P)
        point = {"alpha": alpha, "beta": beta, "lam": lam} | changed
        columns = {name: np.tile(policy[:, None], (1, size)) for name, policy in policies.items()}
        scalars = {name: np.full(size, value, P.dtype) for name, value in point.items()}
        return MRS(np.moveaxis(P, 0, -1), **scalars, **columns, objective=objective)

    def found_in(block: np.ndarray, real: int, **changed: float) -> _Facts:
        return _Facts(*(np.asarray(x)[..., :real] for x in _facts(loop_of(block, **changed))))

    structures, facts = [], []
    for indices, real in _blocks(M):
        structures.append([np.asarray(x)[:real] for x in _structure(jnp.asarray(matrices[indices]))])
        facts.append(found_in(matrices[indices], real))
    shape = dict(zip(_Structure._fields, (np.concatenate(x) for x in zip(*structures, strict=True)), strict=True))
    known = dict(zip(_Facts._fields, (np.concatenate(x, axis=-1) for x in zip(*facts, strict=True)), strict=True))
    known["policy"] = known["policy"].T
    hopeful = np.flatnonzero(~known.pop("hopeless"))  # the others cost time at every setting, and are settled

    largest = {"alpha": 0.9999, "beta": 1e4, "lam": 1.0}  # the order of `CODES`
    critical = {name: np.full(M, np.nan, matrices.dtype) for name in largest}
    for indices, real in _blocks(hopeful.size):
        loop = loop_of(matrices[hopeful[indices]])
        values = np.asarray(_critical(loop, jnp.asarray(list(largest.values()), loop.P.dtype)))
        for name, row in zip(largest, values, strict=True):
            critical[name][hopeful[indices[:real]]] = row[:real]
        if progress is not None:
            progress(M - hopeful.size + int(indices[real - 1]) + 1, M)
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        hole = ~known["solved"]
        known[name] = np.where(hole[:, None] if name == "policy" else hole, np.nan, known[name])

    floor = RECOMMENDED["entropy_share"] * math.log(K)

    def calm_share(**changed: float) -> float:
        calm = 0
        for indices, real in _blocks(hopeful.size):
            facts = found_in(matrices[hopeful[indices]], real, **changed)
            good = facts.solved & (facts.radius < RECOMMENDED["radius_max"]) & (facts.entropy >= floor)
            calm += int(good.sum())
        return calm / M

    nothing = np.full(M, np.nan)
    sure = (nothing, nothing, nothing)
    if counts is not None:
        sure = _posterior(loop_of, matrices, np.asarray(counts, matrices.dtype).reshape(matrices.shape), seed)
    return Diagnosis(
        alpha=alpha,
        beta=beta,
        lam=lam,
        objective=type(objective).__name__,
        **shape,
        **known,
        **{f"critical_{name}": values for name, values in critical.items()},
        verdict=_verdicts(known, K, alpha),
        counted=counts is not None,
        stable_probability=sure[0],
        radius_low=sure[1],
        radius_high=sure[2],
        recommendation=_recommend(calm_share, hopeful.size / M, alpha, beta, lam),
    )


def _posterior(
    loop_of: Callable[[np.ndarray], MRS], P: np.ndarray, counts: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of posterior draws that are stable, and the 5 % and 95 % quantiles of the radius, for every prompt."""
    # Drawn by NumPy: what `posterior_preferences` draws, without compiling JAX's sampler, which takes longer than all
    # that follows.
    M, K = P.shape[:2]
    i, j = np.triu_indices(K, 1)
    wins = counts * P + PRIOR
    upper = np.random.default_rng(seed).beta(wins[:, i, j], wins[:, j, i], (POSTERIOR_DRAWS, M, i.size))
    drawn = np.full((M * POSTERIOR_DRAWS, K, K), 0.5, P.dtype)
    flat = np.swapaxes(upper, 0, 1).reshape(-1, i.size).astype(P.dtype)
    drawn[:, i, j], drawn[:, j, i] = flat, 1 - flat
    radii = []
    for indices, real in _blocks(len(drawn)):
        facts = _facts(loop_of(drawn[indices]))
        radii.append(np.where(facts.solved, facts.radius, np.inf)[:real])
    radius = np.concatenate(radii).reshape(M, POSTERIOR_DRAWS)
    low, high = np.quantile(radius, (0.05, 0.95), axis=1)
    return np.mean(radius < 1, axis=1), low, high
