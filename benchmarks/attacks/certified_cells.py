"""How much of the default map is proved to converge: by contraction, by the rate in KL, in the best metric.

    python -m benchmarks.attacks.certified_cells --data ../shared/data

Cells of `ipodyn map`'s default grid (alpha 0:0.95:20, beta 0.5:10:20, lam 0.8, uniform policies) on real preferences:
HANNA and SummEval (ratings), WildBench (scores), QLoRA (judged pairs), all in groups of four responses; arena (one
matrix a judge over all models). `contraction` is the published condition, with the norm of P - 1/2 itself.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import jax
import numpy as np

from .certificates import projected_norms

ALPHA, BETA, LAM = np.linspace(0, 0.95, 20), np.linspace(0.5, 10, 20), 0.8


def matrices(data: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (M, K, K)) of every data set in the folder."""
    import polars as pl

    import ipodyn

    def ratings(table: pl.DataFrame, response: str, axes: list[str]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            table.select("prompt_id", response, *axes).write_csv(file := pathlib.Path(folder) / "ratings.csv")
            found = ipodyn.data.load_ratings(file, prompt="prompt_id", response=response, attributes=axes, group=4)
        return np.asarray(found.P)

    table = pl.read_csv(data / "hanna_ratings.csv")
    axes = ["relevance", "coherence", "empathy", "surprise", "engagement", "complexity"]
    means = [pl.mean_horizontal(*(f"{axis}_{rater}" for rater in (1, 2, 3))).alias(axis) for axis in axes]
    yield "HANNA", ratings(table.select("prompt_id", "system_id", *means), "system_id", axes)
    table = pl.read_csv(data / "summeval_ratings.csv")
    axes = ["coherence", "consistency", "fluency", "relevance"]
    sums = [(pl.col(f"{axis}_sum3") / 3).alias(axis) for axis in axes]
    yield "SummEval", ratings(table.select("prompt_id", "system_id", *sums), "system_id", axes)
    table = pl.read_csv(data / "wildbench_scores.csv").filter(pl.col("gpt4turbo") >= 0)
    yield "WildBench", ratings(table, "model_id", ["gpt4turbo"])
    table = pl.read_csv(data / "qlora_oa_gpt4_pairs.csv").filter(pl.col("verdict") != -1)
    score = pl.col("verdict").replace_strict({1: 1.0, 2: 0.0, 3: 0.5}).alias("score")
    with tempfile.TemporaryDirectory() as folder:
        tidy = table.select("prompt_id", pl.col("model_1").alias("first"), pl.col("model_2").alias("second"), score)
        tidy.write_csv(file := pathlib.Path(folder) / "pairs.csv")
        yield "QLoRA", np.asarray(ipodyn.data.load_pairs(file, group=4, both_orders=True).P)
    votes = pl.read_csv(data / "arena_ppr_votes.csv")
    K = max(int(votes[name].max()) for name in ("model_a", "model_b")) + 1  # pyright: ignore[reportArgumentType]
    found = []
    for _, judge in votes.group_by("judge", maintain_order=True):
        wins = np.zeros((K, K))
        a, b = judge["model_a"].to_numpy(), judge["model_b"].to_numpy()
        np.add.at(wins, (a, b), (judge["wins_a"] + judge["ties"] / 2).to_numpy())
        np.add.at(wins, (b, a), (judge["wins_b"] + judge["ties"] / 2).to_numpy())
        counts = wins + wins.T
        found.append(np.where(counts > 0, wins / np.maximum(counts, 1), 0.5))
    yield "arena", np.stack(found)


def best_norms(P: np.ndarray) -> np.ndarray:
    """Twice the norm in the best metric, as that of the Euclidean one is counted."""
    import ipodyn

    def gain(matrix: jax.Array) -> jax.Array:
        loop = ipodyn.MRS(matrix, alpha=0.0, beta=1.0, lam=1.0)
        return 2 * ipodyn.convergence_certificate(loop, metric="best").gain

    return np.asarray(jax.jit(jax.vmap(gain))(P))


def fractions(P: np.ndarray) -> dict[str, float]:
    """Of all cells of all matrices, the fraction proved in each way, and that of locally stable ones."""
    import ipodyn

    alpha, signal = ALPHA[None, :, None], LAM * BETA[None, None, :]
    plain = np.linalg.norm(P - 0.5, 2, axis=(1, 2))[:, None, None]
    norms, best = projected_norms(P)[:, None, None], best_norms(P)[:, None, None]
    test: dict[str, Callable[[], np.ndarray]] = {
        "contraction": lambda: alpha + signal * plain / 2 < 1,
        "contraction, projected": lambda: alpha + signal * norms / 2 < 1,
        "certified": lambda: alpha**2 + (signal * norms / 2) ** 2 < 1,
        "certified, best metric": lambda: alpha**2 + (signal * best / 2) ** 2 < 1,
        "stable without a fixed point": lambda: alpha**2 + (signal * norms / 3) ** 2 < 1,
        "locally stable": lambda: (
            np.asarray(ipodyn.stability_map(P, alpha=ALPHA, beta=BETA, lam=LAM, rollouts=False).radius) < 1
        ),
    }
    return {name: float(np.mean(holds())) for name, holds in test.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--most", type=int, default=500, help="matrices of a set, drawn at random")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name, P in matrices(arguments.data):
        P = P[np.random.default_rng(0).permutation(len(P))[: arguments.most]]
        print(f"{name}, {len(P)} matrices of {P.shape[-1]}")
        for what, fraction in fractions(P).items():
            print(f"  {what:30} {100 * fraction:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
