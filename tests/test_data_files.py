"""Loaders on small files written here: what they read, drop and count, and their errors on bad input."""

import gzip
import itertools
import json

import jax
import numpy as np
import polars as pl
import pytest
from data_files import adds_up, error, write

import ipodyn.data
from ipodyn.data import load_pairs, load_preferences, load_ratings

RATED = {"prompt": "prompt", "attributes": ["help", "style"]}


def table(rng, prompts=6, responses=5):
    """Whole ratings of two attributes, responses in turn, prompts interleaved."""
    keys = [(p, r) for r in range(responses) for p in range(prompts)]
    ratings = rng.integers(0, 5, size=(len(keys), 2))
    return pl.DataFrame(
        {
            "prompt": [f"p{p}" for p, _ in keys],
            "response": [f"r{r}" for _, r in keys],
            "help": ratings[:, 0],
            "style": ratings[:, 1],
        }
    )


# Tables


def test_every_format_reads_alike(rng, tmp_path):
    frame = table(rng)
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "t.jsonl")
    frame.write_ndjson(tmp_path / "t.ndjson")
    frame.write_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = sorted(tmp_path.iterdir())
    sets = [load_ratings(file, **RATED, response="response") for file in files]
    assert len(files) == 7
    for file, data in zip(files, sets, strict=True):
        np.testing.assert_array_equal(data.P, sets[0].P)
        np.testing.assert_array_equal(data.responses, sets[0].responses)
        assert file.name in data.source


def bad_tables(folder):
    """(name, file, words that its error must contain)."""
    (folder / "folder.csv").mkdir()
    truncated = gzip.compress(b"prompt,help,style\n" * 50)[:-9]
    (folder / "cut.csv.gz").write_bytes(truncated)
    (folder / "plain.csv.gz").write_bytes(b"prompt,help,style\np,1,2\n")
    (folder / "bad.parquet").write_bytes(b"PAR1 but nothing more")
    nested = pl.DataFrame({"prompt": ["p"], "help": [[1]], "style": [2]})
    nested.write_parquet(folder / "nested.parquet")
    pl.DataFrame({"prompt": [["p"]], "help": [1], "style": [2]}).write_parquet(folder / "ids.parquet")
    head = "prompt,help,style\n"
    return {
        "missing file": (folder / "absent.csv", "no such file; check the path"),
        "folder": (folder / "folder.csv", "is a folder; name a file in it"),
        "unknown suffix": (write(folder / "t.xlsx", "x"), "unknown kind of table '.xlsx'; give .csv"),
        "no suffix": (write(folder / "plain", "x"), "'(no suffix)'; give .csv"),
        "gzipped parquet": (write(folder / "t.parquet.gz", "x"), "unknown kind of table '.gz'"),
        "empty": (write(folder / "empty.csv", ""), "is empty; give a file with data"),
        "blank": (write(folder / "blank.jsonl", "\n\n"), "is empty; give a file with data"),
        "header only": (write(folder / "header.csv", head), "has a header but no rows"),
        "ragged": (write(folder / "ragged.csv", head + "p,1,2,3\n"), "cannot be read as csv"),
        "broken": (write(folder / "bad.jsonl", '{"prompt": "p"}\n{"prom\n'), "cannot be read as jsonl"),
        "not objects": (write(folder / "array.jsonl", "[1, 2]\n"), "cannot be read as jsonl"),
        "cut gzip": (folder / "cut.csv.gz", "is not a whole gzip file"),
        "not gzip": (folder / "plain.csv.gz", "is not a whole gzip file"),
        "broken parquet": (folder / "bad.parquet", "cannot be read as parquet"),
        "missing column": (
            write(folder / "one.csv", "prompt,style\np,1\n"),
            "no column 'help'; the table has 'prompt', 'style'",
        ),
        "missing columns": (
            write(folder / "none.csv", "a\n1\n"),
            "no columns 'prompt', 'help', 'style'; the table has 'a'",
        ),
        "text": (
            write(folder / "text.csv", head + "p,1,2\np,,2\np,good,2\n"),
            "column 'help' holds text ('good' in row 3); it must hold numbers, so map its categories",
        ),
        "lists": (folder / "nested.parquet", "column 'help' holds List(Int64) values; it must hold numbers"),
        "list ids": (folder / "ids.parquet", "column 'prompt' holds List(String) values; it must hold ids"),
    }


def test_bad_tables_are_named_with_a_cure(tmp_path):
    for name, (path, words) in bad_tables(tmp_path).items():
        message = error(load_ratings, path, **RATED)
        assert message.startswith(str(path)), name
        assert words in message, (name, message)


# Ratings


def test_disjoint_groups_partition_each_prompt(rng, tmp_path):
    frame = table(rng, prompts=3, responses=11)
    frame.write_csv(tmp_path / "t.csv")
    data = load_ratings(tmp_path / "t.csv", **RATED, response="response", key=3)
    assert data.P.shape == (6, 4, 4)
    for prompt in np.unique(data.prompts):
        members = data.responses[data.prompts == prompt].ravel()
        assert len(members) == len(set(members)) == 8
    assert data.report.rows_dropped == {"left over after groups of 4": 9}
    assert data.report.responses_left_over == 9 and adds_up(data.report, 33)
    again = load_ratings(tmp_path / "t.csv", **RATED, response="response", key=3)
    np.testing.assert_array_equal(again.P, data.P)
    other = load_ratings(tmp_path / "t.csv", **RATED, response="response", key=4)
    assert not np.array_equal(other.responses, data.responses)


def test_all_subsets_come_once_each(rng, tmp_path):
    table(rng, prompts=2, responses=6).write_csv(tmp_path / "t.csv")
    data = load_ratings(tmp_path / "t.csv", **RATED, response="response", group=3, subsets="all")
    expected = [(p, *c) for p in ("p0", "p1") for c in itertools.combinations([f"r{r}" for r in range(6)], 3)]
    found = [(p, *r) for p, r in zip(data.prompts.tolist(), data.responses.tolist(), strict=True)]
    assert sorted(found) == expected
    message = error(load_ratings, tmp_path / "t.csv", **RATED, group=3, subsets="all", limit=39)
    assert "all subsets of 3 responses are 40 matrices, more than the limit of 39; use disjoint" in message


def test_matrices_are_the_recipe_on_the_rows_they_name(rng, tmp_path):
    frame = table(rng)
    frame.write_csv(tmp_path / "t.csv")
    data = load_ratings(tmp_path / "t.csv", **RATED, key=2, scale=2)
    ratings = frame.select("help", "style").to_numpy()[data.responses]  # without ids a response is its row
    P = ipodyn.data.ratings_to_preferences(jax.random.key(2), ratings, scale=2)
    np.testing.assert_allclose(data.P, P, rtol=0, atol=2**-41 + 1e-15)
    assert frame["prompt"].to_numpy()[data.responses[:, 0]].tolist() == data.prompts.tolist()


def test_unusable_rows_are_dropped_and_counted(tmp_path):
    rows = ["prompt,response,help,style"]
    rows += [f"a,{r},{r},1" for r in range(4)]
    rows += ["a,0,0,1"]  # repeats a row
    rows += ["a,4,,1", "a,5,nan,1", "a,6,inf,1", "a,7,NA,1"]  # no finite rating
    rows += [",8,1,1", "a,,1,1"]  # no prompt, no response
    rows += ["b,0,1,1", "b,1,2,2"]  # too few
    rows += ["c,0,,1"]  # nothing usable
    path = write(tmp_path / "t.csv", "\n".join(rows) + "\n")
    report = load_ratings(path, **RATED, response="response").report
    assert report.rows_dropped == {
        "repeating an earlier row": 1,
        "without a finite rating in every attribute": 5,
        "without a prompt": 1,
        "without a response id": 1,
        "of prompts with fewer than 4 usable responses": 2,
    }
    assert adds_up(report, 14) and report.rows_used == 4
    assert (report.prompts_read, report.prompts_used) == (3, 1)
    assert report.prompts_dropped == {
        "without a usable row": 1,
        "with fewer than 4 usable responses": 1,
    }


def test_long_texts_become_numbers_and_it_is_noted(tmp_path):
    rows = [{"prompt": p * 100, "help": n, "style": 1} for p in "ba" for n in range(4)]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    data = load_ratings(path, **RATED)
    assert data.prompts.tolist() == [0, 1]
    assert data.report.notes == ("prompts are long texts: replaced by running numbers",)
    data.save(tmp_path / "t.npz")
    assert load_preferences(tmp_path / "t.npz").prompts.tolist() == [0, 1]


def test_numbers_written_as_texts_are_numbers(tmp_path):
    rows = [{"prompt": 1.0, "help": str(n), "style": True} for n in range(4)]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    data = load_ratings(path, **RATED)
    assert len(data) == 1 and data.prompts.tolist() == [1]


def test_bad_ratings_and_arguments(tmp_path):
    path = write(tmp_path / "t.csv", "prompt,response,help,style\n" + "p,a,1,2\np,b,3,4\np,c,0,0\n")
    clash = write(tmp_path / "clash.csv", "prompt,response,help,style\np,a,1,2\np,b,1,2\np,a,2,2\n")
    blank = write(tmp_path / "blank.csv", "prompt,help,style\np,,1\np,,2\n")
    for words, arguments in (
        ("no prompt has 4 usable responses (the most is 3); use groups of 3 or fewer", {}),
        ("group is 1; a preference matrix needs at least 2 responses", {"group": 1}),
        ("unknown subsets 'some': choose 'disjoint' or 'all'", {"subsets": "some"}),
        ("limit is 0; it must be at least 1", {"limit": 0}),
        ("no attributes named; give at least one", {"attributes": []}),
        ("column 'help' is named twice", {"attributes": ["help", "help"]}),
        ("column 'prompt' is named twice", {"response": "prompt"}),
        ("no column 'id'; the table has", {"response": "id"}),
    ):
        assert words in error(load_ratings, path, **(RATED | arguments))
    message = error(load_ratings, clash, **RATED, response="response", group=2)
    assert "rows 1 and 3 rate the same response to the same prompt differently; average them first" in message
    message = error(load_ratings, blank, **RATED, group=2)
    assert "(the most is 0); check the prompt column and the ratings" in message
    with pytest.raises(ValueError, match="`scale` is -1; it must be positive"):
        load_ratings(path, **RATED, group=2, scale=-1)


# Pairs


def pairs(path, rows, columns="prompt_id,first,second,score"):
    return write(path, "\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")


def test_votes_are_averaged_with_weights_in_both_orders(tmp_path):
    rows = [(0, "b", "a", 1, 3), (0, "a", "b", 0.5, 1), (0, "a", "c", 0.25, 2), (0, "c", "b", 0, 0.5)]
    path = pairs(tmp_path / "p.csv", rows, "prompt_id,first,second,score,weight")
    data = load_pairs(path)
    assert data.responses.tolist() == [["a", "b", "c"]]
    ab, ac, bc = (0 * 3 + 0.5 * 1) / 4, 0.25, 1.0
    expected = np.array([[0.5, ab, ac], [1 - ab, 0.5, bc], [1 - ac, 1 - bc, 0.5]])
    np.testing.assert_array_equal(data.P[0], expected)
    steadied = load_pairs(path, prior=2)
    np.testing.assert_allclose(steadied.P[0, 0, 1], (0.5 + 1) / (4 + 2), atol=1e-12)
    np.testing.assert_allclose(steadied.P[0, 1, 2], (0.5 + 1) / (0.5 + 2), atol=1e-12)


def test_both_orders_cancel_a_preference_for_the_first(tmp_path):
    """Three votes one way, one the other: pooled, the position wins; averaged by order, nobody does."""
    rows = [(0, "a", "b", 1)] * 3 + [(0, "b", "a", 1)]
    path = pairs(tmp_path / "p.csv", rows)
    assert load_pairs(path).P[0, 0, 1] == 0.75
    assert load_pairs(path, both_orders=True).P[0, 0, 1] == 0.5
    one_way = pairs(tmp_path / "one.csv", rows[:3])
    message = error(load_pairs, one_way, both_orders=True)
    assert "no prompt has a complete tournament, with every pair compared" in message


def test_unusable_pairs_are_dropped_and_counted(tmp_path):
    rows = [(0, "a", "b", 1), (0, "b", "c", 1), (0, "a", "c", 1)]
    rows += [(0, "a", "a", 1), ("", "a", "b", 1), (0, "", "b", 1), (0, "a", "b", "")]
    rows += [(1, "a", "b", 1), (1, "b", "c", 1)]  # a against c is missing
    rows += [(2, "a", "a", 0)]
    data = load_pairs(pairs(tmp_path / "p.csv", rows))
    assert data.prompts.tolist() == [0]
    assert data.report.rows_dropped == {
        "comparing a response with itself": 2,
        "without a prompt": 1,
        "without a response id": 1,
        "without a score or weight": 1,
        "of prompts with an incomplete tournament": 2,
    }
    assert adds_up(data.report, 10)
    assert data.report.prompts_dropped == {
        "without a usable row": 1,
        "with an incomplete tournament": 1,
    }


def test_complete_groups_of_an_incomplete_tournament(rng, tmp_path):
    """Random comparison graphs: "all" gives the cliques, "disjoint" cliques that share no response."""
    rows, seen = [], {}
    for prompt in range(15):
        seen[prompt] = {pair for pair in itertools.combinations(range(8), 2) if rng.random() < 0.7}
        rows += [(prompt, *pair, rng.integers(0, 2)) for pair in sorted(seen[prompt])]
    path = pairs(tmp_path / "p.csv", rows)
    cliques = {
        (prompt, *group)
        for prompt, edges in seen.items()
        for group in itertools.combinations(range(8), 4)
        if all(pair in edges for pair in itertools.combinations(group, 2))
    }
    every = load_pairs(path, group=4, subsets="all")
    found = {(int(p), *r) for p, r in zip(every.prompts, every.responses.tolist(), strict=True)}
    assert found == cliques and len(every) == len(cliques) > 20
    some = load_pairs(path, group=4)
    chosen = [(int(p), *r) for p, r in zip(some.prompts, some.responses.tolist(), strict=True)]
    assert set(chosen) <= cliques and {p for p, *_ in chosen} == {p for p, *_ in cliques}
    taken = [(p, i) for p, *r in chosen for i in r]
    assert len(taken) == len(set(taken))
    used = {(p, *pair) for p, *r in cliques for pair in itertools.combinations(r, 2)}
    assert every.report.rows_used == len(used)
    assert adds_up(every.report, len(rows)) and adds_up(some.report, len(rows))


def test_bad_pairs_and_arguments(tmp_path):
    good = pairs(tmp_path / "good.csv", [(0, "a", "b", 1), (0, "b", "c", 1), (1, "a", "b", 1)])
    sizes = pairs(tmp_path / "sizes.csv", [(0, "a", "b", 1), (1, "a", "b", 1), (1, "b", "c", 1), (1, "a", "c", 1)])
    self_pairs = pairs(tmp_path / "self.csv", [(0, "a", "a", 1), (0, "b", "b", 1)])
    high = pairs(tmp_path / "high.csv", [(0, "a", "b", 1), (0, "a", "b", 2)])
    low = pairs(tmp_path / "low.csv", [(0, "a", "b", -1)])
    weighted = pairs(tmp_path / "w.csv", [(0, "a", "b", 1, -2)], "prompt_id,first,second,score,weight")
    path_graph = pairs(tmp_path / "path.csv", [(0, "a", "b", 1), (0, "b", "c", 1)])
    for path, words, arguments in (
        (good, "no column 'model_1'; the table has 'prompt_id', 'first'", {"first": "model_1"}),
        (good, "no column 'w'", {"weight": "w"}),
        (good, "column 'first' holds text ('a' in row 1); it must hold numbers", {"score": "first"}),
        (good, "prior is -1; it must be a finite number of comparisons, 0 or more", {"prior": -1}),
        (good, "group is 0; a preference matrix needs at least 2", {"group": 0}),
        (good, "no prompt has 4 responses (the most is 3); use groups of 3 or fewer", {"group": 4}),
        (good, "are 4 matrices, more than the limit of 3", {"group": 2, "subsets": "all", "limit": 3}),
        (path_graph, "no prompt has a complete tournament, with every pair compared; use smaller groups", {}),
        (path_graph, "no prompt has a complete group of 3 responses", {"group": 3}),
        (sizes, "several sizes (1 of 2, 1 of 3 responses), but one set has one K; choose it by `group`", {}),
        (self_pairs, "no usable row: 2 comparing a response with itself", {}),
        (high, "column 'score' must be in [0, 1], but row 2 holds 2; rescale it", {}),
        (low, "column 'score' must be in [0, 1], but row 1 holds -1; rescale it, or remove the codes", {}),
        (weighted, "column 'weight' must be 0 or more, but row 1 holds -2", {}),
        (tmp_path / "absent.csv", "no such file", {}),
    ):
        message = error(load_pairs, path, **arguments)
        assert words in message, message
