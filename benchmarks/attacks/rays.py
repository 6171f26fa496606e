"""Does damping do on real preferences what its formulas say? Unstable loops against rollouts in plain NumPy.

    python -m benchmarks.attacks.rays --data ../shared/data --loops 200

Loops on HANNA, SummEval, WildBench and QLoRA that are unstable. Their fixed points along the ray; the critical damping
against the radius and against a bisection on whether a tiny deviation grows in a rollout; and, with the certified
damping, KL along rollouts from starts next to vertices and anywhere: never slower than the promised rate.
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np

from .certificates import Loops, kl_of, next_deviation, over
from .certified_cells import matrices

ROUNDS, HALVINGS, STARTS = 20_000, 15, 64
SLOWEST = 2e-3  # s (1 - alpha) of loops whose transients are over by then


def unstable(data: pathlib.Path, rng: np.random.Generator, number: int) -> Loops:
    """So many loops whose fixed point is unstable, drawn from a wider range than the default map's."""
    import ipodyn

    sets = [P for name, P in matrices(data) if name != "arena"]
    P = np.concatenate([P[rng.integers(0, len(P), 30 * number)] for P in sets])
    M, K = len(P), P.shape[-1]
    uniform = np.full((M, K), 1 / K)
    loops = Loops(P, rng.uniform(0, 0.95, M), 10 ** rng.uniform(0.5, 2, M), np.full(M, 0.8), uniform, uniform)
    (radius,) = over(lambda loop: (ipodyn.stability(loop, ipodyn.fixed_point(loop, throw=False).policy).radius,), loops)
    return loops.at(rng.permutation(np.flatnonzero(radius > 1))[:number])


def slowed(loops: Loops, s: np.ndarray) -> Loops:
    return loops._replace(alpha=1 - s * (1 - loops.alpha), beta=s * loops.beta)


def grows(loops: Loops, star: np.ndarray) -> np.ndarray:
    """Whether a tiny deviation is larger after the second half of a rollout than before it, or has grown large."""
    x = 1e-8 * np.cos(1.0 + np.arange(star.shape[1]))[None] * np.ones((len(star), 1))
    begin = kl_of(star, x)
    for t in range(ROUNDS):
        x = next_deviation(loops, star, x)
        if t == ROUNDS // 2:
            middle = kl_of(star, x)
    alive = middle > 1e-6 * begin  # else what moves is rounding
    return (alive & (kl_of(star, x) > middle)) | (middle > 1e3 * begin)


def attack(data: pathlib.Path, number: int, seed: int) -> dict[str, float]:
    import ipodyn

    rng = np.random.default_rng(seed)
    loops = unstable(data, rng, number)

    def parts(loop: Any) -> tuple:
        star = ipodyn.fixed_point(loop, tolerance=1e-13, throw=False).policy
        critical, certified = ipodyn.critical_damping(loop, throw=False), ipodyn.certified_damping(loop, throw=False)
        moved = ipodyn.fixed_point(ipodyn.damped(loop, critical.value), tolerance=1e-13, throw=False).policy - star
        at = ipodyn.stability(ipodyn.damped(loop, critical.value), star).radius
        return star, critical.value, certified.value, certified.rate, abs(moved).max(), at

    star, critical, certified, rate, moved, radius = over(parts, loops)
    star = np.maximum(star, 1e-300)
    low, high = np.full(len(star), 1e-3), np.ones(len(star))
    for _ in range(HALVINGS):
        middle = np.sqrt(low * high)
        up = grows(slowed(loops, middle), star)
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    error = np.abs(np.sqrt(low * high) / critical - 1)[critical * (1 - loops.alpha) >= SLOWEST]
    found = {
        "unstable loops": len(star),
        "fixed point moves by": moved.max(),
        "radius - 1 at the critical damping": np.abs(radius - 1).max(),
        "of them settle soon enough to judge": len(error),
        "critical against rollouts, median": np.median(error),
        "critical against rollouts, largest": error.max(),
        "within 0.1 %": np.sum(error <= 1e-3),
    }
    tame = slowed(loops, certified)
    slower, settled = 0.0, 0
    for start in range(STARTS):
        logits = rng.normal(size=star.shape) * (12 if start % 2 else 2)
        x = logits - np.log(star)
        begin = kl_of(star, x)
        for t in range(1, 401):
            x = next_deviation(tame, star, x)
            if t % 100 == 0:
                now = kl_of(star, x)
                seen = now > 1e-10
                slower = max(slower, float((now / (begin * rate**t))[seen].max(initial=0.0)))
        settled += int((kl_of(star, x) < 0.9 * begin).sum())
    found["KL over its bound, largest"] = slower
    found["starts nearer after 400 rounds, %"] = 100 * settled / (STARTS * len(star))
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--loops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    for name, value in attack(arguments.data, arguments.loops, arguments.seed).items():
        print(f"{name:36} {value:,.6g}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
