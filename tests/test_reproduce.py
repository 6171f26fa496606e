"""The figures of the paper: what a run leaves behind, against plain NumPy loops; claims on real data."""

import csv
import dataclasses
import html.parser
import json
import shutil

import numpy as np
import pytest
from data_files import helpsteer

import ipodyn

pytest.importorskip("typer")
pytest.importorskip("xarray")
pytest.importorskip("matplotlib")

from ipodyn import _reproduce as figures
from ipodyn._cli.app import run

NAMES = ["evolution-cyclic-ipo", "map-cyclic-ipo", "series-alpha-st-ipo"]
LIGHT = "evolution-cyclic-ipo"
QUICK = ["--quick", "--dtype", "float64"]  # so that plain loops agree to rounding
LAM = figures.QUICK.lam


TAG = "synthetic-ratings-in-helpsteers-shape-seed-0"  # of the source, in every file's name


def table(folder, name):
    with open(folder / "tables" / f"{name}.{TAG}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def plain_paths(P, alpha, beta, lam, rounds):
    """(rounds + 1, M, K): MRS-IPO from the uniform policy, with uniform reference, for P (M, K, K), by NumPy alone."""
    M, K = P.shape[:2]
    policy = np.full((M, K), 1 / K)
    paths = [policy]
    for _ in range(rounds):
        mu = lam * policy + (1 - lam) / K
        logits = alpha * np.log(policy) + beta * np.einsum("mij,mj->mi", P, mu)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        policy = weights / weights.sum(axis=1, keepdims=True)
        paths.append(policy)
    return np.stack(paths)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three figures."""
    folder = tmp_path_factory.mktemp("reproduce") / "figures"
    assert run(["reproduce", *NAMES, *QUICK, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def matrices():
    """The first cyclic and strongly transitive matrices of the embedded set, found without the figures' code."""
    data = ipodyn.data.synthetic_helpsteer(0)
    number = figures.QUICK.matrices
    return {"cyclic": data.cyclic().P[:number], "st": data.strongly_transitive().P[:number]}


def test_every_figure_is_whole_and_names_its_data(finished):
    for name in NAMES:
        assert (finished / "figures" / f"{name}.{TAG}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        pdf = (finished / "figures" / f"{name}.{TAG}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"SYNTHETIC" in (finished / "figures" / f"{name}.{TAG}.png").read_bytes()
        assert all("SYNTHETIC" in row["source"] for row in table(finished, name))
        manifest = json.loads((finished / "finished" / f"{name}.json").read_text(encoding="utf-8"))
        assert set(manifest["inputs"]) == {"configuration", "data", "code"} and manifest["findings"]
    assert "SYNTHETIC" in (finished / "claims.md").read_text(encoding="utf-8")
    assert not [path for path in finished.rglob(".*")]  # no half files
    described = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert described["configuration"]["rounds"] == figures.QUICK.rounds and described["synthetic"] is True


def test_map_agrees_with_plain_loops(finished, matrices):
    P, rows = matrices["cyclic"], table(finished, "map-cyclic-ipo")
    assert len(rows) == len(figures.QUICK.alphas) * len(figures.QUICK.products)
    for row in (rows[2], rows[-1]):  # one that settles, one that turns
        alpha, beta = float(row["alpha"]), float(row["beta"])
        assert float(row["beta_lam"]) == pytest.approx(beta * LAM) and int(row["matrices"]) == len(P)
        path = plain_paths(P, alpha, beta, LAM, figures.QUICK.rounds)[1:]
        variance = path.var(axis=0).sum(axis=1)
        entropy = -(path[-1] * np.log(path[-1])).sum(axis=1)
        # A sum over 200 rounds in another order; a loop that stands counts as standing from 1e-9 on.
        assert float(row["mean_variance"]) == pytest.approx(variance.mean(), rel=1e-6)
        assert float(row["std_variance"]) == pytest.approx(variance.std(), rel=1e-6)
        assert float(row["mean_entropy"]) == pytest.approx(entropy.mean(), rel=1e-6)


def test_series_agrees_with_plain_loops(finished, matrices):
    rows = table(finished, "series-alpha-st-ipo")
    series = figures.QUICK.series["alpha"]
    assert [float(row["alpha"]) for row in rows] == list(series.values)
    row = rows[2]
    path = plain_paths(matrices["st"], float(row["alpha"]), series.beta, series.lam, figures.QUICK.rounds)
    entropy = -(path[-1] * np.log(path[-1])).sum(axis=1)
    assert float(row["mean_entropy"]) == pytest.approx(entropy.mean(), rel=1e-6)
    assert float(row["std_entropy"]) == pytest.approx(entropy.std(), rel=1e-6)


def test_evolution_agrees_with_plain_loops(finished, matrices):
    rows = table(finished, LIGHT)
    panel = figures.QUICK.evolution["cyclic"][2]
    drawn = [row for row in rows if row["setting"] == panel.name]
    P = matrices["cyclic"][int(drawn[0]["matrix"])]
    path = plain_paths(P[None], panel.alpha, panel.product / LAM, LAM, figures.QUICK.evolution_rounds["cyclic"])[:, 0]
    found = np.array([float(row["probability"]) for row in drawn]).reshape(path.shape)
    np.testing.assert_allclose(found, path, atol=1e-7)  # 100 rounds of an oscillation


RANDOM = "averaging-cyclic-ipo-finite"


def test_the_other_families(tmp_path, matrices):
    """Averages and one-shot optima against NumPy; and random figures are the same bytes in another folder."""
    names = [RANDOM, "concentration-st-ipo"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(["reproduce", *names, *QUICK, "--out", str(first)]) == 0
    assert run(["reproduce", RANDOM, *QUICK, "--out", str(second)]) == 0
    for kind in ("tables/{}.csv", "figures/{}.png", "figures/{}.pdf"):
        file = kind.format(f"{RANDOM}.{TAG}")
        assert (first / file).read_bytes() == (second / file).read_bytes()

    config = figures.QUICK
    found = json.loads((first / "finished" / f"{RANDOM}.json").read_text(encoding="utf-8"))["findings"]
    rows = table(first, RANDOM)
    average = np.array([float(row["average"]) for row in rows]).reshape(config.phase_rounds, -1)
    late = average[config.phase_rounds // 2 :]
    assert found["variance_of_average"] == pytest.approx(late.var(axis=0).sum(), rel=1e-6)
    exact = np.array([float(row["exact"]) for row in rows]).reshape(average.shape)
    assert found["exact_variance"] == pytest.approx(exact[config.phase_rounds // 2 :].var(axis=0).sum(), rel=1e-6)
    assert found["variance_of_average"] < 0.5 * found["mean_of_variances"]  # phases differ

    P = matrices["st"]
    logits = config.one_shot_beta * P.mean(axis=2)  # uniform data
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(policy * np.log(policy)).sum(axis=1)
    row = table(first, "concentration-st-ipo")[0]
    assert float(row["weight"]) == 0 and int(row["matrices"]) == len(P)
    assert float(row["mean_entropy"]) == pytest.approx(entropy.mean(), rel=1e-8)


@pytest.mark.slow
def test_rankings_by_hand(tmp_path):
    """How often the Condorcet winner has the largest mean of its row: the axiom under uniform data."""
    assert run(["reproduce", "ranking-audit", *QUICK, "--out", str(tmp_path / "out")]) == 0
    every = ipodyn.data.synthetic_helpsteer(0).P[: figures.QUICK.matrices]
    beats = every > 0.5
    winners = [int(np.flatnonzero(row.sum(axis=1) == 3)[0]) for row in beats if (row.sum(axis=1) == 3).any()]
    tops = [int(P.mean(axis=1).argmax()) for P, row in zip(every, beats, strict=True) if (row.sum(axis=1) == 3).any()]
    (kept,) = [
        row
        for row in table(tmp_path / "out", "ranking-audit")
        if (row["objective"], row["sampler"], row["axiom"]) == ("IPO", "uniform", "condorcet")
    ]
    assert int(kept["matrices"]) == len(winners)
    assert float(kept["fraction"]) == pytest.approx(np.mean(np.array(winners) == np.array(tops)))


def test_a_second_run_does_nothing(finished, capsys):
    before = times(finished)
    assert run(["reproduce", *NAMES, *QUICK, "--out", str(finished)]) == 0
    assert "3 of 3 figures were finished already" in capsys.readouterr().out
    assert times(finished) == before


def test_a_damaged_file_is_made_anew_to_the_same_bytes(finished, capsys):
    kept = {path: path.read_bytes() for path in finished.rglob(f"{LIGHT}.*") if path.suffix != ".json"}
    assert len(kept) == 3
    picture = finished / "figures" / f"{LIGHT}.{TAG}.png"
    picture.write_bytes(kept[picture][:1000])
    assert run(["reproduce", *NAMES, *QUICK, "--out", str(finished)]) == 0
    assert "2 of 3 figures were finished already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept} == kept


def test_another_run_is_refused_and_made_anew_if_asked(finished, tmp_path, capsys):
    folder = tmp_path / "figures"
    shutil.copytree(finished, folder)
    before = times(folder)
    arguments = ["reproduce", LIGHT, *QUICK, "--seed", "1", "--out", str(folder)]
    assert run(arguments) == 2
    message = capsys.readouterr().err
    assert "another run" in message and "seed" in message and message.count("\n") == 1
    assert times(folder) == before
    assert run([*arguments, "--overwrite"]) == 0
    other = TAG.removesuffix("0") + "1"
    made = (folder / "tables" / f"{LIGHT}.{other}.csv").read_bytes()
    assert made != (finished / "tables" / f"{LIGHT}.{TAG}.csv").read_bytes()
    # What is left of the other run counts as absent.
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f"figures/{LIGHT}.{other}.png" in page and "figures/map-cyclic-ipo." not in page


class _Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.targets += [given[key] or "" for key in ("href", "src") if key in given]
        self.alts += [given.get("alt") or ""] if tag == "img" else []


def test_contact_sheet_shows_all_figures_offline(finished):
    text = (finished / "index.html").read_text(encoding="utf-8")
    page = _Links()
    page.feed(text)
    assert len(page.alts) == len(NAMES) and all(len(alt) > 60 for alt in page.alts)
    assert 'name="viewport"' in text and "://" not in text
    for target in page.targets:
        if target != "data:,":
            place = finished / target if not target.startswith("#") else None
            assert place.is_file() if place else f'id="{target[1:]}"' in text


def test_foreseeable_mistakes_are_one_line(tmp_path, capsys):
    assert run(["reproduce", "figure-7", "--out", str(tmp_path / "new")]) == 2
    assert run(["reproduce", LIGHT, "--quick", "--limit", "0", "--out", str(tmp_path / "new")]) == 2
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["reproduce", LIGHT, "--quick", "--limit", "5", "--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "figure-7" in errors[0] and "not empty" in errors[2]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert run(["reproduce"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in figures.FIGURES)


def test_figures_without_matrices_are_left_out(tmp_path, capsys):
    P = np.asarray(ipodyn.problems.bradley_terry(np.array([1.0, 0.5, 0.0])))
    np.save(tmp_path / "P.npy", P[None])
    out = tmp_path / "figures"
    assert run(["reproduce", LIGHT, *QUICK, "--preferences", str(tmp_path / "P.npy"), "--out", str(out)]) == 0
    assert "left out, the data hold no cyclic matrix" in capsys.readouterr().out
    assert not list((out / "figures").iterdir()) and "not run" in (out / "claims.md").read_text(encoding="utf-8")


def test_a_local_helpsteer_is_named_everywhere(tmp_path, rng):
    file = helpsteer(tmp_path / "train.jsonl.gz", rng, prompts=40)
    out = tmp_path / "figures"
    assert run(["reproduce", "evolution-st-ipo", "--quick", "--helpsteer", str(file), "--out", str(out)]) == 0
    tag = "helpsteer-train-jsonl-gz-train-disjoint-groups-of-4-seed-0"
    for made in (f"figures/evolution-st-ipo.{tag}.png", f"tables/evolution-st-ipo.{tag}.csv"):
        kept = (out / made).read_bytes()
        assert b"HelpSteer train.jsonl.gz" in kept and b"SYNTHETIC" not in kept
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("HelpSteer train.jsonl.gz (train)") >= 3 and str(tmp_path) not in page


def test_names_families_and_all():
    assert [figure.name for figure in figures.chosen(["all"])] == list(figures.FIGURES)
    assert {figure.family for figure in figures.chosen(["map", LIGHT])} == {"map", "evolution"}
    assert all(claim.figure in figures.FIGURES for claim in figures.CLAIMS)
    assert len({claim.name for claim in figures.CLAIMS}) == len(figures.CLAIMS)


REDUCED = dataclasses.replace(
    figures.PAPER,
    rounds=1000,
    alphas=(0.0, 0.3, 0.6, 0.9),
    products=(0.5, 2.5, 4.5, 6.5, 8.5),
    trajectories=32,
    phase_rounds=600,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hanna", "summeval"])
def test_claims_on_real_data(best_extracts, tmp_path, name):
    """The qualitative claims of the paper, on human ratings; on generated ones, that each is judged."""
    import real_data as files

    axes = {"hanna": files.HANNA_AXES, "summeval": files.SUMMEVAL_AXES}[name]
    path = getattr(files, name)(best_extracts.folder, tmp_path)
    data = ipodyn.data.load_ratings(path, prompt="prompt_id", attributes=list(axes), response="system_id", group=4)
    st = data.strongly_transitive().P[:60]
    material = figures.Material(data.P, data.cyclic().P, st, data.source, False)
    wanted = [f"map-{kind}-{loop}" for kind in ("cyclic", "st") for loop in ("ipo", "dpo")]
    wanted.append("averaging-cyclic-ipo-finite")
    found = {each: figures.FIGURES[each].make(REDUCED, material, None).findings for each in wanted}
    judged = {item.claim.name: item for item in figures.judge_claims(found) if item.verdict != "not run"}
    assert len(judged) == 11
    assert not best_extracts.published or {item.verdict for item in judged.values()} == {"agrees"}, [
        (key, item.verdict, item.evidence) for key, item in judged.items() if item.verdict != "agrees"
    ]
