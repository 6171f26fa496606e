"""From the published extracts to the tidy tables that `ipodyn.data` reads: one short conversion for each set.

- HANNA (ratings): three raters scored each story on six axes; an axis is the mean of its three columns.
- SummEval (ratings): each column is the sum of three experts' ratings; divide by 3.
- QLoRA (pairs): a judge's verdict on two answers, 1 first, 2 second, 3 tie; becomes 1, 0, 1/2; -1 has no
  verdict and is left out.
- PandaLM (pairs): three annotators, 1 first, 2 second, 0 tie; the score is their mean of 1, 0, 1/2.
"""

import pathlib

import polars as pl

HANNA_AXES = ("relevance", "coherence", "empathy", "surprise", "engagement", "complexity")
SUMMEVAL_AXES = ("coherence", "consistency", "fluency", "relevance")


def hanna(data: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """`prompt_id, system_id` and the six axes of HANNA, as CSV in the folder `out`."""
    table = pl.read_csv(data / "hanna_ratings.csv")
    axes = [pl.mean_horizontal(*(f"{axis}_{rater}" for rater in (1, 2, 3))).alias(axis) for axis in HANNA_AXES]
    return _write(table.select("prompt_id", "system_id", *axes), out / "hanna.csv")


def summeval(data: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """`prompt_id, system_id` and the four axes of SummEval, as CSV in the folder `out`."""
    table = pl.read_csv(data / "summeval_ratings.csv")
    axes = [(pl.col(f"{axis}_sum3") / 3).alias(axis) for axis in SUMMEVAL_AXES]
    return _write(table.select("prompt_id", "system_id", *axes), out / "summeval.csv")


def qlora(data: pathlib.Path, out: pathlib.Path, queries: str = "oa") -> pathlib.Path:
    """`prompt_id, first, second, score` of QLoRA's tournament on `queries` ("oa" or "vicuna"), CSV in `out`."""
    table = pl.read_csv(data / f"qlora_{queries}_gpt4_pairs.csv").filter(pl.col("verdict") != -1)
    score = pl.col("verdict").replace_strict({1: 1.0, 2: 0.0, 3: 0.5}).alias("score")
    columns = (pl.col("model_1").alias("first"), pl.col("model_2").alias("second"), score)
    return _write(table.select("prompt_id", *columns), out / f"qlora_{queries}.csv")


def pandalm(data: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """`prompt_id, first, second, score` of PandaLM's human annotators, as CSV in the folder `out`."""
    table = pl.read_csv(data / "pandalm_pairs.csv")
    votes = [pl.col(f"annotator{n}").replace_strict({1: 1.0, 2: 0.0, 0: 0.5}) for n in (1, 2, 3)]
    columns = (
        pl.col("task_id").alias("prompt_id"),
        pl.col("model_1").alias("first"),
        pl.col("model_2").alias("second"),
        pl.mean_horizontal(*votes).alias("score"),
    )
    return _write(table.select(*columns), out / "pandalm.csv")


def _write(table: pl.DataFrame, path: pathlib.Path) -> pathlib.Path:
    table.write_csv(path)
    return path
