"""Every foreseeable mistake: exit code 2, one line with the culprit and the cure, nothing written."""

import os

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("polars")

from ipodyn._cli.app import run

RATINGS = ["--prompt", "prompt", "--attributes", "wit,style"]

# (arguments, what the line must say); {} is the folder with the files below.
MAP = {
    "missing column": (["--ratings", "{}/good.csv", "--prompt", "story", "--attributes", "wit"], "no column 'story'"),
    "missing attribute": (["--ratings", "{}/good.csv", "--prompt", "prompt", "--attributes", "wit,fun"], "'fun'"),
    "empty file": (["--ratings", "{}/empty.csv", *RATINGS], "empty"),
    "no such file": (["--ratings", "{}/absent.csv", *RATINGS], "no such file"),
    "ratings as text": (["--ratings", "{}/text.csv", *RATINGS], "holds text ('good' in row 2)"),
    "too few responses": (["--ratings", "{}/good.csv", *RATINGS, "--group", "9"], "9"),
    "no columns named": (["--ratings", "{}/good.csv"], "--ratings needs --prompt COL"),
    "no attributes named": (["--ratings", "{}/good.csv", "--prompt", "prompt"], "--ratings needs --attributes"),
    "stray attributes": (["--attributes", "wit"], "--attributes goes with --ratings"),
    "stray both orders": (["--both-orders"], "--both-orders goes with --pairs"),
    "stray strength": (["--strength", "0.2"], "--strength goes with --problem"),
    "pairs without score": (["--pairs", "{}/good.csv", "--prompt", "prompt"], "'score'"),
    "two sets of data": (["--ratings", "{}/good.csv", "--pairs", "{}/good.csv"], "not --ratings and --pairs"),
    "not complementary": (["--preferences", "{}/lopsided.npy"], "must sum to 1"),
    "not a number": (["--preferences", "{}/nan.npy"], "nan"),
    "not an array": (["--preferences", "{}/good.csv"], "unknown kind of array file"),
    "unknown problem": (["--problem", "triangle"], "choose three_cycle, cycle"),
    "even cycle": (["--problem", "cycle", "--group", "4"], "4"),
    "strength too large": (["--problem", "cycle", "--strength", "0.7"], "--strength is 0.7"),
    "no matrix of the kind": (["--problem", "three_cycle", "--kind", "st"], "is of --kind st"),
    "no limit": (["--limit", "0"], "--limit is 0"),
    "hub without such a file": (["--helpsteer", "{}/absent.jsonl"], "no such file"),
    "beta zero": (["--beta", "0:5:4"], "`--beta` entry 0 is 0.0"),
    "beta negative": (["--beta", "-1"], "`--beta` entry 0 is -1.0"),
    "alpha above 1": (["--alpha", "0:1.5:4"], "`--alpha` entry 3 is 1.5, outside [0, 1]"),
    "lam above 1": (["--lam", "1.5"], "`--lam` is 1.5"),
    "malformed range": (["--alpha", "0:1"], "write START:STOP:N"),
    "text for a range": (["--beta", "a:b:c"], "write START:STOP:N"),
    "unknown spacing": (["--beta", "1:2:3:exp"], "write START:STOP:N"),
    "one point in a range": (["--alpha", "0:1:1"], "at least 2 points"),
    "backward range": (["--alpha", "1:0:5"], "STOP must be larger"),
    "logarithm of zero": (["--beta", "0:1:5:log"], "must start above 0"),
    "infinite beta": (["--beta", "inf"], "finite"),
    "no rounds": (["--rounds", "0"], "--rounds is 0"),
    "rounds as text": (["--rounds", "many"], "--rounds"),
    "unknown objective": (["--objective", "ppo"], "ppo"),
    "unknown option": (["--gamma", "1"], "--gamma"),
    "start of another size": (["--start", "0.5,0.5"], "4 responses"),
    "start not summing to 1": (["--start", "0.5,0.5,0.5,0.5"], "sums to 2"),
    "start as text": (["--start", "a,b"], "--start is 'a,b'"),
}
ROLLOUT = {
    "index beyond the set": (["--index", "5"], "--index is 5"),
    "not a picture": (["--out", "{}/loop.txt"], ".png, .pdf, .svg"),
    "no folder": (["--out", "{}/nowhere/loop.png"], "does not exist"),
    "alpha above 1": (["--alpha", "2"], "`--alpha` is 2.0"),
    "beta zero": (["--beta", "0"], "`--beta` is 0.0"),
    "no rounds": (["--rounds", "0"], "--rounds is 0"),
    "start not summing to 1": (["--start", "0.5,0.2,0.2"], "`--start` sums to 0.9"),
    "start of another size": (["--start", "0.5,0.5"], "3 responses"),
    "diverging scores": (
        [
            "--problem",
            "overshadowed_winner",
            "--strength",
            "0.5",
            "--objective",
            "dpo",
            "--group",
            "3",
            "--rounds",
            "1",
        ],
        "strongly connected",
    ),
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.csv").write_text("prompt,wit,style\n" + "".join(f"1,{k},{4 - k}\n" for k in range(4)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.csv").write_text("prompt,wit,style\n1,1,2\n1,good,3\n1,2,2\n1,3,1\n")
    np.save(tmp_path / "lopsided.npy", np.array([[0.5, 0.7], [0.7, 0.5]]))
    np.save(tmp_path / "nan.npy", np.array([[0.5, np.nan], [np.nan, 0.5]]))
    return tmp_path


def one_line(capsys, arguments):
    """The line that a mistake ends with."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("ipodyn: "), captured.err
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(("arguments", "says"), MAP.values(), ids=MAP.keys())
def test_map(files, capsys, arguments, says):
    before = sorted(files.rglob("*"))
    arguments = [argument.replace("{}", str(files)) for argument in arguments]
    assert says in one_line(capsys, ["map", *arguments, "--out", str(files / "out")])
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "says"), ROLLOUT.values(), ids=ROLLOUT.keys())
def test_rollout(files, capsys, arguments, says):
    before = sorted(files.rglob("*"))
    arguments = [argument.replace("{}", str(files)) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", str(files / "loop.png")]
    assert says in one_line(capsys, ["rollout", *arguments, *out])
    assert sorted(files.rglob("*")) == before


def test_unknown_command(capsys):
    assert "mapp" in one_line(capsys, ["mapp"])


SMALL = ["map", "--problem", "three_cycle", "--alpha", "0.5", "--beta", "1", "--rounds", "2"]


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds no run of ipodyn" in one_line(capsys, [*SMALL, "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert "is a file" in one_line(capsys, [*SMALL, "--out", str(tmp_path / "out")])
    assert "out" in one_line(capsys, [*SMALL, "--out", str(tmp_path / "out" / "deeper")])
    assert (tmp_path / "out").read_text() == "mine"


def test_unwritable_folder(tmp_path, capsys, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # Root may write anywhere, so the refusal of the system is played.
    monkeypatch.setattr(os, "mkdir", refused)
    line = one_line(capsys, [*SMALL, "--out", str(tmp_path / "out")])
    assert "cannot be written (Permission denied)" in line and not (tmp_path / "out").exists()


def test_defects_keep_their_traceback(tmp_path, monkeypatch):
    from ipodyn._cli import map as map_module

    def defect(*args, **kwargs):
        raise RuntimeError("ours")

    monkeypatch.setattr(map_module.MapProblem, "of", defect)
    with pytest.raises(RuntimeError, match="ours"):
        run([*SMALL, "--out", str(tmp_path / "out")])
