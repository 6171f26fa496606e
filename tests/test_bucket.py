"""Stores in buckets, over HTTP against a server of S3's interface on this machine: the promises of a folder."""

import signal
import threading
import time
import urllib.request

import jax
import numpy as np
import pytest

import ipodyn
import ipodyn._maps.store
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.grid import Grid
from ipodyn._maps.place import Bucket, Folder, place_at
from ipodyn._maps.stability_map import MapProblem, as_dataset
from ipodyn._maps.store import Store

obstore = pytest.importorskip("obstore")
server = pytest.importorskip("moto.server")
xarray = pytest.importorskip("xarray")
pytest.importorskip("typer")

from processes import finish, start  # noqa: E402

from ipodyn import plot  # noqa: E402
from ipodyn._cli.app import run  # noqa: E402

JOB = ["map", "--problem", "random", "--limit", "6", "--alpha", "0:0.9:2", "--beta", "1:9:3", "--rounds", "60"]
TABLES = {"map.png", "matrices.csv", "matrices.npz", "report.txt", "summary.csv"}


@pytest.fixture(scope="module")
def bucket():
    """s3://trial on a free port of this machine; processes that tests start see it too."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/trial", method="PUT")).close()
        yield "s3://trial"
    running.stop()


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(ipodyn._maps.store, "POINTS_PER_PIECE", 24)
    monkeypatch.setattr(ipodyn._maps.store, "MOST_REGIONS", 2)
    P = jax.vmap(lambda key: ipodyn.problems.random(key, 3))(jax.random.split(jax.random.key(1), 10))
    return MapProblem.of(Grid.of(P, alpha=[0.1, 0.9], beta=[0.5, 2.0, 4.0], lam=0.8), Request(num_steps=60))


def opened(url):
    """What xarray and zarr read there, with a store of theirs."""
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    store = ObjectStore(from_url(f"{url}/map.zarr"), read_only=True)
    with xarray.open_zarr(store, consolidated=False, chunks=None) as dataset:
        return dataset.load()


def keys(url):
    return {entry["path"] for batch in obstore.list(obstore.store.from_url(url)) for entry in batch}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_places(kind, request, tmp_path):
    """What both kinds of place promise, one by one."""
    place = Folder(tmp_path / "a") if kind == "folder" else Bucket(f"{request.getfixturevalue('bucket')}/places")
    place.prepare()
    assert place.names() == set() and place.read("none") is None and place.read("none", 3, 4) is None
    assert place.create("one.json", b"first") and not place.create("one.json", b"second")
    assert place.read("one.json") == b"first"
    place.write("deep/er/two.bin", bytes(range(256)))
    assert place.read("deep/er/two.bin", 10, 5) == bytes(range(10, 15))
    assert place.read("deep/er/two.bin", 250) == bytes(range(250, 256))
    assert place.read("deep/er/two.bin", 256) == place.read("deep/er/two.bin", 300) == b""
    assert place.names() == {"one.json", "deep"} and place.names("deep") == {"er"} and place.names("no") == set()
    with pytest.raises(ZeroDivisionError), place.writer("deep/er/three.bin") as writer:
        writer.write(b"x" * 20_000_000)  # more than goes in one request
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        place.publish("table.csv", lambda path: 1 // (path.write_text("half a") == 0))
    assert place.names("deep/er") == {"two.bin"} and place.names() == {"one.json", "deep"}
    place.publish("table.csv", lambda path: path.write_text("all of it"))
    assert place.read("table.csv") == b"all of it"
    with place.writer("big") as writer:
        for number in range(3):
            writer.write(bytes([number]) * 7_000_000)
    assert place.read("big", 6_999_999, 2) == b"\x00\x01" and len(place.read("big", 20_000_000) or b"") == 1_000_000
    place.delete("one.json")
    place.delete("one.json")
    assert place.read("one.json") is None


def test_fills_resumes_and_loads(bucket, problem):
    url = f"{bucket}/filled"
    store = Store.open(url, problem)
    store.write(store.regions[0], problem.compute)
    again = Store.open(url, problem)
    assert again.run == store.run and again.missing() == again.pending() == store.regions[1:]
    for region in again.missing():
        again.write(region, problem.compute)
    direct = as_dataset(problem, problem.compute())
    for found in again.load(), opened(url):
        xarray.testing.assert_equal(found, direct)


def test_damage_is_noticed_and_other_runs_are_refused(bucket, problem):
    url = f"{bucket}/damaged"
    store = Store.open(url, problem)
    for region in store.regions:
        store.write(region, problem.compute)
    for key, pending in {
        "map.zarr/entropy/c/1/0/0": [1],
        "map.zarr/regime/c/0/0/0": [0],
        "regions/00001.json": [1],
        "map.zarr/alpha/c/0": [],
        "map.zarr/radius/zarr.json": [],
    }.items():
        content = store.place.read(key)
        assert content is not None
        store.place.write(key, content[:20] + bytes([content[20] ^ 4]) + content[21:])
        assert [region.index for region in Store.open(url, problem).pending()] == pending
        if pending:
            store.place.write(key, content)
        assert store.place.read(key) == content
    other = MapProblem.of(Grid.of(np.full((2, 2, 2), 0.5), alpha=[0.5], beta=[1.0]))
    with pytest.raises(ValueError, match="holds another run"):
        Store.open(url, other)
    store.place.delete("run.json")
    with pytest.raises(ValueError, match="holds no run of ipodyn"):
        Store.open(url, problem)


def test_of_runs_that_begin_at_once_one_gets_the_bucket(bucket, problem):
    several = [MapProblem.of(Grid.of(np.full((2, 2, 2), 0.5), alpha=[0.5], beta=[1.0 + k])) for k in range(6)]
    found: list = [None] * 6
    together = threading.Barrier(6)

    def work(k):
        together.wait()
        try:
            found[k] = Store.open(f"{bucket}/race", several[k])
        except ValueError as error:
            found[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(store, Store) for store in found) == 1
    assert all("holds another run" in str(error) for error in found if not isinstance(error, Store)), found


def test_the_command(bucket, tmp_path, capsys, monkeypatch):
    """In a bucket the same bytes as in a folder; a second run finds all of it."""
    monkeypatch.setattr(plot, "stability_map", lambda dataset: plot.simplex(np.full((1, 3), 1 / 3)))
    url = f"{bucket}/command"
    assert run([*JOB, "--out", str(tmp_path / "folder")]) == 0
    assert run([*JOB, "--out", url]) == 0
    assert f"In {url}: map.png" in capsys.readouterr().out
    assert Bucket(url).names() == TABLES | {"map.zarr", "regions", "run.json"}
    for name in ("matrices.csv", "summary.csv"):
        assert Bucket(url).read(name) == (tmp_path / "folder" / name).read_bytes()
    assert run([*JOB, "--out", url]) == 0
    assert "has all regions" in capsys.readouterr().out
    assert run([*JOB, "--lam", "0.7", "--out", url]) == 2
    assert "holds another run" in capsys.readouterr().err


WRONG = {
    "no such bucket": ("s3://nowhere/map", "cannot be written"),
    "no bucket": ("s3://", "names no bucket"),
    "scheme": ("ftp://host/map", "no store is known behind ftp://"),
}


@pytest.mark.parametrize(("url", "says"), WRONG.values(), ids=WRONG.keys())
def test_wrong_places_are_one_line(bucket, capsys, url, says):
    assert run([*JOB, "--out", url]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(ImportError, match=r"pip install 'ipodyn\[cloud\]'"):
        place_at("gs://anywhere/map")


@pytest.mark.slow
def test_killed_and_resumed(bucket, tmp_path):
    """A command that is killed after some regions; the next takes them over and ends as if nothing had been."""
    url = f"{bucket}/killed"
    job = [*JOB[:4], "24", *JOB[5:]]
    place = Bucket(url)
    kept = 0
    for more in (1, 5):
        process = start([*job, "--out", url], tmp_path, points=1)
        while process.poll() is None and len(place.names("regions")) < kept + more:
            time.sleep(0.02)  # the server answers from this process
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        kept = len(place.names("regions"))
    assert 6 <= kept < 24
    code, printed, err = finish(start([*job, "--out", url], tmp_path, points=1))
    assert code == 0, err
    assert f"has {kept} of 24 regions" in printed
    assert finish(start([*job, "--out", str(tmp_path / "whole")], tmp_path, points=1))[0] == 0
    found, whole = opened(url), xarray.open_zarr(tmp_path / "whole" / "map.zarr", consolidated=False, chunks=None)
    xarray.testing.assert_equal(found, whole)
    assert place.read("matrices.csv") == (tmp_path / "whole" / "matrices.csv").read_bytes()
