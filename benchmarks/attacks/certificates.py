"""Do certificates keep their promises? Random states of random loops against plain NumPy.

    python -m benchmarks.attacks.certificates --states 1000000

K = 2..16; preferences random, 0 and 1, in eighths, cyclic; skewed references and samplers; rates up to 0.9999. Rounds
are taken as deviations from the fixed point, x' = alpha x + beta lam A (pi - pi*), so that rounding stays below what is
looked for.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

SIZES = (2, 3, 4, 5, 6, 8, 12, 16)
LOOPS = 100  # of one size at a time
Counts = dict[str, float]
Sizes = Sequence[int]


class Loops(NamedTuple):
    """P (M, K, K), alpha, beta, lam (M,), pi_ref, pi_0 (M, K)."""

    P: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    lam: np.ndarray
    pi_ref: np.ndarray
    pi_0: np.ndarray

    def at(self, index: Any) -> "Loops":
        return Loops(*(field[index] for field in self))


def matrices(rng: np.random.Generator, M: int, K: int) -> np.ndarray:
    """A quarter each: uniform, 0 and 1, eighths, cyclic with random strengths."""
    around = (np.arange(K)[None] - np.arange(K)[:, None]) % K
    circle = np.where(around == 0, 0.0, np.where(2 * around < K, 1.0, np.where(2 * around > K, -1.0, 0.0)))
    made = [
        rng.uniform(-0.5, 0.5, (M, K, K)),
        rng.choice([-0.5, 0.5], (M, K, K)),
        rng.integers(-4, 5, (M, K, K)) / 8,
        0.5 * rng.uniform(0, 1, (M, K, K)) * circle,
    ]
    A = np.triu(np.stack(made)[rng.integers(0, 4, M), np.arange(M)], 1)
    return 0.5 + A - A.swapaxes(1, 2)


def projected_norms(P: np.ndarray) -> np.ndarray:
    means = (P - 0.5).mean(axis=2)
    return np.linalg.norm(P - 0.5 - means[:, :, None] + means[:, None], 2, axis=(1, 2))


def draw(rng: np.random.Generator, M: int, K: int, rates: tuple[float, float]) -> Loops:
    """Loops whose alpha^2 + b^2 is log-uniform between two numbers; if both are at most 1, its distance from 1 is."""
    P = matrices(rng, M, K)
    alpha = np.where(rng.random(M) < 0.5, rng.uniform(0, 1, M), 1 - 10 ** rng.uniform(-3, 0, M))
    alpha = np.where(rng.random(M) < 0.1, 0.0, alpha)
    spread = np.exp(rng.uniform(np.log(rates[0]), np.log(rates[1]), M))
    rate = 1 - spread if rates[1] <= 1 else spread
    b = np.sqrt(np.maximum(rate - alpha**2, 1e-4))
    lam = rng.uniform(0.1, 1, M)
    beta = 2 * b / (lam * np.maximum(projected_norms(P), 1e-3))
    pi_ref, pi_0 = (rng.dirichlet(np.full(K, 0.5), M) * (1 - 1e-5) + 1e-5 / K for _ in range(2))
    return Loops(P, alpha, np.minimum(beta, 1e4), lam, pi_ref, pi_0)


def over(function: Callable, loops: Loops) -> tuple[np.ndarray, ...]:
    """What a function of an `ipodyn.MRS` returns, for every loop."""
    import ipodyn

    def one(P: Any, alpha: Any, beta: Any, lam: Any, pi_ref: Any, pi_0: Any) -> Any:
        return function(ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0))

    return tuple(np.asarray(x) for x in jax.jit(jax.vmap(one))(*loops))


def policy_of(star: np.ndarray, x: np.ndarray) -> np.ndarray:
    weights = star * np.exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def kl_of(star: np.ndarray, x: np.ndarray) -> np.ndarray:
    """KL(pi* || pi) of logits that deviate by x."""
    x = x - np.sum(star * x, axis=1, keepdims=True)
    top = np.maximum(x.max(axis=1, keepdims=True), 0)
    far = (top[:, 0]) + np.log(np.sum(star * np.exp(x - top), axis=1))
    near = np.log1p(np.sum(star * (np.expm1(np.minimum(x, 1)) - np.minimum(x, 1)), axis=1))
    return np.where(np.abs(x).max(axis=1) < 1, near, far)


def next_deviation(loops: Loops, star: np.ndarray, x: np.ndarray) -> np.ndarray:
    moved = np.matmul(loops.P - 0.5, (policy_of(star, x) - star)[:, :, None])[:, :, 0]
    return loops.alpha[:, None] * x + (loops.beta * loops.lam)[:, None] * moved


def deviations(rng: np.random.Generator, star: np.ndarray, t: int) -> np.ndarray:
    """From next to the fixed point to next to vertices, faces in every third draw."""
    x = rng.normal(size=star.shape) * 10 ** rng.uniform(-2, 2, (len(star), 1))
    return np.where(rng.random(star.shape) < 0.5, x, 40 * np.sign(x)) if t % 3 == 0 else x


def worst_ratio(before: np.ndarray, after: np.ndarray, rate: np.ndarray, use: np.ndarray) -> float:
    """The largest KL' / (rate KL); what a rate of 0 leaves is rounding."""
    use = use & (before > 0) & (after > 1e-15)
    return float((after[use] / (before * np.maximum(rate, 1e-12))[use]).max(initial=0.0))


def attack_states(rng: np.random.Generator, states: int, sizes: Sizes = SIZES) -> Counts:
    """The largest KL' / (q KL), in the Euclidean and in the best metric."""
    import ipodyn

    def promised(loop: Any) -> tuple:
        rates = (ipodyn.convergence_certificate(loop, metric=metric).rate for metric in ("euclidean", "best"))
        return ipodyn.fixed_point(loop, throw=False).policy, *rates

    worst = {"euclidean": 0.0, "best": 0.0}
    seen = 0
    each = -(-states // (LOOPS * len(sizes)))
    for K in sizes:
        loops = draw(rng, LOOPS, K, (1e-4, 1.0))
        star, euclidean, best = over(promised, loops)
        star = np.maximum(star, 1e-300)
        for t in range(each):
            x = deviations(rng, star, t)
            before, after = kl_of(star, x), kl_of(star, next_deviation(loops, star, x))
            use = (before >= 1e-6) & (loops.alpha < 1)
            seen += int(use.sum())
            for name, rate in (("euclidean", euclidean), ("best", best)):
                worst[name] = max(worst[name], worst_ratio(before, after, rate, use))
    return {"states": seen, "worst ratio, euclidean": worst["euclidean"], "worst ratio, best": worst["best"]}


def attack_nesting(rng: np.random.Generator, loops_in_all: int, sizes: Sizes = SIZES) -> Counts:
    """Loops in each of the nested claims, and how often one holds without the next."""
    import ipodyn

    def claims(loop: Any) -> tuple:
        star = ipodyn.fixed_point(loop, throw=False)
        return (
            ipodyn.contraction_bound(loop) < 1,
            ipodyn.convergence_certificate(loop).certified,
            ipodyn.convergence_certificate(loop, metric="best").certified,
            ipodyn.stability(loop, star.policy).stable,
        )

    held, broken, number = np.zeros(4, int), 0, 0
    per_size = max(1, loops_in_all // len(sizes))
    for K in sizes:
        loops = draw(rng, per_size, K, (0.05, 20.0))
        levels = np.stack(over(claims, loops))
        number += levels.shape[1]
        held += levels.sum(axis=1)
        broken += int((levels[:-1] & ~levels[1:]).sum())
    names = ("contraction", "certified", "certified in the best metric", "stable")
    return {"loops": number, **dict(zip(names, map(int, held), strict=True)), "not nested": broken}


def attack_basins(rng: np.random.Generator, states: int, sizes: Sizes = SIZES) -> Counts:
    """States in certified balls of loops that are not certified globally: that leave, and the worst KL' / (rate KL)."""
    import ipodyn

    def balls(loop: Any) -> tuple:
        star = ipodyn.fixed_point(loop, throw=False)
        basin = ipodyn.certified_basin(loop, star)
        return star.policy, basin.kl, basin.rate, ipodyn.convergence_certificate(loop).certified

    counts: Counts = {"loops": 0, "states": 0, "left": 0, "worst ratio": 0.0}
    for K in sizes:
        loops = draw(rng, 4 * LOOPS, K, (1.0, 8.0))
        star, kl, rate, certified = over(balls, loops)
        use = ~certified & (kl > 0) & np.isfinite(kl) & (star.min(axis=1) > 1e-12)
        loops, star, kl, rate = loops.at(use), star[use], kl[use], rate[use]
        counts["loops"] += len(kl)
        each = -(-states // (len(sizes) * max(len(kl), 1)))
        for t in range(each):
            direction = rng.normal(size=star.shape) * 10 ** rng.uniform(-1, 1, star.shape)
            direction = np.eye(K)[rng.integers(0, K, len(kl))] if t % 3 == 0 else direction
            goal = kl * rng.uniform(0.02, 1, len(kl))
            low, high = np.zeros(len(kl)), np.full(len(kl), 300.0)
            for _ in range(50):
                middle = (low + high) / 2
                beyond = kl_of(star, middle[:, None] * direction) > goal
                low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
            x = low[:, None] * direction
            before, after = kl_of(star, x), kl_of(star, next_deviation(loops, star, x))
            seen = before > 1e-12
            counts["states"] += int(seen.sum())
            counts["left"] += int((after > kl)[seen].sum())
            counts["worst ratio"] = max(
                counts["worst ratio"], float((after / np.maximum(before * rate, 1e-300))[seen].max())
            )
    return counts


def attack_rounds(rng: np.random.Generator, loops_in_all: int, sizes: Sizes = SIZES, most: int = 20_000) -> Counts:
    """Rounds to KL 1e-6 as bounded and as rolled out, from random starts of certified loops."""
    import ipodyn

    counts: Counts = {"loops": 0, "too few": 0}
    factors = []
    for K in sizes:
        loops = draw(rng, loops_in_all // len(sizes), K, (3e-3, 1.0))
        loops = loops._replace(alpha=np.minimum(loops.alpha, 0.997))
        starts = rng.dirichlet(np.full(K, 0.4), len(loops.alpha)) * (1 - 1e-7) + 1e-7 / K

        def promised(P: Any, alpha: Any, beta: Any, lam: Any, pi_ref: Any, pi_0: Any, start: Any) -> tuple:
            loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0)
            found = ipodyn.convergence_certificate(loop)
            return ipodyn.fixed_point(loop, throw=False).policy, found.certified, found.rounds(start, 1e-6)

        star, certified, rounds = map(np.asarray, jax.jit(jax.vmap(promised))(*loops, starts))
        x = np.log(starts) - np.log(np.maximum(star, 1e-300))
        needed = np.full(len(star), np.inf)
        for t in range(most):
            needed = np.where(np.isinf(needed) & (kl_of(star, x) <= 1e-6), t, needed)
            if np.all(np.isfinite(needed[certified])):
                break
            x = next_deviation(loops, star, x)
        counts["loops"] += int(certified.sum())
        counts["too few"] += int((needed > rounds)[certified].sum())
        factors.append((rounds / np.maximum(needed, 1))[certified & np.isfinite(needed)])
    counts["median factor"] = float(np.median(np.concatenate(factors)))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=1_000_000, help="of all sizes together")
    parser.add_argument("--loops", type=int, default=1_000, help="for rounds and, times ten, for nesting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of responses")
    parser.add_argument("--only", nargs="+", choices=("states", "nesting", "basins", "rounds"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = tuple(arguments.sizes)
    jobs: dict[str, Callable[[np.random.Generator], Counts]] = {
        "states": lambda rng: attack_states(rng, arguments.states, sizes),
        "nesting": lambda rng: attack_nesting(rng, 10 * arguments.loops, sizes),
        "basins": lambda rng: attack_basins(rng, arguments.states, sizes),
        "rounds": lambda rng: attack_rounds(rng, arguments.loops, sizes),
    }
    for name in arguments.only or jobs:
        began = time.perf_counter()
        for what, count in jobs[name](np.random.default_rng(arguments.seed)).items():
            print(f"{name:8} {what:32} {count:,.10g}")
        print(f"{name:8} {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
