"""Many runs of the sequential design together, on known matrices that label the comparisons."""

import equinox as eqx
import numpy as np

from .._numerics.deprecation import renamed_keywords
from .._numerics.randomness import RandomKey, host_generator
from .sequential import FIRST, GROWTH, GUARD, Evidence, Plan, adaptive_pairs, check_design, make_plan


class SequentialRuns(eqx.Module):
    """What `sequential_runs` measured, run by run.

    - `comparisons` (runs,): until certified, or `max_comparisons` or a little more. - `certified` (runs,).
    - `vacuous` (runs,): certified that the criterion asks nothing. - `mu` (runs, K): the certified sampler.
    - `covered` (runs,): whether P was inside the intervals at all times at which it was looked at.

    A run that is given up is no failure of a solver: `certified` says it, and there is no `result`.
    """

    comparisons: np.ndarray
    certified: np.ndarray
    vacuous: np.ndarray
    mu: np.ndarray
    covered: np.ndarray


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output function: a bijection of 64 bits that scatters neighbours (Steele, Lea, Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _wins(streams: np.ndarray, first: np.ndarray, number: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Wins among the labels `first`, ..., `first + number - 1` of each of the streams, where one is a win with `p`."""
    which = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number) + first[which]
    bits = _mixed(streams[which] + (place + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    won = (bits >> np.uint64(11)) * 2.0**-53 < p[which]
    return np.bincount(which, weights=won, minlength=len(number)).astype(np.int64)


@renamed_keywords("0.3", rng="key")
def sequential_runs(
    P: np.ndarray,
    criterion: str = "condorcet",
    *,
    key: RandomKey | np.random.Generator,
    delta: float = 0.05,
    rule: str = "adaptive",
    max_comparisons: int = 100_000,
) -> SequentialRuns:
    """Runs `SequentialDesign` once on each matrix, labels drawn from it, many at a time.

    - `P`: shape (runs, K, K), the truth of each run. - `key`: a JAX random key, or a number to make one from. In two
      calls with one key the k-th comparison of a pair has the same outcome, whatever the rule: rules can be compared
      run by run.
    - `criterion`, `delta`, `rule`: as there.
    - `max_comparisons`: where a run that is not certified is given up.

    Decisions are as in `SequentialDesign`, after as many comparisons; all labels until the next one are
    looked at together, and "uniform" spreads them over all pairs in turn.

    >>> import ipodyn, numpy as np
    >>> P = np.broadcast_to(ipodyn.problems.two_responses(0.9), (4, 2, 2))
    >>> runs = ipodyn.sequential_runs(P, key=0)
    >>> bool(runs.certified.all()), bool((runs.comparisons < 100).all())
    (True, True)
    """
    P = np.asarray(P, float)
    runs, K, _ = P.shape
    check_design(K, criterion, delta, rule)
    order = np.argwhere(np.triu(np.ones((K, K), bool), 1))
    evidence = Evidence(runs, K, delta)
    certified, vacuous, covered = (np.zeros(runs, bool) for _ in range(3))
    covered |= True
    streams = host_generator(key).integers(2**64, size=(runs, K, K), dtype=np.uint64)  # above the diagonal: one a pair
    comparisons, mu = np.zeros(runs, np.int64), np.full((runs, K), np.nan)

    def compare(active: np.ndarray, pairs: np.ndarray, number: np.ndarray) -> None:
        """`number` (active, pairs) comparisons of each of the pairs (active, pairs, 2)."""
        run = np.broadcast_to(active[:, None], number.shape).ravel()
        i, j, number = pairs[..., 0].ravel(), pairs[..., 1].ravel(), number.ravel()
        before = evidence.wins[run, i, j] + evidence.wins[run, j, i]
        won = _wins(streams[run, i, j], before, number, P[run, i, j])
        evidence.add(run, i, j, won, number - won)
        np.add.at(comparisons, run, number)
        within = (evidence.lower[run, i, j] <= P[run, i, j]) & (P[run, i, j] <= evidence.upper[run, i, j])
        np.logical_and.at(covered, run, within)

    everyone = np.arange(runs)
    every_pair = np.broadcast_to(order[None], (runs, len(order), 2))
    compare(everyone, every_pair, np.full((runs, len(order)), FIRST))
    turn = 0  # of the uniform rule: how many comparisons lie behind, modulo the pairs
    decision = 0
    while True:
        decision += 1
        active = np.flatnonzero(~certified & (comparisons < max_comparisons))
        if not len(active):
            return SequentialRuns(comparisons, certified, vacuous, mu, covered)
        plan, tops = make_plan(evidence, active, criterion)
        done = plan.vacuous | (plan.value > GUARD)
        certified[active[done]], vacuous[active[done]], mu[active[done]] = True, plan.vacuous[done], plan.mu[done]
        left = active[~done]
        if not len(left):
            continue
        block = np.maximum(1, (GROWTH[criterion] * comparisons[left]).astype(int))
        if rule == "uniform":
            # All runs that are left have seen equally many comparisons.
            step = int(block[0])
            number = np.full(len(order), step // len(order))
            extra = (turn + np.arange(step % len(order))) % len(order)
            number[extra] += 1
            turn = (turn + step) % len(order)
            compare(left, every_pair[: len(left)], np.broadcast_to(number, (len(left), len(order))))
        else:
            keep = Plan(*(x[~done] for x in plan))
            pairs = adaptive_pairs(evidence, left, keep, tops[~done], criterion, decision)
            compare(left, pairs[:, None], block[:, None])
