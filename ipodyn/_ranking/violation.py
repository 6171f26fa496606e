"""The preferences inside given bounds that violate an axiom the most: structure by enumeration, entries by bounds."""

import itertools
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics.checks import HostArray, check_policy, check_positive
from .._numerics.deprecation import leading_argument, renamed_keywords
from .._numerics.linear import transitive_closure
from .._numerics.types import PolicyBlock
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from .axioms import AXIOMS
from .criteria import Criterion, check_criterion
from .witness import Witness

LARGEST = {"condorcet": 1000, "smith": 10, "order": 7}  # responses that enumeration can take
ASCENT_STEPS = 100


class _Structure:
    """Bounds (K, K) within which the premise is met, the pair (i, j) that IPO then gets most wrong, and by how much."""

    def __init__(self, low: np.ndarray, up: np.ndarray, pair: tuple[int, int], mu: np.ndarray):
        self.low, self.up, self.pair = low, up, pair
        i, j = pair
        P = np.clip(0.5, low, up)
        P[i], P[j] = low[i], up[j]
        P[i, j] = low[i, j]
        P[:, i], P[:, j] = 1 - P[i], 1 - P[j]
        P[j, i] = 1 - P[i, j]
        P[[i, j], [i, j]] = 0.5
        self.P = P
        self.margin = float((P[i] - P[j]) @ mu)


@leading_argument("0.3", "objective", AbstractObjective, IPO)
@renamed_keywords("0.3", axiom="criterion")
def most_violating(
    objective: AbstractObjective,
    mu: HostArray,
    lower: HostArray,
    upper: HostArray,
    criterion: Criterion = "condorcet",
    *,
    least_win: float = 1e-3,
) -> Witness:
    r"""The preferences between `lower` and `upper` on which data sampled from `mu` violate an axiom the most.

    minimise \(r_i(\mu) - r_j(\mu)\) over P and over the pairs (i, j) that the axiom names, subject to its premise (a
    Condorcet winner i; a Smith set with i inside and j outside; P transitive with i over j).

    For IPO the difference is linear in P and the premise, once its structure is chosen (who beats whom, where it
    matters), is a bound on entries: the answer is exact. A `margin` > 0 then certifies that the axiom holds for every
    P in the set whose decisive wins are at least `least_win`. For other objectives it is a local answer: projected
    gradient ascent from the IPO answer of every pair, certified in that the margin is evaluated on the P returned. DPO
    ranks as IPO does (`witness`), so that IPO's answer also decides whether DPO can be made to violate the axiom.

    - `objective`: `IPO()` or `DPO()`. - `mu`: shape (K,), K >= 2.
    - `lower`, `upper`: shape (K, K), bounds on P[i, j], such as P - 0.1 and P + 0.1 cut to [0, 1], or the ends of
      confidence intervals; what one says of P[j, i] is applied to P[i, j] too. The diagonal is 1/2 whatever they say.
      For DPO they must exclude 0 and 1.
    - `criterion`: "condorcet", "smith" (at most 10 responses) or "order" (at most 7, every order with ties is tried).
    - `least_win`: in (0, 1/2), how far above 1/2 the premise's wins must be: it stands for "strictly".

    Returns a `Witness`, solved on the host (values, not traced). Raises `ValueError` where the bounds are wrong or
    leave no P that meets the premise.

    >>> import ipodyn, numpy as np
    >>> P = np.asarray(ipodyn.problems.bradley_terry(np.array([0.6, 0.0, -0.6])))
    >>> for radius in (0.05, 0.2):
    ...     case = ipodyn.most_violating(ipodyn.IPO(), [0.2, 0.2, 0.6], P - radius, P + radius)
    ...     print(round(float(case.margin), 3), case.pair.tolist())
    0.052 [0, 1]
    -0.28 [1, 0]
    """
    check_criterion(criterion)
    mu = check_policy(mu, name="mu").astype(np.float64)
    K = mu.size
    low, up = _bounds(lower, upper, K)
    check_positive(least_win, "least_win")
    if LARGEST[criterion] < K:
        raise ValueError(
            f"`mu` has {K} responses: for {criterion!r} every structure is tried, so give {LARGEST[criterion]} at most."
        )
    best: dict[tuple[int, int], _Structure] = {}
    for case in {"condorcet": _condorcet, "smith": _smith, "order": _order}[criterion](mu, low, up, least_win):
        if case.pair not in best or case.margin < best[case.pair].margin:
            best[case.pair] = case
    if not best:
        raise ValueError(
            f"no P between `lower` and `upper` meets the premise of {criterion!r} with wins of {least_win} or more: "
            "widen the bounds, or lower `least_win`."
        )
    structures = sorted(best.values(), key=lambda structure: structure.margin)
    if objective.is_linear:
        chosen = structures[0]
        P, (i, j) = chosen.P, chosen.pair
    else:
        if low.min() <= 0:
            raise ValueError(
                "`lower` and `upper` admit 0 and 1, where scores can be infinite: cut them to, say, [0.01, 0.99]."
            )
        stack = [jnp.asarray(np.stack([getattr(s, name) for s in structures])) for name in ("P", "low", "up", "pair")]
        improved, scores = _ascend(objective, jnp.asarray(mu), *stack)
        pairs = np.asarray(stack[3])
        rows = np.arange(len(pairs))
        margins = np.asarray(scores)[rows, pairs[:, 0]] - np.asarray(scores)[rows, pairs[:, 1]]
        place = int(np.argmin(margins))
        P, (i, j) = np.asarray(improved[place]), structures[place].pair
    # The solver works in the precision of the host; what is reported is what the objective makes of this P.
    P, mu = jnp.asarray(P), jnp.asarray(mu)
    scores = objective.score(P, mu)
    return Witness(P, scores, AXIOMS[criterion](P, scores).margin, jnp.asarray([i, j]), jnp.asarray(least_win, P.dtype))


def _bounds(lower: HostArray, upper: HostArray, K: int) -> tuple[np.ndarray, np.ndarray]:
    low, up = np.array(lower, np.float64), np.array(upper, np.float64)
    for name, array in (("lower", low), ("upper", up)):
        if array.shape != (K, K):
            raise ValueError(f"`{name}` has shape {array.shape} for {K} responses: give (K, K).")
    low = np.clip(np.maximum(low, 1 - up.T), 0, 1)
    up = 1 - low.T
    # Bounds that meet in a point may cross by the rounding that `check_preference` grants P[i, j] + P[j, i] = 1.
    crossed = (low > up) & (low - up <= 1e-6)
    low, up = (np.where(crossed, (low + up) / 2, bound) for bound in (low, up))
    np.fill_diagonal(low, 0.5)
    np.fill_diagonal(up, 0.5)
    bad = ~(low <= up)
    if bad.any():
        i, j = (int(index) for index in np.argwhere(bad)[0])
        raise ValueError(
            f"the bounds leave nothing for P[{i}, {j}]: it is at least {low[i, j]:.6g}, at most {up[i, j]:.6g}."
        )
    return low, up


def _win(low: np.ndarray, up: np.ndarray, wins: np.ndarray, least_win: float) -> tuple[np.ndarray, np.ndarray]:
    """The bounds with P[i, j] at least 1/2 + least_win where `wins`."""
    low = np.where(wins, np.maximum(low, 0.5 + least_win), low)
    return low, np.where(wins.T, np.minimum(up, 0.5 - least_win), up)


def _condorcet(mu: np.ndarray, low: np.ndarray, up: np.ndarray, least_win: float) -> Iterator[_Structure]:
    K = mu.size
    for i in range(K):
        wins = np.zeros((K, K), bool)
        wins[i] = np.arange(K) != i
        if (up[wins] >= 0.5 + least_win).all():
            tight = _win(low, up, wins, least_win)
            for j in range(K):
                if j != i:
                    yield _Structure(*tight, (i, j), mu)


def _smith(mu: np.ndarray, low: np.ndarray, up: np.ndarray, least_win: float) -> Iterator[_Structure]:
    """Every dominant set S, every i in it, and every set D of members that i beats or ties with.

    Members reach one another by wins or ties exactly if S is the smallest dominant set. Pairs of members other than i
    have no weight: they tie where the bounds let them, which serves every path.
    """
    K = mu.size
    may = up >= 0.5
    for members in itertools.product([False, True], repeat=K):
        inside = np.array(members)
        across = inside[:, None] & ~inside[None, :]
        if inside.all() or not inside.any() or (up[across] < 0.5 + least_win).any():
            continue
        tight_low, tight_up = _win(low, up, across, least_win)
        for i in np.flatnonzero(inside):
            others = [k for k in np.flatnonzero(inside) if k != i]
            rest = inside & (np.arange(K) != i)
            chain = transitive_closure(may & rest[:, None] & rest[None, :]) | np.eye(K, dtype=bool)
            # Enough that i reaches all, and all reach i.
            for chosen in itertools.product([False, True], repeat=len(others)):
                D = np.zeros(K, bool)
                D[others] = chosen
                least, most = tight_low.copy(), tight_up.copy()
                least[i, D] = np.maximum(least[i, D], 0.5)
                if (least[i] > most[i]).any():
                    continue
                out = rest & (least[i] >= 0.5)
                back = rest & (least[i] <= 0.5)
                if not (chain[out].any(axis=0)[rest].all() and chain[:, back].any(axis=1)[rest].all()):
                    continue
                middle = np.clip(0.5, least, most)
                least = np.where(rest[:, None] & rest[None, :], middle, least)
                least[i, rest] = least[i, rest]
                most = np.where(rest[:, None] & rest[None, :], middle, most)
                most[i, rest] = least[i, rest]  # held: a higher value could cut the way back
                least[rest, i], most[:, i] = 1 - most[i, rest], 1 - least[i]
                for j in np.flatnonzero(~inside):
                    yield _Structure(least, most, (int(i), int(j)), mu)


def _weak_orders(K: int) -> np.ndarray:
    """(n, K) ranks, 0 best, of every order with ties."""
    ranks = np.array(list(itertools.product(range(K), repeat=K)), dtype=np.int8)
    used = (ranks[:, :, None] == np.arange(K)).any(axis=1)
    # Ranks in use must be 0, 1, ..., so that each order comes once.
    return ranks[(used[:, :-1] >= used[:, 1:]).all(axis=1)]


def _order(mu: np.ndarray, low: np.ndarray, up: np.ndarray, least_win: float) -> Iterator[_Structure]:
    K = mu.size
    ranks = _weak_orders(K)
    above = ranks[:, :, None] < ranks[:, None, :]
    tied = (ranks[:, :, None] == ranks[:, None, :]) & ~np.eye(K, dtype=bool)
    fits = np.where(above, up >= 0.5 + least_win, True) & np.where(tied, (low <= 0.5) & (up >= 0.5), True)
    keep = fits.all(axis=(1, 2))
    above, tied = above[keep], tied[keep]
    least = np.where(above, np.maximum(low, 0.5 + least_win), np.where(tied, 0.5, low))
    most = np.where(above.swapaxes(1, 2), np.minimum(up, 0.5 - least_win), np.where(tied, 0.5, up))
    gain, loss = least @ mu, most @ mu
    for i, j in itertools.permutations(range(K), 2):
        # Both sums count the pair (i, j) once with its lowest P[i, j], as they should.
        margin = np.where(above[:, i, j], gain[:, i] - loss[:, j], np.inf)
        place = int(np.argmin(margin)) if margin.size else -1
        if place >= 0 and margin[place] < np.inf:
            yield _Structure(least[place], most[place], (i, j), mu)


@eqx.filter_jit
def _ascend(
    objective: AbstractObjective,
    mu: PolicyBlock,
    P: Float[Array, "n K K"],
    low: Float[Array, "n K K"],
    up: Float[Array, "n K K"],
    pair: Array,
) -> tuple[Float[Array, "n K K"], Float[Array, "n K"]]:
    """Projected gradient ascent of r_j - r_i inside the bounds, keeping the best P seen; with its scores."""

    def one(P: Array, low: Array, up: Array, pair: Array) -> tuple[Array, Array]:
        def excess(P: Array) -> tuple[Array, Array]:
            score = objective.solve_score(P, mu).score
            return score[pair[1]] - score[pair[0]], score

        def step(carry: tuple[Array, Array, Array], length: Array) -> tuple[tuple[Array, Array, Array], None]:
            P, best, value = carry
            (now, _), slope = jax.value_and_grad(excess, has_aux=True)(P)
            better: Bool[Array, ""] = now > value
            best, value = jnp.where(better, P, best), jnp.where(better, now, value)
            slope = slope - slope.T  # P[i, j] up, P[j, i] down
            size = jnp.max(jnp.abs(slope))
            move = jnp.clip(P + length * slope / jnp.where(size > 0, size, 1.0), low, up)
            return (0.5 * (move + 1 - move.T), best, value), None

        lengths = jnp.asarray(0.5 * 0.9 ** np.arange(ASCENT_STEPS), P.dtype)
        (_, best, _), _ = jax.lax.scan(step, (P, P, jnp.asarray(-jnp.inf, P.dtype)), lengths)
        return best, excess(best)[1]

    return jax.vmap(one)(P, low, up, pair)
