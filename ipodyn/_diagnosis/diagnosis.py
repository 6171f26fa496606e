r"""The diagnosis of a loop over many prompts: which of them are at risk, why, and what to change."""

import dataclasses
import math

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from .._engine.blocks import ProgressCallback
from .._equilibria.critical import CODES
from .._numerics.checks import check_alpha, check_beta, check_lam, check_policy, check_preference
from .._numerics.types import PolicyLike
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .prompts import Facts, Prompts, Report, Shared
from .recommendation import Recommendation, calm, recommend, worst_first

CLOSE = 0.95  # a spectral radius from here on counts as close to the boundary
COLLAPSED = 0.05  # an entropy below this share of log K counts as a collapse, as in `RegimeThresholds`

# What a prompt can be; worst first. `unknown` had no fixed point that could be certified.
VERDICTS = ("unanchored", "unknown", "unstable", "close", "collapsed", "calm")
AT_RISK = ("unanchored", "unknown", "unstable", "close", "collapsed")


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
        rank = np.argmax(self.verdict[:, None] == np.array(VERDICTS), axis=1)
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


def _verdicts(facts: dict[str, np.ndarray], K: int, alpha: float) -> np.ndarray:
    radius = facts["radius"]
    collapsed = facts["entropy"] < COLLAPSED * math.log(K)
    verdict = np.select(
        [~facts["solved"], radius >= 1, radius >= CLOSE, collapsed],
        ["unknown", "unstable", "close", "collapsed"],
        "calm",
    )
    return np.full_like(verdict, "unanchored", dtype="<U10") if alpha == 1 else verdict.astype("<U10")


# What a prompt costs, in fixed points: measured, and the same to within a factor of two for other K and MRS-DPO.
COST = {"facts": 1.0, "critical": 60.0, "posterior": 64.0, "recommendation": 10.0}


class _Work:
    """How much of the whole is done, told as a number of prompts: each counts by what it costs."""

    def __init__(self, M: int, *, counted: bool, progress: ProgressCallback | None):
        self.M, self.progress = M, progress
        self.total = M * sum(cost for name, cost in COST.items() if counted or name != "posterior")
        self.done = 0.0

    def part(self, name: str, prompts: int) -> Report:
        """What to call with the share that is done of one kind of work on some prompts."""
        before = self.done

        def report(share: float) -> None:
            self.done = before + share * prompts * COST[name]
            if self.progress is not None:
                self.progress(min(int(self.M * self.done / self.total), self.M - 1), self.M)

        return report

    def add(self, name: str, prompts: int, share: float) -> None:
        self.part(name, prompts)(share)

    def finished(self) -> None:
        if self.progress is not None:
            self.progress(self.M, self.M)


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
    - `progress`: called with (prompts done, prompts in all), first with 0 once all is compiled; prompts count by the
      share of the work that is done. Memory beyond the input and the result does not grow with M.

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
    point = {"alpha": float(alpha), "beta": float(beta), "lam": float(lam)}
    M, K = matrices.shape[:2]
    objective = IPO() if objective is None else objective
    policies = {}
    for name, policy in (("pi_ref", pi_ref), ("pi_0", pi_0)):
        policy = np.full(K, 1 / K) if policy is None else check_policy(np.asarray(policy), K, name=name)
        policies[name] = policy.astype(matrices.dtype)

    if counts is not None:
        counts = checked_counts(counts, matrices)
    scalars = {name: np.asarray(value, matrices.dtype) for name, value in point.items()}
    prompts = Prompts.of(matrices, Shared(**scalars, **policies, objective=objective))
    prompts.compile()
    work = _Work(M, counted=counts is not None, progress=progress)
    work.add("facts", 0, 0.0)
    pieces = [
        _piece(prompts, np.arange(first, min(first + prompts.batch, M)), counts, seed, work)
        for first in range(0, M, prompts.batch)
    ]
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    del pieces
    facts = Facts(**{name: found[name].T for name in Facts._fields})
    order = worst_first(facts)
    order = order[~found.pop("hopeless")[order]]  # the others cost time at every setting, and are settled
    own = float(np.count_nonzero(calm(facts, K))) / M
    recommendation = recommend(prompts, order, own, **point)
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        hole = ~found["solved"]
        found[name] = np.where(hole[:, None] if name == "policy" else hole, np.nan, found[name])
    work.finished()
    return Diagnosis(
        alpha=point["alpha"],
        beta=point["beta"],
        lam=point["lam"],
        objective=type(objective).__name__,
        **found,
        verdict=_verdicts(found, K, point["alpha"]),
        counted=counts is not None,
        recommendation=recommendation,
    )


def checked_counts(counts: ArrayLike, matrices: np.ndarray) -> np.ndarray:
    numbers = np.asarray(counts, matrices.dtype)
    if numbers.shape not in (matrices.shape, matrices.shape[1:] if len(matrices) == 1 else ()):
        raise ValueError(f"`counts` has shape {numbers.shape}; it must be {matrices.shape}, as `P` is.")
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError("`counts` holds numbers below 0 or none at all; give numbers of comparisons, 0 or more.")
    return numbers.reshape(matrices.shape)


def _piece(
    prompts: Prompts, which: np.ndarray, counts: np.ndarray | None, seed: int, work: _Work
) -> dict[str, np.ndarray]:
    """All that is said of some prompts one by one, which stand first."""
    facts = prompts.facts(which)
    found = {name: np.asarray(x).T for name, x in (facts._asdict() | prompts.structure(which)._asdict()).items()}
    work.add("facts", which.size, 1.0)

    # Like next to like: blocks then end together. Those without finite scores at any setting are left out.
    order = worst_first(facts)
    order = order[~found["hopeless"][order]]
    critical = np.full((len(CODES), which.size), np.nan, prompts.P.dtype)
    critical[:, order] = prompts.critical(which[order], work.part("critical", which.size))
    found |= {f"critical_{name}": row for name, row in zip(CODES, critical, strict=True)}

    found |= dict.fromkeys(("stable_probability", "radius_low", "radius_high"), np.full(which.size, np.nan))
    if counts is not None:
        radius = np.sort(prompts.posterior_radius(which, counts, seed, work.part("posterior", which.size)), axis=1)
        found["stable_probability"] = np.mean(radius < 1, axis=1)
        found["radius_low"], found["radius_high"] = sorted_quantile(radius, 0.05), sorted_quantile(radius, 0.95)
    return found


def sorted_quantile(rows: np.ndarray, share: float) -> np.ndarray:
    """That of each sorted row, linear between neighbours, inf next to inf (which `np.quantile` makes NaN)."""
    below, rest = divmod(share * (rows.shape[1] - 1), 1)
    low, high = rows[:, int(below)], rows[:, int(below) + 1]
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(high), high, low + rest * (high - low))
