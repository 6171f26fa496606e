"""The command line: what a run leaves behind, and that it is what the library computes."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import ipodyn
from ipodyn import plot

pytest.importorskip("typer")
xarray = pytest.importorskip("xarray")
image = pytest.importorskip("matplotlib.image")

from ipodyn._cli import summary  # noqa: E402
from ipodyn._cli.app import run  # noqa: E402
from ipodyn._cli.output import console, table  # noqa: E402
from ipodyn._cli.parsing import parse_grid  # noqa: E402
from ipodyn._maps.stability_map import MapProblem  # noqa: E402

SMALL = ["--alpha", "0:0.9:3", "--beta", "1:9:4", "--rounds", "200", "--limit", "12"]
FILES = {"map.zarr", "map.png", "summary.csv", "matrices.csv", "matrices.npz", "report.txt", "run.json", "regions"}


def read(folder):
    with xarray.open_zarr(folder / "map.zarr", consolidated=False, chunks=None) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished map of twelve synthetic matrices."""
    folder = tmp_path_factory.mktemp("cli") / "map"
    assert run(["map", *SMALL, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def sketch(monkeypatch):
    """A small picture in place of the map's, for runs whose picture is not looked at."""
    monkeypatch.setattr(plot, "stability_map", lambda dataset: plot.simplex(np.full((1, 3), 1 / 3)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # zarr on details of its format
def test_map_is_what_the_library_computes(finished):
    found = read(finished)
    P = ipodyn.data.synthetic_helpsteer(0).P[:12].astype(np.float32)
    direct = ipodyn.stability_map(P, alpha=np.linspace(0, 0.9, 3), beta=np.linspace(1, 9, 4), lam=0.8, num_steps=200)
    assert dict(found.sizes) == {"matrix": 12, "alpha": 3, "beta": 4}
    assert set(found) == set(direct)
    for name in direct:
        np.testing.assert_array_equal(found[name].values, direct[name].values, err_msg=name)
        assert {"long_name", "units"} <= set(found[name].attrs)
    for name, value in {"lam": 0.8, "num_steps": 200, "objective": "IPO", "seed": 0, "dtype": "float32"}.items():
        assert found.attrs[name] == pytest.approx(value) if isinstance(value, float) else found.attrs[name] == value
    assert found.attrs["synthetic"] and "synthetic" in found.attrs["source"]
    assert {"ipodyn_version", "jax_version", "device", "created"} <= set(found.attrs)
    assert json.loads(found.attrs["data_report"])["filters"] == [["first 12", 12]]


def test_map_leaves_whole_files(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    picture = image.imread(finished / "map.png")
    assert min(picture.shape[:2]) > 500 and picture[..., :3].std() > 0.05
    report = (finished / "report.txt").read_text()
    assert "SYNTHETIC" in report and "6,000 read" in report and "\x1b" not in report
    again = ipodyn.data.load_preferences(finished / "matrices.npz")
    np.testing.assert_array_equal(again.P, ipodyn.data.synthetic_helpsteer(0).P[:12])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_agree_with_the_arrays(finished):
    found = read(finished)
    with open(finished / "summary.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 3 * 4
    regime, entropy = found.regime.values, found.entropy.values.astype(float)
    for place, cell in enumerate(cells):
        a, b = divmod(place, 4)
        assert float(cell["alpha"]) == pytest.approx(found.alpha.values[a], abs=1e-6)
        assert float(cell["fraction_converges"]) == pytest.approx(np.mean(regime[:, a, b] == 0), abs=1e-5)
        assert float(cell["mean_entropy"]) == pytest.approx(entropy[:, a, b].mean(), abs=1e-5)
        total = sum(float(cell[f"fraction_{name}"]) for name in ("converges", "oscillates", "collapses", "unresolved"))
        assert total == pytest.approx(1, abs=1e-5)
    with open(finished / "matrices.csv", newline="") as file:
        matrices = list(csv.DictReader(file))
    P = ipodyn.data.load_preferences(finished / "matrices.npz").P
    for index, row in enumerate(matrices):
        assert float(row["fraction_collapses"]) == pytest.approx(np.mean(regime[index] == 2), abs=1e-5)
        assert bool(int(row["cyclic"])) == bool(ipodyn.has_cycle(P[index]))
        assert bool(int(row["strongly_transitive"])) == bool(ipodyn.strong_order(P[index]).holds)


def test_the_same_run_continues_and_another_is_refused(finished, sketch, capsys, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in finished.rglob("*") if "zarr" in str(path)}
    computed = []
    monkeypatch.setattr(MapProblem, "compute", lambda *args, **kwargs: computed.append(args))
    assert run(["map", *SMALL, "--out", str(finished)]) == 0
    assert not computed and "already" in capsys.readouterr().out
    assert run(["map", *SMALL, "--lam", "0.7", "--out", str(finished)]) == 2
    message = capsys.readouterr().err
    assert "another run" in message and message.count("\n") == 1
    after = {path.name: path.stat().st_mtime_ns for path in finished.rglob("*") if "zarr" in str(path)}
    assert before == after and {path.name for path in finished.iterdir()} == FILES


def test_ctrl_c_is_one_line_and_the_run_can_go_on(sketch, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    arguments = ["map", *SMALL, "--out", str(tmp_path / "map")]
    with monkeypatch.context() as patch:
        patch.setattr(MapProblem, "compute", interrupted)
        assert run(arguments) == 130
    assert "0 of 1 regions" in capsys.readouterr().err
    assert not (tmp_path / "map" / "map.png").exists()
    assert run(arguments) == 0
    assert {path.name for path in (tmp_path / "map").iterdir()} == FILES


def test_a_full_disk_leaves_no_half_file(tmp_path, capsys, monkeypatch):
    def full(path, *args):
        path.write_text("half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "write_cells", full)
    assert run(["map", *SMALL, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "summary.csv" in error and "No space left" in error and error.count("\n") == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"map.zarr", "regions", "run.json", "matrices.npz", "matrices.csv"}


def test_seed_decides_the_data(finished, sketch, tmp_path):
    for name, seed in (("same", "0"), ("other", "4")):
        assert run(["map", *SMALL, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    first, same, other = (folder / "matrices.csv" for folder in (finished, tmp_path / "same", tmp_path / "other"))
    assert first.read_text() == same.read_text() != other.read_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_map_without_rollouts(tmp_path, capsys):
    rock_paper_scissors = ["--problem", "three_cycle", "--strength", "0.25", "--lam", "1", "--dtype", "float64"]
    grid = ["--alpha", "0.5:0.9:2", "--beta", "1:9:3", "--analytic", "--out", str(tmp_path / "map")]
    assert run(["map", *rock_paper_scissors, *grid]) == 0
    out = capsys.readouterr().out
    assert "fixed points, no rollouts" in out and "rounds" not in out and "--start" not in out
    assert "largest radius" in out
    found = read(tmp_path / "map")
    assert not {"variance", "entropy", "disagreement"} & set(found) and "num_steps" not in found.attrs
    # At the uniform policy the eigenvalues are alpha +- i beta strength / sqrt(3).
    alpha, beta = np.array([0.5, 0.9])[:, None], np.array([1.0, 5.0, 9.0])
    radius = np.sqrt(alpha**2 + (beta * 0.25 / np.sqrt(3)) ** 2)
    np.testing.assert_allclose(found.radius.values[0], radius, rtol=1e-10)
    np.testing.assert_array_equal(found.regime.values[0], np.where(radius < 1, 0, 1))
    with open(tmp_path / "map" / "summary.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [float(cell["mean_radius"]) for cell in cells] == pytest.approx(radius.reshape(-1).tolist(), rel=1e-5)
    assert [float(cell["mean_fixed_point_entropy"]) for cell in cells] == pytest.approx([np.log(3)] * 6, rel=1e-5)
    assert not any("variance" in name or "moving" in name for name in cells[0])
    with open(tmp_path / "map" / "matrices.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["largest_radius"]) == pytest.approx(radius.max(), rel=1e-5)
    # Rounds and start decide nothing here: the same run, and one line that says so.
    assert run(["map", *rock_paper_scissors, *grid, "--rounds", "7", "--start", "0.5,0.3,0.2"]) == 0
    out = capsys.readouterr().out
    assert "--rounds and --start changed nothing" in out and "already" in out


@pytest.mark.slow
def test_verdicts_that_differ_are_told(sketch, tmp_path, capsys):
    wins = np.roll(np.eye(4), 1, axis=1)  # each of four beats the next; opposite ones tie
    np.save(tmp_path / "P.npy", 0.5 + 0.25 * (wins - wins.T)[None])
    grid = [
        "--alpha",
        "0.5:0.9:2",
        "--beta",
        "1:9:3",
        "--lam",
        "1",
        "--rounds",
        "200",
        "--start",
        "0.25,0.25,0.25,0.25",
    ]
    assert run(["map", "--preferences", str(tmp_path / "P.npy"), *grid, "--out", str(tmp_path / "map")]) == 0
    # From the uniform policy, the fixed point, no rollout moves: all numbers are exact in binary. The eigenvalues are
    # alpha +- i beta / 8, outside the unit circle in three of the six cells.
    assert "3 cells: the rollout stands still where the slightest nudge would grow" in capsys.readouterr().out
    with open(tmp_path / "map" / "summary.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [float(cell["fraction_unstable_but_still"]) for cell in cells] == [
        float(r["mean_radius"]) > 1 for r in cells
    ]
    assert all(float(cell["fraction_stable_but_moving"]) == 0 for cell in cells)
    with open(tmp_path / "map" / "matrices.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["fraction_unstable_but_still"]) == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ratings_from_a_table_with_dpo(sketch, tmp_path, rng, capsys):
    rows = [f"{prompt},{a},{b}" for prompt in range(6) for a, b in rng.integers(0, 5, (4, 2))]
    table = tmp_path / "ratings.csv"
    table.write_text("\n".join(["story,wit,style", *rows, "6,1,1"]) + "\n")
    arguments = ["--ratings", str(table), "--prompt", "story", "--attributes", "wit,style", "--group", "4"]
    grid = ["--alpha", "0.5", "--beta", "1:4:3", "--rounds", "20", "--objective", "dpo", "--dtype", "float64"]
    assert run(["map", *arguments, *grid, "--out", str(tmp_path / "map")]) == 0
    assert "25 read, 24 used, 1 dropped" in capsys.readouterr().out
    found = read(tmp_path / "map")
    assert found.variance.dtype == np.float64 and found.attrs["objective"] == "DPO"
    assert np.isfinite(found.entropy.values).all()


@pytest.mark.slow
def test_balanced_problems_do_not_start_on_their_fixed_point(sketch, tmp_path, capsys):
    grid = ["--alpha", "0.9", "--beta", "9", "--lam", "1", "--rounds", "300"]
    assert run(["map", "--problem", "three_cycle", *grid, "--out", str(tmp_path / "map")]) == 0
    out = capsys.readouterr().out
    # Radius^2 = 0.81 + 0.09 * 81 / 3 > 1: unstable, though a start on the uniform policy would never leave it.
    assert "start pi_0 moved off every symmetry" in out
    with open(tmp_path / "map" / "summary.csv", newline="") as file:
        (cell,) = csv.DictReader(file)
    assert float(cell["fraction_oscillates"]) == 1


def test_rollout_prints_and_draws(tmp_path, capsys):
    arguments = ["rollout", "--strength", "0.4", "--alpha", "0.5", "--beta", "2", "--lam", "1", "--rounds", "300"]
    assert run([*arguments, "--dtype", "float64", "--out", str(tmp_path / "loop.png")]) == 0
    out = capsys.readouterr().out
    # Radius^2 = 0.25 + 0.16 * 4 / 3 < 1: the uniform policy is reached, whose entropy is log 3.
    assert "regime     converges" in out and "final      0.3333 0.3333 0.3333" in out and "1.09861 nats" in out
    assert image.imread(tmp_path / "loop.png")[..., :3].std() > 0.05
    assert run([*arguments, "--out", str(tmp_path / "loop.png")]) == 2
    assert "exists already" in capsys.readouterr().err
    np.save(
        tmp_path / "P.npy", np.stack([np.full((3, 3), 0.5), ipodyn.problems.bradley_terry(np.array([1.0, 0.0, 0.5]))])
    )
    more = ["--preferences", str(tmp_path / "P.npy"), "--index", "1", "--start", "0.7,0.2,0.1", "--rounds", "300"]
    assert run(["rollout", *more, "--dtype", "float64", "--out", str(tmp_path / "loop.pdf")]) == 0
    assert (tmp_path / "loop.pdf").read_bytes().startswith(b"%PDF")
    assert "start      0.7000 0.2000 0.1000" in capsys.readouterr().out


def test_grids():
    np.testing.assert_allclose(parse_grid("0:1:5", "--alpha"), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(parse_grid("0.1:100:4:log", "--beta"), [0.1, 1, 10, 100])
    np.testing.assert_allclose(parse_grid("2e-1", "--beta"), [0.2])


def command(*arguments, **environment):
    code = "from ipodyn._cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_tables_in_a_pipe_are_plain_and_lose_no_word(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks and CI set it
    pipe, words = io.StringIO(), [f"word{index}" for index in range(40)]
    target = console(pipe)
    rows = [["prompt 7", "unstable", " ".join(words)]]
    target.print(table("Why", ["prompt", "verdict", "why"], rows, decorated=target.is_terminal))
    assert "\x1b" not in pipe.getvalue()
    assert set(words) | {"prompt", "7", "unstable"} <= set(pipe.getvalue().split())


def test_as_a_process(tmp_path):
    grid = ["--alpha", "0:0.9:2", "--beta", "1:9:2", "--rounds", "50", "--limit", "4", "--out", str(tmp_path / "map")]
    found = command("map", "--problem", "cyclic", *grid, XLA_FLAGS="--xla_force_host_platform_device_count=3")
    assert found.returncode == 0, found.stderr
    # Three devices, as the user's flag says; plain text in a pipe.
    assert "3 x cpu" in found.stdout and "\x1b" not in found.stdout and found.stderr == ""


def test_double_precision_is_switched_on(tmp_path):
    """In a process of its own, where JAX computes in single precision unless it is told otherwise."""
    grid = ["--alpha", "0.5", "--beta", "1", "--rounds", "50", "--dtype", "float64", "--out", str(tmp_path / "map")]
    found = command("map", "--problem", "cyclic", "--limit", "2", *grid)
    assert found.returncode == 0, found.stderr
    assert "float64" in found.stdout
    entropy = read(tmp_path / "map").entropy.values
    assert entropy.dtype == np.float64 and (entropy != entropy.astype(np.float32)).all()  # more digits than a float32


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"ipodyn {ipodyn.__version__}\n"


def test_missing_packages_are_one_line():
    code = "import sys; sys.modules['typer'] = None; from ipodyn._cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert found.stderr == "ipodyn: the command line needs typer and rich: pip install 'ipodyn[cli]'\n"
