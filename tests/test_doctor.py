"""`ipodyn doctor`: what a report needs, and that a wrong library is noticed."""

import importlib.metadata

import equinox as eqx
import jax
import pytest

import ipodyn

pytest.importorskip("typer")

from ipodyn._cli.app import run


def test_versions_settings_and_known_answers(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    monkeypatch.setenv("HF_TOKEN", "secret")
    before = jax.config.values["jax_enable_x64"]
    assert run(["doctor"]) == 0
    assert jax.config.values["jax_enable_x64"] == before
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    told = {name: rest for name, rest in lines if name != "ok"}
    for name in ("ipodyn", "jax", "jaxlib", "equinox", "numpy", "zarr", "matplotlib"):
        assert told[name] == importlib.metadata.version(name)
    assert told["XLA_FLAGS"] == "--xla_cpu_prefer_vector_width=256"
    assert "secret" not in str(lines)
    assert sum(name == "ok" for name, _ in lines) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_not_installed_is_named_with_its_extra(capsys, monkeypatch, order):
    """Build tools write an extra that includes another one out, and in any order."""
    version = importlib.metadata.version
    requires = ["jax>=0.7", "obstore; extra == 'cloud'", "zarr>=3; extra == 'cloud'", "zarr>=3; extra == 'io'"]
    requires += ["zarr>=3; extra == 'all'", "obstore; extra == 'all'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires[::order])

    def without_zarr(name):
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_zarr)
    assert run(["doctor"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["zarr", "not installed (pip install 'ipodyn[io]')"] in rows


def test_a_wrong_answer_is_noticed(capsys, monkeypatch):
    right = ipodyn.stability

    def wrong(loop, policy):
        # An error of one part in a thousand, as of a wrong coefficient.
        return eqx.tree_at(lambda s: s.radius, right(loop, policy), replace_fn=lambda radius: 1.001 * radius)

    monkeypatch.setattr(ipodyn, "stability", wrong)
    assert run(["doctor"]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("WRONG") == 2
    assert captured.err.count("\n") == 1 and "three-cycle's radius, float32" in captured.err
