"""Is anything called convergence that is none? Cells of stability maps against 20,000 rounds of plain NumPy.

    python -m benchmarks.attacks.regimes --cells 100000

K = 3..8; matrices random, cyclic, circulant, of 0 and 1, with ties; alpha 0, 1 and between, beta 0.1 to 100, lam 0, 1
and between. A verdict is a claim about its start, so the rollout in NumPy from that start decides; those from a random
policy and from beside a vertex are counted apart: where they go on moving, a cycle lies beside the fixed point, or the
start of the map was no generic one.
"""

import argparse
import time

import jax
import numpy as np

KINDS = ("random", "cyclic", "circulant", "0/1", "ties")
ALPHAS = (0.0, 0.5, 0.9, 0.99, 1.0)
NUM_BETAS = 4
CHUNK = 500


def matrices(rng: np.random.Generator, kind: str, number: int, K: int) -> np.ndarray:
    """(number, K, K) preference matrices of a kind."""
    if kind == "circulant":
        rows = rng.uniform(-0.5, 0.5, (number, K))
        rows = (rows - np.roll(rows[:, ::-1], 1, axis=1)) / 2
        return 0.5 + np.stack([np.roll(rows, shift, axis=1) for shift in range(K)], axis=1)
    A = rng.uniform(-0.5, 0.5, (number, K, K))
    if kind == "0/1":
        A = np.where(A > 0, 0.5, -0.5)
    if kind == "ties":
        A = np.where(rng.random(A.shape) < 0.5, 0.0, np.round(8 * A) / 8)
    A = np.triu(A, 1)
    A = A - A.swapaxes(1, 2)
    if kind == "cyclic":  # each beats the next by at least a tenth, the last the first
        i, j = np.arange(K), np.roll(np.arange(K), -1)
        A[:, i, j] = rng.uniform(0.1, 0.5, (number, K))
        A[:, j, i] = -A[:, i, j]
    return 0.5 + A


def still_moving(
    P: np.ndarray, alpha: np.ndarray, beta: np.ndarray, lam: float, start: np.ndarray, rounds: int
) -> np.ndarray:
    """How far probabilities move in the last tenth of so many rounds: loops first, uniform reference and sampler.

    A loop whose logits a chunk of rounds leaves alone, to a rounding, has stopped.
    """
    A = (P - 0.5) * beta[:, None, None]
    drive = (1 - lam) * A.mean(axis=2)
    logits, policy = np.log(start), start
    moved, alive = np.zeros(len(P)), np.arange(len(P))
    low = high = policy
    for done in range(0, rounds, CHUNK):
        before = logits
        if done <= 0.9 * rounds:
            low = high = policy
        for _ in range(CHUNK):
            logits = alpha[:, None] * logits + drive + lam * np.matmul(A, policy[:, :, None])[:, :, 0]
            logits = logits - logits.max(axis=1, keepdims=True)
            policy = np.exp(logits)
            policy = policy / policy.sum(axis=1, keepdims=True)
            low, high = np.minimum(low, policy), np.maximum(high, policy)
        if done + CHUNK >= rounds:
            moved[alive] = (high - low).max(axis=1)
            break
        on = (np.abs(logits - before) > 4e-16 * np.maximum(1, np.abs(logits))).any(axis=1)
        alive, A, drive, alpha = alive[on], A[on], drive[on], alpha[on]
        logits, policy, low, high = logits[on], policy[on], low[on], high[on]
        if not on.any():
            break
    return moved


def attack(cells: int, rounds: int, seed: int, sizes: list[int]) -> dict[str, int]:
    """Counts of cells by verdict, of false verdicts, and of settled cells where another start goes on moving."""
    import ipodyn

    rng = np.random.default_rng(seed)
    lams = (0.0, 0.3, 1.0, 1.0)
    number = max(1, round(cells / (len(ALPHAS) * NUM_BETAS * len(KINDS) * len(sizes) * len(lams))))
    counts: dict[str, int] = dict.fromkeys(("cells", "converges", "oscillates", "collapses", "unresolved"), 0)
    counts |= dict.fromkeys(("false converges", "false collapses", "moves from a random start", "from a vertex"), 0)
    for K in sizes:
        for kind in KINDS:
            for lam in lams:
                P = matrices(rng, kind, number, K)
                beta = np.exp(rng.uniform(np.log(0.1), np.log(100), NUM_BETAS))
                found = ipodyn.stability_map(P, alpha=ALPHAS, beta=beta, lam=lam)
                regime = found.regime.values
                counts["cells"] += regime.size
                for code in ipodyn.Regime:
                    counts[code.name] += int((regime == code).sum())
                settled = np.isin(regime, (ipodyn.Regime.converges, ipodyn.Regime.collapses))
                m, a, b = np.nonzero(settled)
                loops = P[m], np.array(ALPHAS)[a], beta[b], lam
                uniform = np.full(K, 1 / K)
                starts = np.broadcast_to(ipodyn.generic_start(uniform), (len(m), K))
                moves = still_moving(*loops, starts, rounds) > 1e-5
                for name in ("converges", "collapses"):
                    wrong = moves & (regime[m, a, b] == ipodyn.Regime[name])
                    counts[f"false {name}"] += int(wrong.sum())
                    for i in np.flatnonzero(wrong):
                        point = f"K {K} {kind} alpha {ALPHAS[a[i]]} beta {beta[b[i]]!r} lam {lam}"
                        print(f"FALSE {name}: {point}\n{P[m[i]]!r}", flush=True)
                vertex = 0.97 * np.eye(K)[rng.integers(K, size=len(m))] + 0.03 * uniform
                others = {"moves from a random start": rng.dirichlet(np.ones(K), len(m)), "from a vertex": vertex}
                for name, start in others.items():
                    counts[name] += int((still_moving(*loops, start, rounds) > 1e-5).sum())
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8], help="numbers of responses")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    for name, count in attack(arguments.cells, arguments.rounds, arguments.seed, arguments.sizes).items():
        print(f"{name:28} {count:,}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
