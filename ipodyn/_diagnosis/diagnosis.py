r"""The diagnosis of a loop over many prompts: which of them are at risk, why, and what to change."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from .._engine.blocks import ProgressCallback
from .._equilibria.critical import CODES
from .._numerics.checks import check_alpha, check_beta, check_lam, check_policy, check_preference
from .._numerics.deprecation import moved_attributes, renamed_attribute, renamed_keywords
from .._numerics.randomness import RandomKey
from .._numerics.results import RESULTS
from .._numerics.types import PolicyLike
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .parts import EquilibriumSummary, Flags, Forecast, PreferenceSummary, StabilityLimits, StabilityUncertainty
from .prompts import Prompts, Report, Shared
from .recommendation import Recommendation, has_margin, recommend, worst_first
from .verdicts import VERDICTS, verdicts


@moved_attributes(
    "0.3",
    preferences=("cyclic", "strongly_transitive", "triangle", "curl"),
    equilibrium=("policy", "entropy", "drift", "solved", "residual", "radius", "omega", "period", "stable"),
    uncertainty=("counted", "stable_probability", "radius_low", "radius_high"),
)
class Diagnosis(eqx.Module):
    """What `diagnose` found, in NumPy arrays with one entry for each of M prompts.

    - `alpha`, `beta`, `lam`, `objective`: the loop that was asked about.
    - `preferences`: what the prompts are like: `.cyclic`, `.strongly_transitive`, `.cyclic_fraction`, `.triangle`,
      `.curl`, `.triangle_fraction`.
    - `equilibrium`: where the loop stands still: `.policy`, `.entropy`, `.drift`, `.result`, `.residual`, `.radius`,
      `.omega`, `.period`; `.grade` ("stable", "close", "unstable" or "unresolved"), and as independent flags `.solved`,
      `.stable`, `.close`, `.unstable`, `.collapses`.
    - `certified` (M,): which prompts are proved to settle from every start (`convergence_certificate`; IPO).
    - `limits`: critical values `.alpha`, `.beta`, `.lam`, `.result`; `.safe("beta", 0.95)`, up to which 95 % settle.
    - `forecast`: the first rounds from the first model: `.rounds`, `.entropy`, `.drift`, `.top`, `.moved`.
    - `scale`: what TRL's beta is over beta: beta times TRL's beta; None where that needs a number of tokens.
    - `uncertainty`: `.counted`, whether the input had counts; `.stable_probability`, `.radius_low`, `.radius_high`.
    - `recommendation`: a setting to use, a `Recommendation`.
    """

    alpha: float
    beta: float
    lam: float
    objective: str = eqx.field(static=True)
    preferences: PreferenceSummary
    equilibrium: EquilibriumSummary
    certified: Flags
    limits: StabilityLimits
    uncertainty: StabilityUncertainty
    recommendation: Recommendation
    forecast: Forecast
    scale: float | None = eqx.field(static=True, default=None)

    def __len__(self) -> int:
        return self.equilibrium.radius.size

    @property
    def at_risk(self) -> np.ndarray:
        """(M,) which prompts are not stable with margin, or collapse."""
        return (self.equilibrium.grade != "stable") | self.equilibrium.collapses

    @property
    def turning(self) -> np.ndarray:
        """(M,) which fixed points are unstable or close to it, and turn: those whose period matters."""
        return self.equilibrium.turning

    def riskiest(self) -> np.ndarray:
        """Indices of the prompts at risk, the worst first: by verdict, then by radius, then by entropy."""
        rank = np.argmax(self._verdicts()[:, None] == np.array(VERDICTS), axis=1)
        order = np.lexsort((self.equilibrium.entropy, -np.nan_to_num(self.equilibrium.radius), rank))
        return order[self.at_risk[order]]

    cyclic_share = renamed_attribute("cyclic_share", "preferences.cyclic_fraction", "0.3")
    triangle_share = renamed_attribute("triangle_share", "preferences.triangle_fraction", "0.3")
    critical_beta = renamed_attribute("critical_beta", "limits.beta", "0.3")
    critical_alpha = renamed_attribute("critical_alpha", "limits.alpha", "0.3")
    critical_lam = renamed_attribute("critical_lam", "limits.lam", "0.3")
    safe_beta = renamed_attribute("safe_beta", "limits.safe", "0.3", value=lambda self: self._safe("beta"))
    safe_alpha = renamed_attribute("safe_alpha", "limits.safe", "0.3", value=lambda self: self._safe("alpha"))
    safe_lam = renamed_attribute("safe_lam", "limits.safe", "0.3", value=lambda self: self._safe("lam"))
    verdict = renamed_attribute("verdict", "equilibrium.grade", "0.3", value=lambda self: self._verdicts())
    number = renamed_attribute("number", "equilibrium.grade", "0.3", value=lambda self: self._number)

    def _safe(self, name: str) -> Callable[[float], float]:
        return functools.partial(self.limits.safe, name)

    def _verdicts(self) -> np.ndarray:
        return verdicts(self.equilibrium, self.alpha)

    def _number(self, verdict: str) -> int:
        return int((self._verdicts() == verdict).sum())


# What a prompt costs, in fixed points: measured, and the same to within a factor of two for other K and MRS-DPO.
COST = {"facts": 1.0, "critical": 60.0, "posterior": 64.0, "recommendation": 10.0}


class _Work:
    """How much of the whole is done, told as a number of prompts: each counts by what it costs."""

    def __init__(self, M: int, *, counted: bool, progress: ProgressCallback | None):
        self.M, self.progress = M, progress
        self.total = M * sum(cost for name, cost in COST.items() if counted or name != "posterior")
        self.done = 0.0

    def part(self, name: str, prompts: int) -> Report:
        """What to call with the fraction that is done of one kind of work on some prompts."""
        before = self.done

        def report(fraction: float) -> None:
            self.done = before + fraction * prompts * COST[name]
            if self.progress is not None:
                self.progress(min(int(self.M * self.done / self.total), self.M - 1), self.M)

        return report

    def add(self, name: str, prompts: int, fraction: float) -> None:
        self.part(name, prompts)(fraction)

    def finished(self) -> None:
        if self.progress is not None:
            self.progress(self.M, self.M)


@renamed_keywords("0.3", seed="key")
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
    key: RandomKey = 0,
    tokens: float | int | None = None,
    rounds: int = 10,
    progress: ProgressCallback | None = None,
) -> Diagnosis:
    r"""Of every prompt: what its preferences are like, where the loop settles, how far that is from instability.

    - `P`: shape (M, K, K), one matrix for each prompt. - `alpha`, `beta`, `lam`, `objective`: the loop, as in `MRS`.
    - `pi_ref`, `pi_0`: shape (K,), for all prompts; None is uniform.
    - `counts`: shape (M, K, K), how many comparisons each entry rests on, or None. With them P is drawn again from its
      posterior, Beta(W + 1/2, L + 1/2) for each pair, to say how certain stability is.
      - `key`: of these draws, a JAX random key, or a number to make one from.
    - `tokens`: length of a completion, for losses that trainers average over tokens (TRL's IPO): what is recommended is
      then a round number of TRL's beta, tokens / beta; DPO needs none. - `rounds`: of the forecast.
    - `progress`: called with (prompts done, prompts in all), first with 0 once all is compiled; prompts count by the
      fraction of the work that is done. Memory beyond the input and the result does not grow with M.

    Returns a `Diagnosis` of NumPy arrays; its numbers are those of `fixed_point`, `stability`, `critical_beta`,
    `critical_alpha`, `critical_lam` and `hodge_split`. A prompt whose fixed point could not be certified
    is "unresolved" (`.equilibrium.grade`), and so are all with alpha = 1, where nothing anchors the loop. All of it is
    local: a stable fixed point may have a cycle beside it, which `stability_map` looks for.

    >>> import ipodyn, numpy as np
    >>> P = np.stack([ipodyn.problems.three_cycle(a) for a in (0.1, 0.4)])
    >>> diagnosis = ipodyn.diagnose(P, alpha=0.5, beta=5.0, lam=1.0)
    >>> diagnosis.equilibrium.grade.tolist(), diagnosis.limits.beta.round(3).tolist(), diagnosis.recommendation.changed
    (['stable', 'unstable'], [15.0, 3.75], 'beta')
    """
    matrices = check_preference(P)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    for check, value in ((check_alpha, alpha), (check_beta, beta), (check_lam, lam)):
        check(value)
    point = {"alpha": float(alpha), "beta": float(beta), "lam": float(lam)}
    M, K = matrices.shape[:2]
    objective = IPO() if objective is None else objective
    policies = {name: _shared_policy(name, policy, matrices) for name, policy in (("pi_ref", pi_ref), ("pi_0", pi_0))}
    if counts is not None:
        counts = checked_counts(counts, matrices)
    scalars = {name: np.asarray(value, matrices.dtype) for name, value in point.items()}
    prompts = Prompts.of(matrices, Shared(**scalars, **policies, objective=objective))
    prompts.compile()
    work = _Work(M, counted=counts is not None, progress=progress)
    work.add("facts", 0, 0.0)
    pieces = [
        _piece(prompts, np.arange(first, min(first + prompts.batch, M)), counts, key, work)
        for first in range(0, M, prompts.batch)
    ]
    preferences, equilibrium, certified, limits, uncertainty = jax.tree.map(
        lambda *parts: np.concatenate(parts), *pieces
    )
    del pieces
    order = worst_first(equilibrium)
    order = order[~equilibrium.diverging[order]]  # the others cost time at every setting, and are settled
    own = float(np.count_nonzero(has_margin(equilibrium, K))) / M
    scale = float(tokens) if tokens is not None else None if objective.is_linear else 1.0
    recommendation = recommend(prompts, order, own, scale, **point)
    forecast = prompts.forecast(forecast_rounds(rounds))
    work.finished()
    return Diagnosis(
        **point,
        objective=type(objective).__name__,
        preferences=preferences,
        equilibrium=equilibrium,
        certified=certified,
        limits=limits,
        uncertainty=uncertainty,
        recommendation=recommendation,
        forecast=forecast,
        scale=scale,
    )


def _shared_policy(name: str, policy: PolicyLike | None, matrices: np.ndarray) -> np.ndarray:
    K = matrices.shape[-1]
    chosen = np.full(K, 1 / K) if policy is None else check_policy(np.asarray(policy), K, name=name)
    return chosen.astype(matrices.dtype)


def forecast_rounds(last: int) -> tuple[int, ...]:
    """1, 2, 3, 5, 10, 20, ... and the last round."""
    if last < 1:
        raise ValueError(f"`rounds` is {last}; forecast at least 1.")
    steps = {1, 2, 3, 5} | {10 * 2**n for n in range(last.bit_length())} | {last}
    return tuple(sorted(step for step in steps if step <= last))


def checked_counts(counts: ArrayLike, matrices: np.ndarray) -> np.ndarray:
    numbers = np.asarray(counts, matrices.dtype)
    if numbers.shape not in (matrices.shape, matrices.shape[1:] if len(matrices) == 1 else ()):
        raise ValueError(f"`counts` has shape {numbers.shape}; it must be {matrices.shape}, as `P` is.")
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError("`counts` holds numbers below 0 or none at all; give numbers of comparisons, 0 or more.")
    return numbers.reshape(matrices.shape)


def _piece(
    prompts: Prompts, which: np.ndarray, counts: np.ndarray | None, key: RandomKey, work: _Work
) -> tuple[PreferenceSummary, EquilibriumSummary, np.ndarray, StabilityLimits, StabilityUncertainty]:
    """All that is said of some prompts one by one, which stand first."""
    preferences, equilibrium = jax.tree.map(np.transpose, (prompts.structure(which), prompts.facts(which)))
    certified = prompts.certified(which) & equilibrium.solved
    work.add("facts", which.size, 1.0)

    # Like next to like: blocks then end together. Those without finite scores at any setting are left out.
    order = worst_first(equilibrium)
    order = order[~equilibrium.diverging[order]]

    def everywhere(known: np.ndarray, otherwise: ArrayLike) -> np.ndarray:
        whole = np.full((len(CODES), which.size), otherwise, known.dtype)
        whole[:, order] = known
        return whole

    critical, results = prompts.critical(which[order], work.part("critical", which.size))
    result = jax.tree.map(lambda *codes: everywhere(*codes).T, results, RESULTS.diverging_scores)
    limits = StabilityLimits(**dict(zip(CODES, everywhere(critical, np.nan), strict=True)), result=result)
    if counts is None:
        unknown = np.full(which.size, np.nan)
        return preferences, equilibrium, certified, limits, StabilityUncertainty(False, unknown, unknown, unknown)
    radius = np.sort(prompts.posterior_radius(which, counts, key, work.part("posterior", which.size)), axis=1)
    low, high = sorted_quantile(radius, 0.05), sorted_quantile(radius, 0.95)
    return (
        preferences,
        equilibrium,
        certified,
        limits,
        StabilityUncertainty(True, np.mean(radius < 1, axis=1), low, high),
    )


def sorted_quantile(rows: np.ndarray, fraction: float) -> np.ndarray:
    """That of each sorted row, linear between neighbours, inf next to inf (which `np.quantile` makes NaN)."""
    below, rest = divmod(fraction * (rows.shape[1] - 1), 1)
    low, high = rows[:, int(below)], rows[:, int(below) + 1]
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(high), high, low + rest * (high - low))
