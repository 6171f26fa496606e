r"""Sequential design of a sampler for an unknown P: which pair to compare next, and when to stop.

For each pair the intervals are those of a mixture martingale. Under win probability p the ratio

    int_0^1 q^w (1 - q)^(n - w) dq / (p^w (1 - p)^(n - w)) = w! (n - w)! / (n + 1)! / (p^w (1 - p)^(n - w))

is a nonnegative martingale with mean 1, so that with probability 1 - a it stays below 1/a for all n together (Ville):
the p that keep it there hold the truth at every time at once, however the comparisons and the time to stop are chosen.
Everything here has the runs in front, (runs, K, K), on the host; only the linear programme is solved by JAX.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._numerics.matrix_game import solve_game
from .._preferences.structure import smith_mask
from .criteria import check_criterion, crossing
from .robust_sampler import robust_excess, robust_pairs, robust_sampler, subsets
from .sampler import Sampler

RULES = ("adaptive", "uniform")
FIRST = 2  # comparisons of each pair before anything is chosen
GROWTH = {"condorcet": 0.02, "order": 0.02, "smith": 0.01}  # what a decision serves for
CHUNK = 32  # programmes solved together
BISECTIONS = 40
GUARD = 1e-9  # margins below this certify nothing


def log_marginal(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """log of the integral of q^wins (1 - q)^losses over [0, 1]."""
    table = np.r_[0.0, np.cumsum(np.log(np.arange(1.0, wins.max(initial=0) + losses.max(initial=0) + 2)))]
    return table[wins] + table[losses] - table[wins + losses + 1]


def mixture_interval(wins: np.ndarray, losses: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """The p that the mixture martingale has not excluded at level `error`, lower and upper end, elementwise."""
    limit = log_marginal(wins, losses) + np.log(error)  # p is in while its log-likelihood is above this
    frequency = wins / np.maximum(wins + losses, 1)

    def inside(p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = np.where(wins > 0, wins * np.log(p), 0.0) + np.where(losses > 0, losses * np.log1p(-p), 0.0)
        return likelihood > limit

    ends = []
    for out in (0.0, 1.0):
        far, near = np.full(frequency.shape, out), frequency.copy()
        for _ in range(BISECTIONS):
            middle = 0.5 * (far + near)
            into = inside(middle)
            near, far = np.where(into, middle, near), np.where(into, far, middle)
        ends.append(far)  # the end that is outside: never too narrow
    return np.where(wins > 0, ends[0], 0.0), np.where(losses > 0, ends[1], 1.0)


class Evidence:
    """Counts and intervals of several runs: `wins`, `lower`, `upper`, each (runs, K, K)."""

    def __init__(self, runs: int, K: int, delta: float):
        self.wins = np.zeros((runs, K, K), dtype=np.int64)
        self.lower, self.upper = np.zeros((runs, K, K)), np.ones((runs, K, K))
        self.lower[:, range(K), range(K)] = self.upper[:, range(K), range(K)] = 0.5
        self.error = delta / (K * (K - 1) / 2)  # for each pair; all of them hold with probability 1 - delta

    def add(self, run: np.ndarray, i: np.ndarray, j: np.ndarray, won: np.ndarray, lost: np.ndarray) -> None:
        """`won` wins of i over j and `lost` losses in the runs `run`; a run may name several pairs, each once."""
        self.wins[run, i, j] += won
        self.wins[run, j, i] += lost
        lower, upper = mixture_interval(self.wins[run, i, j], self.wins[run, j, i], self.error)
        # All intervals so far hold together: keep their intersection. It is empty only outside the promise.
        self.lower[run, i, j] = np.maximum(self.lower[run, i, j], lower)
        self.upper[run, i, j] = np.minimum(self.upper[run, i, j], upper)
        self.lower[run, j, i], self.upper[run, j, i] = 1 - self.upper[run, i, j], 1 - self.lower[run, i, j]

    @property
    def estimate(self) -> np.ndarray:
        """Shares of wins, one pseudo-win for either side."""
        return (self.wins + 1) / (self.wins + self.wins.swapaxes(1, 2) + 2)


class Plan(NamedTuple):
    """The robust programme of each run: its value and strategies, and whether the criterion asks anything at all."""

    value: np.ndarray
    mu: np.ndarray
    weights: np.ndarray
    vacuous: np.ndarray
    conflict: np.ndarray  # (runs,) two possible truths ask for opposite orders of one pair: the value is not positive


@partial(jax.jit, static_argnames="criterion")
def _status(lower, upper, criterion):
    """Possible tops, whether no pair is named, whether some pair is named both ways."""

    def one(lower, upper):
        pairs, tops = robust_pairs(lower, upper, criterion)
        return tops, ~jnp.any(pairs), jnp.any(pairs & pairs.T)

    return jax.vmap(one)(lower, upper)


@partial(jax.jit, static_argnames="criterion")
def _solve(lower, upper, criterion):
    def one(lower, upper):
        K = lower.shape[0]
        coefficients, pairs = robust_excess(lower, upper, criterion)
        rows = (pairs | ~jnp.any(pairs)).ravel()
        zero = jnp.zeros((), lower.dtype)
        game = solve_game(coefficients.reshape(K * K, K), rows, jnp.ones(K, bool), zero)
        return game.lower, game.column, game.row.reshape(K, K)

    return jax.vmap(one)(lower, upper)


def make_plan(evidence: Evidence, active: np.ndarray, criterion: str) -> tuple[Plan, np.ndarray]:
    """The plan of the runs `active`, and which sets may be on top; programmes that cannot succeed are not solved."""
    lower, upper = evidence.lower[active], evidence.upper[active]
    runs, K, _ = lower.shape
    size = -(-runs // CHUNK) * CHUNK

    def padded(x: np.ndarray, size: int) -> np.ndarray:
        return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])

    parts = [
        [np.asarray(x) for x in _status(low, high, criterion)]
        for low, high in zip(
            np.split(padded(lower, size), size // CHUNK), np.split(padded(upper, size), size // CHUNK), strict=True
        )
    ]
    tops, vacuous, conflict = (np.concatenate(x)[:runs] for x in zip(*parts, strict=True))
    plan = Plan(np.full(runs, -1.0), np.full((runs, K), 1 / K), np.zeros((runs, K, K)), vacuous, conflict)
    todo = np.flatnonzero(~conflict & ~vacuous)
    for start in range(0, len(todo), CHUNK):
        these = todo[start : start + CHUNK]
        answer = _solve(padded(lower[these], CHUNK), padded(upper[these], CHUNK), criterion)
        for target, values in zip(plan[:3], answer, strict=True):
            target[these] = np.asarray(values)[: len(these)]
    return plan, tops


def _smith_of_estimate(estimate: np.ndarray) -> np.ndarray:
    """(runs, K) bool: the Smith set of the estimates."""
    return smith_mask(np.moveaxis(estimate > 0.5, 0, -1)).T


def _gain(evidence: Evidence, active: np.ndarray, plan: Plan) -> np.ndarray:
    """What one more comparison of a pair adds to the value of the robust programme, to first order, (runs, K, K).

    The value changes with a limit of P_ab by x_a mu_b + y_b mu_a, x and y the weights of a as upper and of b as lower
    response.
    """
    wins = evidence.wins[active]
    above, below = plan.weights.sum(axis=2), plan.weights.sum(axis=1)
    slope = above[:, :, None] * plan.mu[:, None, :] + below[:, None, :] * plan.mu[:, :, None]
    loss = slope * np.maximum(evidence.estimate[active] - evidence.lower[active], 0.0)
    return (loss + loss.swapaxes(1, 2)) / np.maximum(wins + wins.swapaxes(1, 2), 1)


def _rivals_hit(estimate: np.ndarray, tops: np.ndarray, criterion: str) -> np.ndarray:
    """How many rivals of the likeliest top are ruled out once i is known to lose to j, [run, i, j]."""
    K = estimate.shape[1]
    apart = ~np.eye(K, dtype=bool)
    if criterion == "order":
        return np.where(apart, 1.0, 0.0)
    sets = subsets(K, criterion)
    if criterion == "condorcet":
        best = np.where(apart, estimate, 1.0).min(axis=2).argmax(axis=1)[:, None] == np.arange(K)
    else:
        best = _smith_of_estimate(estimate)
    rivals = (tops & ~(sets[None] == best[:, None]).all(axis=2)).astype(float)
    hit = np.einsum("rs,sab->rab", rivals, crossing(sets).astype(float))
    if criterion == "smith":  # or by being beaten from within: j in the likeliest set, i in the rival but not there
        both = np.einsum("rs,sa,sb->rab", rivals, sets.astype(float), sets.astype(float))
        hit += 0.5 * (both * (best[:, None, :] & ~best[:, :, None]))
    return hit


def _left_to_compare(evidence: Evidence, active: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """About how many more comparisons of a pair take 1/2 out of its interval if the pair is `gap` from it.

    What the martingale at 1/2 still lacks, over its growth with each comparison, 2 gap^2 to lowest order.
    """
    wins = evidence.wins[active]
    losses = wins.swapaxes(1, 2)
    lacking = 0.5 - np.log(evidence.error) - log_marginal(wins, losses) - (wins + losses) * np.log(2.0)
    return np.maximum(lacking, 0.3) / (2 * gap**2)


def _ruling_out(evidence: Evidence, active: np.ndarray, tops: np.ndarray, criterion: str) -> np.ndarray:
    """Rivals ruled out by a pair for each comparison that this takes, (runs, K, K)."""
    wins, estimate = evidence.wins[active], evidence.estimate[active]
    trials = wins + wins.swapaxes(1, 2)
    hit = _rivals_hit(estimate, tops, criterion)
    settled = evidence.upper[active] < 0.5
    gap = np.maximum(np.abs(estimate - 0.5), 0.5 / np.sqrt(trials + 1.0))  # known to 1 / sqrt(n): take the better end
    if criterion == "smith":
        # Several pairs have to be settled, and a few early losses must not hide one of them: about by the probability
        # that i loses more often, and by what is still lacking.
        hit *= 0.5 + 0.5 * np.tanh(2.5 * (0.5 - estimate) * np.sqrt(trials + 1.0))
        left = _left_to_compare(evidence, active, gap)
    else:
        hit = hit * (estimate <= 0.5)
        # An interval leaves 1/2 after about 2 log(n / error) / (2 gap)^2 comparisons.
        left = np.maximum((np.log(1 / evidence.error) + 0.5 * np.log(trials + 1.0)) / (2 * gap**2) - trials, 1.0)
    worth = np.where(settled, 0.0, hit / left)
    return worth + worth.swapaxes(1, 2)


def _goes_on_ruling_out(estimate: np.ndarray, turn: int) -> np.ndarray:
    """(runs,): for Smith sets, whether to rule out further tops that do not contradict each other.

    Where all responses are likely to be the Smith set nothing else leads to the end; where one is, the sampler follows
    nearly by itself (five decisions in six, so that a wrong guess cannot hold up everything); in between the sampler is
    what is hard.
    """
    size = _smith_of_estimate(estimate).sum(axis=1)
    return (size == estimate.shape[1]) | ((size == 1) & (turn % 6 != 0))


def adaptive_pairs(
    evidence: Evidence, active: np.ndarray, plan: Plan, tops: np.ndarray, criterion: str, turn: int
) -> np.ndarray:
    """The next pair of each active run, (runs, 2), at the decision numbered `turn`.

    While possible truths ask for opposite things: the comparison that rules out most of the rivals of the likeliest top
    per comparison. After that: the one that adds most to the value of the robust programme. For Smith sets that value
    alone leads astray as long as many sets are possible: `_goes_on_ruling_out`.
    """
    rule_out, gain = _ruling_out(evidence, active, tops, criterion), _gain(evidence, active, plan)
    runs, K, _ = gain.shape
    ruling = plan.conflict
    if criterion == "smith":
        going_on = _goes_on_ruling_out(evidence.estimate[active], turn)
        ruling = ruling | (going_on & (rule_out.max(axis=(1, 2)) > 0))
    score = np.where(ruling[:, None, None], rule_out, gain)
    idle = score.max(axis=(1, 2)) <= 0  # nothing recommends itself: the widest open interval
    width = np.where(~np.eye(K, dtype=bool), evidence.upper[active] - evidence.lower[active], 0.0)
    score = np.where(idle[:, None, None], width, score)
    flat = np.where(np.triu(np.ones((K, K), bool), 1), score, -1.0).reshape(runs, -1).argmax(axis=1)
    return np.stack([flat // K, flat % K], axis=1)


class SequentialDesign:
    r"""Which pair to compare next until a sampler's ranking criterion is certified, for a P known by comparisons only.

    With probability at least 1 - `delta`, over all times together, the criterion holds for P whenever `certified` is
    true: `sampler` meets it for every matrix that the intervals leave. They are those of a Beta mixture martingale for
    each pair (uniform prior, `delta` shared equally), so that pairs may be chosen, and the procedure stopped, by what
    was seen.

    - `K`: responses, at least 2. - `criterion`: "condorcet", "smith" (K <= 10) or "order". - `delta`: in (0, 1).
    - `rule`: "adaptive", or "uniform", all pairs in turn, to compare with.

    `next_pair()` names a pair, `record(i, j, win)` takes the outcome (of any pair, asked for or not; a tie is given to
    either side by a fair coin), `certified` says whether to stop, `sampler` is the design. A decision serves for 2 % of
    the comparisons so far, 1 % for Smith sets. There is no promise to stop: a P with a tie on a pair that matters is
    never told from its neighbours.

    Why: for the true p of a pair the mixture's likelihood ratio is a nonnegative martingale of mean 1 under any choice
    of pairs made from the past, so by Ville's inequality it ever reaches 1/a with probability at most a; a is `delta`
    over the number of pairs, and a union bound adds them up. While all intervals hold, P is in the box, and a sampler
    whose margin is positive throughout the box meets the criterion for P.

    Source: mixture martingales after Robbins, Ann. Math. Statist. 41 (1970), and Ville's inequality; which pair next is
    a heuristic, on which the promise does not depend.

    >>> import ipodyn
    >>> design = ipodyn.SequentialDesign(3, "condorcet", delta=0.05)
    >>> i, j = design.next_pair()
    >>> design.record(i, j, win=True)
    >>> design.comparisons, design.certified
    (1, False)
    """

    def __init__(self, K: int, criterion: str = "condorcet", *, delta: float = 0.05, rule: str = "adaptive"):
        check_design(K, criterion, delta, rule)
        self.K, self.criterion, self.delta, self.rule = K, criterion, delta, rule
        self._evidence = Evidence(1, K, delta)
        self._order = np.argwhere(np.triu(np.ones((K, K), bool), 1))
        self._due = FIRST * len(self._order)
        self._certified, self._pair, self._turn = False, (0, 1), 0

    @property
    def comparisons(self) -> int:
        """How many were recorded."""
        return int(self._evidence.wins.sum())

    @property
    def wins(self) -> np.ndarray:
        """(K, K), how often each response beat each other one."""
        return self._evidence.wins[0].copy()

    @property
    def lower(self) -> np.ndarray:
        """(K, K), the lower limits of P."""
        return self._evidence.lower[0].copy()

    @property
    def upper(self) -> np.ndarray:
        """(K, K), the upper limits of P."""
        return self._evidence.upper[0].copy()

    def record(self, i: int, j: int, win: bool) -> None:
        """Takes the outcome of one comparison: whether i beat j."""
        if i == j or not (0 <= i < self.K and 0 <= j < self.K):
            raise ValueError(f"the pair is ({i}, {j}): give two different responses in 0..{self.K - 1}.")
        one = np.array([0])
        self._evidence.add(one, np.array([i]), np.array([j]), np.array([int(win)]), np.array([int(not win)]))
        if self.comparisons >= self._due:
            self._decide()

    def _decide(self) -> None:
        everyone = np.array([0])
        plan, tops = make_plan(self._evidence, everyone, self.criterion)
        self._certified = bool(self._certified or plan.vacuous[0] or plan.value[0] > GUARD)
        self._turn += 1
        pairs = adaptive_pairs(self._evidence, everyone, plan, tops, self.criterion, self._turn)
        self._pair = tuple(int(k) for k in pairs[0])
        self._due = self.comparisons + max(1, int(GROWTH[self.criterion] * self.comparisons))

    def next_pair(self) -> tuple[int, int]:
        """The pair to compare next."""
        count = self.comparisons
        if self.rule == "uniform" or count < FIRST * len(self._order):
            return tuple(int(k) for k in self._order[count % len(self._order)])  # pyright: ignore[reportReturnType]
        return self._pair  # pyright: ignore[reportReturnType]

    @property
    def certified(self) -> bool:
        """Whether the criterion is certified; once true it stays so."""
        return self._certified

    @property
    def sampler(self) -> Sampler:
        """`robust_sampler` on the present intervals: certified where its margin is positive, or where it is vacuous."""
        return robust_sampler(self.lower, self.upper, self.criterion, throw=False)  # pyright: ignore[reportArgumentType]


def check_design(K: int, criterion: str, delta: float, rule: str) -> None:
    """Raises `ValueError` for what no procedure can be made of."""
    if K < 2:
        raise ValueError(f"`K` is {K}: comparisons need at least 2 responses.")
    check_criterion(criterion)
    if not 0 < delta < 1:
        raise ValueError(f"`delta` is {delta}; it must be in (0, 1).")
    if rule not in RULES:
        raise ValueError(f"`rule` is {rule!r}; it must be one of {', '.join(RULES)}.")
    if criterion == "smith":
        subsets(K, criterion)
