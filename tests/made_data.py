"""Files of the schemas of the published extracts, made by a generator, for clones that have no extracts beside them.

Judgements follow hidden strengths with noise of each prompt's own, so that winners, ties, cycles and strongly
transitive groups all occur; some verdicts are missing, and the first answer has an advantage, as in the real files.
"""

import itertools
import pathlib

import numpy as np
import polars as pl

HANNA = ("relevance", "coherence", "empathy", "surprise", "engagement", "complexity")
SUMMEVAL = ("coherence", "consistency", "fluency", "relevance")


def write(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """All files, into `folder`."""
    rng = np.random.default_rng(seed)
    tables = {
        "qlora_oa_gpt4_pairs": _judged(rng, prompts=240, models=[0, 1, 2, 3, 4, 6, 7]),
        "qlora_vicuna_gpt4_pairs": _judged(rng, prompts=24, models=list(range(8))),
        "hanna_ratings": _rated(rng, prompts=48, systems=11, axes=HANNA, raters=3),
        "summeval_ratings": _summed(rng, prompts=40, systems=16, axes=SUMMEVAL),
        "pandalm_pairs": _annotated(rng, tasks=90, models=5),
        "arena_ppr_votes": _votes(rng, models=20),
    }
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv")
    return folder


def _judged(rng: np.random.Generator, prompts: int, models: list[int]) -> pl.DataFrame:
    """One judge, both orders of every pair: 1 the first wins, 2 the second, 3 a tie, -1 no verdict (0.4 %)."""
    strength = np.linspace(-1.5, 1.5, len(models)) + rng.normal(scale=0.8, size=(prompts, len(models)))
    odd = rng.normal(scale=1.0, size=(prompts, len(models), len(models)))  # of one pair alone: cycles, narrow winners
    odd[: prompts // 2] = 0
    rows = []
    for prompt in range(prompts):
        for i, j in itertools.permutations(range(len(models)), 2):
            lead = strength[prompt, i] - strength[prompt, j] + odd[prompt, i, j] - odd[prompt, j, i]
            lead += 0.2 + rng.logistic(scale=0.4)
            verdict = 3 if abs(lead) < 0.5 else 1 if lead > 0 else 2
            rows.append((prompt, models[i], models[j], -1 if rng.random() < 0.004 else verdict, 0))
    return pl.DataFrame(rows, schema=["prompt_id", "model_1", "model_2", "verdict", "recovered"], orient="row")


def _latent(rng: np.random.Generator, prompts: int, systems: int, axes: int, columns: int) -> np.ndarray:
    """Integers 1..5, shape (prompts, systems, axes, columns)."""
    quality = rng.normal(3, 0.6, (1, systems, 1, 1)) + rng.normal(0, 0.8, (prompts, systems, 1, 1))
    values = quality + rng.normal(0, 0.7, (prompts, systems, axes, 1))
    return np.clip(np.rint(values + rng.normal(0, 0.5, (prompts, systems, axes, columns))), 1, 5).astype(int)


def _table(ratings: np.ndarray, names: list[str]) -> pl.DataFrame:
    prompts, systems = ratings.shape[:2]
    ids = {"prompt_id": np.repeat(np.arange(prompts), systems), "system_id": np.tile(np.arange(systems), prompts)}
    columns = ratings.reshape(prompts * systems, -1).T
    return pl.DataFrame(ids | dict(zip(names, columns, strict=True)))


def _rated(rng: np.random.Generator, prompts: int, systems: int, axes: tuple[str, ...], raters: int) -> pl.DataFrame:
    names = [f"{axis}_{rater + 1}" for axis in axes for rater in range(raters)]
    return _table(_latent(rng, prompts, systems, len(axes), raters), names)


def _summed(rng: np.random.Generator, prompts: int, systems: int, axes: tuple[str, ...]) -> pl.DataFrame:
    return _table(_latent(rng, prompts, systems, len(axes), 3).sum(-1), [f"{axis}_sum3" for axis in axes])


def _annotated(rng: np.random.Generator, tasks: int, models: int) -> pl.DataFrame:
    """Three annotators, one order of a pair, some pairs left out: 1 the first wins, 2 the second, 0 a tie."""
    strength = np.linspace(-1, 1, models) + rng.normal(scale=0.7, size=(tasks, models))
    rows = []
    for task in range(tasks):
        for i, j in itertools.combinations(range(models), 2):
            leads = strength[task, i] - strength[task, j] + rng.logistic(scale=0.3, size=3)
            if rng.random() < 0.9:
                rows.append((task, i, j, *(0 if abs(x) < 0.3 else 1 if x > 0 else 2 for x in leads), 0, 0))
    columns = ["task_id", "model_1", "model_2", "annotator1", "annotator2", "annotator3", "gpt35", "pandalm7b"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _votes(rng: np.random.Generator, models: int) -> pl.DataFrame:
    """Counts of battles that a human judge decided, for every pair."""
    strength = np.linspace(1.2, -1.2, models) + rng.normal(scale=0.3, size=models)
    rows = []
    for i, j in itertools.combinations(range(models), 2):
        chance = 1 / (1 + np.exp(strength[j] - strength[i]))
        won, lost, ties = rng.multinomial(rng.integers(20, 300), [0.7 * chance, 0.7 * (1 - chance), 0.3])
        rows.append(("human", i, j, int(won), int(lost), int(ties)))
    return pl.DataFrame(rows, schema=["judge", "model_a", "model_b", "wins_a", "wins_b", "ties"], orient="row")
