"""Tables of comparisons as people have them: every layout gives the matrices of the plain one."""

import importlib
import importlib.util
import itertools
import json

import numpy as np
import polars as pl
import pytest
from data_files import adds_up, error, write

from ipodyn.data import load_pairs

K, PROMPTS, JUDGES = 4, 3, 5


@pytest.fixture
def votes(rng):
    """Every pair of four responses to three prompts, judged five times: (prompt, first, second, verdict 1, 2, 0)."""
    return [
        (f"p{p}", f"r{i}", f"r{j}", int(rng.choice([1, 2, 0])))
        for p in range(PROMPTS)
        for i, j in itertools.combinations(range(K), 2)
        for _ in range(JUDGES)
    ]


@pytest.fixture
def plain(votes, tmp_path):
    rows = [f"{p},{i},{j},{({1: 1, 2: 0, 0: 0.5})[w]}" for p, i, j, w in votes]
    return load_pairs(write(tmp_path / "plain.csv", "\n".join(["prompt_id,first,second,score", *rows])))


def same(found, plain):
    np.testing.assert_array_equal(found.P, plain.P)
    np.testing.assert_array_equal(found.counts, plain.counts)
    assert found.prompts.tolist() == plain.prompts.tolist()
    assert found.responses.tolist() == plain.responses.tolist()


SAYS = {"numbers": ("1", "2", "0"), "letters": ("A", "B", "tie"), "arena": ("model_a", "model_b", "tie (bothbad)")}


@pytest.mark.parametrize("spelling", [*SAYS, "names"])
def test_winners(votes, plain, tmp_path, spelling):
    def said(i, j, w):
        return {1: i, 2: j, 0: "tie"}[w] if spelling == "names" else SAYS[spelling][{1: 0, 2: 1, 0: 2}[w]]

    rows = [f"{p},{i},{j},{said(i, j, w)}" for p, i, j, w in votes]
    table = "\n".join(["prompt,model_a,model_b,winner", *rows, "p0,r0,r1,-1", "p0,r0,r1,"])
    found = load_pairs(write(tmp_path / "t.csv", table))
    same(found, plain)
    assert adds_up(found.report, len(votes) + 2)
    assert found.report.rows_dropped == {"without a score or weight": 2}
    assert "winners from 'winner', between 'model_a' and 'model_b'" in str(found.report)


def test_counts_of_wins(votes, plain, tmp_path):
    lines = ["prompt_id;model_1;model_2;wins_1;wins_2;ties"]  # semicolons, as spreadsheets write them
    for (p, i, j), group in itertools.groupby(votes, key=lambda vote: vote[:3]):
        w = [vote[3] for vote in group]
        lines.append(f"{p};{i};{j};{w.count(1)};{w.count(2)};{w.count(0)}")
    found = load_pairs(write(tmp_path / "t.csv", "\n".join([*lines, "p0;r0;r1;0;0;0"])))
    np.testing.assert_allclose(found.P, plain.P, rtol=1e-12)  # sums of a different order
    np.testing.assert_array_equal(found.counts, plain.counts)
    assert found.report.rows_dropped == {"of weight 0": 1}
    named = load_pairs(
        pl.read_csv(tmp_path / "t.csv", separator=";").rename({"wins_1": "x", "wins_2": "y", "ties": "z"}),
        wins=("x", "y"),
        ties="z",
    )
    np.testing.assert_array_equal(named.P, found.P)
    untied = pl.read_csv(tmp_path / "t.csv", separator=";").drop("ties")
    assert "no column of ties" in str(load_pairs(untied.filter(pl.col("wins_1") + pl.col("wins_2") > 0)).report)


@pytest.mark.parametrize("form", ["texts", "messages", "whole conversations", "transcripts"])
def test_chosen_and_rejected(votes, plain, tmp_path, form):
    """What preference trainers read; a response is its text, wherever it stands. Ties cannot be said, so none here."""

    def write_as(prompt, better, worse):
        asked = {"role": "user", "content": prompt}
        if form == "texts":
            return {"prompt": prompt, "chosen": better, "rejected": f"{prompt}{worse}"}  # some repeat the prompt
        if form == "transcripts":
            start = f"\n\nHuman: {prompt}\n\nAssistant:"
            return {"chosen": f"{start} {better}", "rejected": f"{start} {worse}"}
        answers = [[{"role": "assistant", "content": text}] for text in (better, worse)]
        if form == "messages":
            return {"prompt": [asked], "chosen": answers[0], "rejected": answers[1]}
        return {"chosen": [asked, *answers[0]], "rejected": [asked, *answers[1]]}

    decided = [vote for vote in votes if vote[3]]
    rows = [write_as(p, *((i, j) if w == 1 else (j, i))) for p, i, j, w in decided]
    found = load_pairs(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    lines = [f"{p},{i},{j},{2 - w}" for p, i, j, w in decided]
    same_votes = load_pairs(write(tmp_path / "s.csv", "\n".join(["prompt_id,first,second,score", *lines])))
    np.testing.assert_array_equal(found.P, same_votes.P)
    assert found.responses[0].tolist() == ["r0", "r1", "r2", "r3"]
    assert "responses of the same text are one" in str(found.report)


def test_one_pair_a_prompt_cannot_show_a_cycle(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(6)]
    path = write(tmp_path / "dpo.jsonl", "\n".join(map(json.dumps, rows)))
    found = load_pairs(path)
    assert found.P.shape == (6, 2, 2) and "two responses a prompt: they hold no circle" in str(found.report)
    assert "no prompt has 3 responses" in error(load_pairs, path, group=3)


def test_models_stand_for_responses(votes, tmp_path):
    """Pooled over prompts: one matrix, of all votes; the same from winners and from chosen and rejected."""
    wins, decided = np.zeros((K, K)), [vote for vote in votes if vote[3]]
    for _, i, j, w in decided:
        a, b = (int(i[1]), int(j[1])) if w == 1 else (int(j[1]), int(i[1]))
        wins[a, b] += 1
    expected = np.where(np.eye(K, dtype=bool), 0.5, wins / np.maximum(wins + wins.T, 1))
    table = pl.DataFrame(decided, schema=["prompt", "model_a", "model_b", "winner"], orient="row")
    found = load_pairs(table, by="model")
    assert found.P.shape == (1, K, K) and found.responses[0].tolist() == ["r0", "r1", "r2", "r3"]
    np.testing.assert_allclose(found.P[0], expected, atol=1e-12)  # sets are stored to twelve digits
    rows = [{"chosen": "x", "rejected": "y", "prompt": p} for p, *_ in decided]
    named = pl.DataFrame(rows).with_columns(
        pl.Series("chosen_model", [(i, j)[w - 1] for _, i, j, w in decided]),
        pl.Series("rejected_model", [(i, j)[2 - w] for _, i, j, w in decided]),
    )
    np.testing.assert_allclose(load_pairs(named, by="model").P[0], expected, atol=1e-12)
    assert "needs the columns 'chosen_model'" in error(load_pairs, pl.DataFrame(rows), by="model")
    assert "by is 'judge'" in error(load_pairs, table, by="judge")


class Split:
    """A split of Hugging Face's `datasets`, as far as loaders see it: column names, and a column by its name."""

    def __init__(self, frame):
        self.frame, self.column_names = frame, frame.columns

    def __getitem__(self, name):
        return self.frame[name].to_list()


def test_tables_in_memory(votes, plain, tmp_path):
    frame = pl.DataFrame(votes, schema=["prompt", "first", "second", "winner"], orient="row")
    frame.write_parquet(tmp_path / "t.parquet")
    tables = [frame, frame.lazy(), Split(frame), frame.to_dict(as_series=False), tmp_path / "t.parquet"]
    if importlib.util.find_spec("pandas"):  # an object with `columns` and columns by name, as the others
        tables.append(importlib.import_module("pandas").DataFrame(frame.to_dict(as_series=False)))
    for table in tables:
        same(load_pairs(table), plain)
    assert "is no table; give one of these" in error(load_pairs, {"train": Split(frame), "test": Split(frame)})
    assert "is no table" in error(load_pairs, 7)
    assert "has no rows" in error(load_pairs, frame.clear())


def test_what_is_none_of_these_is_told_what_would_read_it(tmp_path):
    ratings = "item,system,wit,truth\n" + "\n".join(f"{n // 4},s{n % 4},{n % 5},{n % 3}" for n in range(16))
    said = error(load_pairs, write(tmp_path / "ratings.csv", ratings))
    assert f"ipodyn diagnose {tmp_path / 'ratings.csv'} --prompt item --attributes wit,truth" in said
    said = error(load_pairs, write(tmp_path / "t.csv", "prompt_id,first,second,grade\np,x,y,1\n"))
    assert "such as --score grade" in said and "--attributes" not in said
    said = error(load_pairs, write(tmp_path / "t.csv", "a,b\nx,y\n"))
    assert "name them with --prompt, --first, --second" in said
    said = error(load_pairs, write(tmp_path / "t.csv", "prompt,first,second,winner\np,x,y,1\np,x,z,0\n"))
    assert "--score winner" in said
    said = error(load_pairs, write(tmp_path / "t.csv", "prompt,first,second,winner\np,x,y,perhaps\n"))
    assert "'winner' is 'perhaps' in row 1" in said
    said = error(load_pairs, write(tmp_path / "t.csv", "prompt,first,second,wins_a,wins_b\np,x,y,-1,2\n"))
    assert "must be 0 or more" in said
    said = error(load_pairs, write(tmp_path / "t.csv", "chosen,rejected\nyes,no\n"))
    assert "no column of prompts" in said


def test_the_command_that_is_offered_reads_the_file(tmp_path, capsys):
    pytest.importorskip("typer")
    from ipodyn._cli.app import run

    ratings = "item,system,wit,truth\n" + "\n".join(f"{n // 4},s{n % 4},{n * n % 5},{n % 3}" for n in range(16))
    path = write(tmp_path / "ratings.csv", ratings)
    assert run(["diagnose", str(path), "--out", str(tmp_path / "a")]) == 2
    command = capsys.readouterr().err.partition("read by: ipodyn ")[2].split()
    assert run([*command, "--out", str(tmp_path / "b")]) == 0
    assert "prompts   4" in capsys.readouterr().out


def test_options_name_columns(votes, plain, tmp_path):
    from ipodyn._cli.sources import Source

    frame = pl.DataFrame(votes, schema=["q", "l", "r", "w"], orient="row")
    frame.write_csv(tmp_path / "t.csv")
    same(Source(pairs=tmp_path / "t.csv", prompt="q", first="l", second="r", winner="w").load(), plain)
    with pytest.raises(Exception, match="--winner goes with --pairs"):
        Source(problem="three_cycle", winner="w").load()
    with pytest.raises(Exception, match="name two columns, A,B"):
        Source(pairs=tmp_path / "t.csv", wins="w").load()
