"""`ipodyn diagnose`: its tables, its page and its words are those of the function; mistakes are one line."""

import csv
import re
import types

import diagnosed
import jax
import numpy as np
import pytest
from data_files import helpsteer
from diagnosed import ALPHA, BETA, LAM, K

import ipodyn

pytest.importorskip("typer")
polars = pytest.importorskip("polars")

from ipodyn._cli import output  # noqa: E402
from ipodyn._cli.app import run  # noqa: E402
from ipodyn._diagnosis.headline import headline  # noqa: E402
from ipodyn._diagnosis.page import html_report  # noqa: E402
from ipodyn._diagnosis.verdicts import verdicts  # noqa: E402
from ipodyn._diagnosis.words import advice  # noqa: E402


@pytest.fixture(scope="module")
def matrices():
    return diagnosed.matrices()


@pytest.fixture(scope="module")
def found():
    return diagnosed.found()


LOOP = ["--alpha", str(ALPHA), "--beta", str(BETA), "--lam", str(LAM)]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(matrices, tmp_path_factory):
    path = tmp_path_factory.mktemp("diagnose")
    np.save(path / "P.npy", matrices)
    assert run(["diagnose", str(path / "P.npy"), *LOOP, "--out", str(path / "out")]) == 0
    return path / "out"


def test_the_command_writes_what_the_function_finds(folder, found):
    assert {path.name for path in folder.iterdir()} == {
        "diagnosis.csv",
        "diagnosis.parquet",
        "report.html",
        "report.txt",
    }
    rows, frame = read(folder / "diagnosis.csv"), polars.read_parquet(folder / "diagnosis.parquet")
    assert len(rows) == len(found) == frame.height
    equilibrium = found.equilibrium
    expected = {name: getattr(equilibrium, name) for name in ("radius", "entropy", "drift")}
    expected |= {"critical_beta": found.limits.beta, "cycle_mass": equilibrium.cycle_mass}
    for name, values in expected.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(frame[name].to_numpy(), values, rtol=1e-9, err_msg=name)
    words = verdicts(equilibrium, ALPHA).tolist()
    assert [row["verdict"] for row in rows] == words == frame["verdict"].to_list()
    for index, row in enumerate(rows):
        members = row["responses"].split()
        names = [members[place] for place in equilibrium.cycle[index]]
        assert row["cycle"] == (" → ".join([*names, names[0]]) if found.turning[index] else "none")
        assert row["certified"] == str(int(found.certified[index]))
        assert bool(row["why"]) == bool(found.at_risk[index])
    text = (folder / "report.txt").read_text()
    assert "Lower beta from 5 (TRL's 0.2 times the tokens of a completion) to" in text and "\x1b" not in text
    assert f"{int(equilibrium.unstable.sum())} never settle" in text and "hold no counts" in text
    first = headline(found, np.arange(len(found)))
    assert text.startswith(first) and f"<title>{first}</title>" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_refers_to_nothing_outside_and_escapes(folder, tmp_path, found, monkeypatch):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<iframe|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(|src=", page)
    assert page.count("<svg") == page.count('role="img"') == page.count("<desc>") == 4
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    P = np.stack([ipodyn.problems.three_cycle(0.4)])
    evil = np.array([["<script>alert(1)</script>", "b", "c"]])
    np.savez(tmp_path / "evil.npz", P=P, prompts=np.array(["<img src=x>"]), responses=evil)
    out = tmp_path / "out"
    assert run(["diagnose", str(tmp_path / "evil.npz"), "--out", str(out), "--alpha", "0.9"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "<img" not in page


def test_the_page_of_many_prompts_is_as_small_as_that_of_few(found):
    """It lists the worst twenty and counts the rest: of 400 times as many prompts only the numbers get longer."""

    def page(times):
        def repeated(value):
            return np.concatenate([value] * times) if isinstance(value, np.ndarray) else value

        many = jax.tree.map(repeated, found)
        return html_report(
            many,
            prompts=np.arange(len(many)),
            responses=np.tile(np.arange(K), (len(many), 1)),
            source="",
            data_lines=[],
            recipe_lines=[],
            verdict="",
            advice=advice(many),
            uncertainty=[],
            created="",
            version="",
        )

    few, many = page(4), page(1600)
    assert "38,400" in many and len(many) < 1.05 * len(few)
    assert many.count("<tr>") == few.count("<tr>") == 1 + len(set(verdicts(found.equilibrium, ALPHA))) + 1 + 20


def test_the_remaining_time_is_that_of_the_work_not_of_compiling(monkeypatch, capsys):
    """Fifty seconds until the work begins, then one a prompt: what is said to be left is one second a prompt."""
    clock = [0.0]
    monkeypatch.setattr(output, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    with output.ProgressBar(100, "work") as bar:
        clock[0] = 50.0
        for done in range(101):
            bar(done, 100)
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    said = [re.fullmatch(r"work: (\d+)%, about (\d+) s left", line) for line in lines]
    assert len(said) == 10 and all(match and int(match[1]) + int(match[2]) == 100 for match in said)


def test_counts_of_judged_pairs_reach_the_report(tmp_path, capsys):
    rows = ["prompt_id,first,second,score,weight"]
    for prompt in range(2):
        for a, b in ((0, 1), (1, 2), (2, 0)):
            rows += [f"{prompt},{a},{b},1,{8 if prompt else 80}", f"{prompt},{a},{b},0,{2 if prompt else 20}"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    loaded = ipodyn.data.load_pairs(tmp_path / "pairs.csv")
    assert loaded.counts is not None
    np.testing.assert_array_equal(loaded.counts[:, 0, 1], [100, 10])
    loaded.save(tmp_path / "set.npz")
    np.testing.assert_array_equal(ipodyn.data.load_preferences(tmp_path / "set.npz").counts, loaded.counts)
    out = tmp_path / "out"
    assert (
        run(["diagnose", str(tmp_path / "pairs.csv"), "--recipe", "online", "--trl-beta", "0.25", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "online, DPO" in printed and "beta  = 4" in printed and "From the counts" in printed
    wide, narrow = (
        float(row["radius_high"]) - float(row["radius_low"]) for row in reversed(read(out / "diagnosis.csv"))
    )
    assert wide > narrow > 0


def test_helpsteer_from_a_file(tmp_path, rng):
    file = helpsteer(tmp_path / "train.jsonl.gz", rng, prompts=12)
    out = tmp_path / "out"
    assert run(["diagnose", "--helpsteer", str(file), *LOOP, "--out", str(out)]) == 0
    rows = read(out / "diagnosis.csv")
    expected = ipodyn.data.load_helpsteer(file)
    assert len(rows) == len(expected.P) == 12  # the first prompt gives two groups, the last none
    loop = ipodyn.MRS(expected.P[5], alpha=ALPHA, beta=BETA, lam=LAM)
    radius = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy).radius
    np.testing.assert_allclose(float(rows[5]["radius"]), radius, rtol=1e-8)
    assert "HelpSteer train.jsonl.gz" in (out / "report.html").read_text(encoding="utf-8")


# (arguments, what the line must say); {} is the folder with the files.
BAD = {
    "no such file": (["{}/absent.csv"], "no such file"),
    "two sets": (["{}/a.csv", "--problem", "three_cycle"], "one set of data"),
    "two sets by options": (["--pairs", "{}/a.csv", "--problem", "three_cycle"], "not --pairs and --problem"),
    "missing column": (["{}/a.csv"], "no column"),
    "ratings without prompt": (["{}/a.csv", "--attributes", "wit"], "--ratings needs --prompt COL"),
    "both betas": (["--beta", "1", "--trl-beta", "1"], "--beta or --trl-beta"),
    "trl beta of zero": (["--trl-beta", "0"], "--trl-beta is 0"),
    "beta negative": (["--beta", "-1"], "`beta` is -1.0"),
    "alpha above 1": (["--alpha", "1.5"], "`alpha` is 1.5"),
    "lam as text": (["--lam", "all"], "--lam"),
    "unknown recipe": (["--recipe", "ppo"], "choose one-shot, online"),
    "recipe with alpha": (["--recipe", "online", "--alpha", "0.5"], "--alpha goes with"),
    "recipe without its step": (["--recipe", "nash-md"], "needs --eta"),
    "recipe with beta": (["--recipe", "nash-md", "--beta", "2"], "--beta goes with"),
    "step without recipe": (["--eta", "1"], "--eta goes with"),
    "step too large": (["--recipe", "mirror-descent", "--eta", "3", "--tau", "1"], "`eta * tau` is 3"),
    "folder is a file": (["--out", "{}/a.csv"], "is a file"),
    "report there already": (["--out", "{}"], "--overwrite"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line(case, tmp_path, capsys):
    arguments, words = BAD[case]
    (tmp_path / "a.csv").write_text("prompt,wit\n1,2\n")
    (tmp_path / "report.html").write_text("mine")
    code = run(["diagnose", "--out", str(tmp_path / "out"), *(argument.format(tmp_path) for argument in arguments)])
    printed = capsys.readouterr()
    assert code == 2 and printed.err.count("\n") == 1 and words in printed.err, printed.err
    assert not (tmp_path / "out").exists() and (tmp_path / "report.html").read_text() == "mine"
