"""`diagnose`: the same numbers as the functions called directly, one prompt at a time; and the command around it."""

import csv
import dataclasses
import itertools
import math
import re

import jax
import numpy as np
import pytest
from data_files import helpsteer
from preferences import complementary

import ipodyn
from ipodyn._diagnosis import VERDICTS
from ipodyn._prompts import Prompts, Shared

pytest.importorskip("typer")
polars = pytest.importorskip("polars")

from ipodyn._cli.app import run  # noqa: E402

ALPHA, BETA, LAM = 0.9, 5.0, 0.8
K = 3  # one size and at most 32 prompts throughout: what compiles once serves every test
LOOP = ["--alpha", str(ALPHA), "--beta", str(BETA), "--lam", str(LAM)]


@pytest.fixture(scope="module")
def matrices():
    """Cycles of growing strength, some with a tilt, and Bradley-Terry matrices."""
    rng = np.random.default_rng(0)
    cycles = [np.asarray(ipodyn.problems.three_cycle(strength)) for strength in np.linspace(0.02, 0.45, 16)]
    tilt = np.triu(rng.uniform(-0.04, 0.04, (16, K, K)), 1)
    scores = rng.normal(size=(8, K))
    transitive = 1 / (1 + np.exp(scores[:, None] - scores[:, :, None]))
    return np.concatenate([cycles + tilt - tilt.swapaxes(1, 2), transitive])


@pytest.fixture(scope="module")
def found(matrices):
    return ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, 50))


@jax.jit
def _directly(P, alpha, beta, lam):
    loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam)
    star = ipodyn.fixed_point(loop)
    s = ipodyn.stability(loop, star.policy)
    return {
        "policy": star.policy,
        "entropy": ipodyn.entropy(star.policy),
        "drift": ipodyn.kl_divergence(star.policy, loop.pi_ref),
        "radius": s.radius,
        "omega": s.omega,
        "period": s.period,
        "stable": s.stable,
    }


def directly(P, name, alpha=ALPHA, beta=BETA, lam=LAM):
    """What the functions called one by one say of each matrix."""
    return np.array([_directly(p, alpha, beta, lam)[name] for p in np.reshape(P, (-1, K, K))])


def radius(P, **changed):
    return directly(P, "radius", **changed)


def test_numbers_are_those_of_the_functions_called_directly(matrices, found):
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        # The error of a certified fixed point is some roundings; the period of one that hardly turns amplifies it.
        expected = directly(matrices, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-8, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found.stable, directly(matrices, "stable"))
    for index in (3, 20):
        assert bool(ipodyn.has_cycle(matrices[index])) == bool(found.cyclic[index])
    # At a critical value the radius is 1, to the solver's tolerance of eps^0.6.
    crossing = 0
    for index in (3, 8, 12, 15, 20):
        for name in ("beta", "alpha", "lam"):
            value = getattr(found, f"critical_{name}")[index]
            if 0 < value < np.inf:
                crossing += 1
                np.testing.assert_allclose(radius(matrices[index], **{name: value}), 1, atol=1e-8, err_msg=name)
    assert crossing >= 8


@pytest.mark.slow
def test_critical_values_are_those_of_the_functions_called_directly(matrices, found):
    for index in range(0, len(matrices), 3):
        loop = ipodyn.MRS(matrices[index], alpha=ALPHA, beta=BETA, lam=LAM)
        for name in ("beta", "alpha", "lam"):
            value = getattr(ipodyn, f"critical_{name}")(loop).value
            np.testing.assert_allclose(getattr(found, f"critical_{name}")[index], value, rtol=1e-8, err_msg=name)


def test_the_worst_triangle_by_hand(rng):
    P = complementary(rng.uniform(0, 1, (32, 5, 5)))
    one = np.ones(())
    any_loop = Shared(one, one, one, np.full(5, 0.2), np.full(5, 0.2), ipodyn.IPO())
    A, found = P - 0.5, Prompts.of(P, any_loop).structure(np.arange(32))
    for index, (i, j, k) in enumerate(np.asarray(found.triangle).T):
        curls = [
            abs(A[index, a, b] + A[index, b, c] + A[index, c, a]) for a, b, c in itertools.combinations(range(5), 3)
        ]
        curl = A[index, i, j] + A[index, j, k] + A[index, k, i]
        np.testing.assert_allclose([curl, found.curl[index]], max(curls), atol=1e-12)
        np.testing.assert_allclose(found.triangle_share[index], curl**2 / np.sum(np.square(curls)), rtol=1e-9)


def test_verdicts_and_their_order(found):
    for index, verdict in enumerate(found.verdict):
        expected = (
            "unstable"
            if found.radius[index] >= 1
            else "close"
            if found.radius[index] >= 0.95
            else "collapsed"
            if found.entropy[index] < 0.05 * math.log(K)
            else "calm"
        )
        assert verdict == expected
    assert {"unstable", "calm"} <= set(found.verdict)  # both kinds are met here
    worst = found.riskiest()
    assert len(worst) == found.at_risk.sum() and found.verdict[worst[0]] == "unstable"
    assert found.radius[worst[0]] == found.radius.max()
    ranks = [VERDICTS.index(verdict) for verdict in found.verdict[worst]]
    assert ranks == sorted(ranks)


def test_the_safe_region_is_safe_and_its_edge_is_the_edge(matrices, found):
    edge = found.safe_beta(1.0)
    assert edge == found.critical_beta.min()
    assert (radius(matrices, beta=0.999 * edge) < 1).all() and (radius(matrices, beta=1.001 * edge) >= 1).any()
    half = found.safe_beta(0.5)
    assert np.mean(found.critical_beta >= half) >= 0.5 > np.mean(found.critical_beta > half)
    best = found.recommendation
    assert (best.changed, best.alpha, best.lam) == ("beta", ALPHA, LAM) and best.beta < BETA
    assert np.mean(radius(matrices, beta=best.beta) < 0.95) >= 0.95 > np.mean(radius(matrices, beta=BETA) < 0.95)
    # A hundredth more is too much: for the radius of one more prompt, or its entropy.
    spread = directly(matrices, "entropy", beta=1.01 * best.beta)
    margin = (radius(matrices, beta=1.01 * best.beta) < 0.95) & (spread >= 0.1 * math.log(K))
    assert margin.mean() < 0.95


def test_uncertainty_narrows_with_counts(matrices, found):
    sure = ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, 1_000_000))
    decided = np.abs(found.radius - 1) > 0.01
    assert ((sure.stable_probability > 0.5) == found.stable)[decided].all()
    assert (np.minimum(sure.stable_probability, 1 - sure.stable_probability)[decided] < 0.02).all()
    assert (sure.radius_high - sure.radius_low <= found.radius_high - found.radius_low + 1e-3).all()
    assert ((sure.radius_low <= found.radius + 1e-2) & (found.radius <= sure.radius_high + 1e-2)).all()
    for field in dataclasses.fields(found):
        if field.name not in ("stable_probability", "radius_low", "radius_high", "recommendation"):
            np.testing.assert_array_equal(getattr(sure, field.name), getattr(found, field.name))


def test_an_unanchored_loop_is_called_so(matrices):
    found = ipodyn.diagnose(matrices, alpha=1, beta=1, lam=1)
    assert set(found.verdict) == {"unanchored"} and not found.stable.any() and np.isnan(found.radius).all()
    assert found.recommendation.changed == "alpha" and found.recommendation.alpha < 1


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
    for name in ("radius", "entropy", "drift", "critical_beta", "curl"):
        np.testing.assert_allclose([float(row[name]) for row in rows], getattr(found, name), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(frame[name].to_numpy(), getattr(found, name), rtol=1e-9, err_msg=name)
    assert [row["verdict"] for row in rows] == found.verdict.tolist() == frame["verdict"].to_list()
    for index, row in enumerate(rows):
        members = row["responses"].split()
        names = [members[place] for place in found.triangle[index]]
        assert row["cycle"] == " → ".join([*names, names[0]])
        assert bool(row["why"]) == bool(found.at_risk[index])
    text = (folder / "report.txt").read_text()
    assert "Lower beta from 5 to" in text and "\x1b" not in text
    assert f"{100 * found.stable.mean():.1f} %" in text and "hold no counts" in text


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
    assert "online, IPO" in printed and "beta  = 4" in printed and "From the counts" in printed
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
