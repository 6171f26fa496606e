"""Configuration first; ipodyn is never imported here, so that the run-time shape checker can hook its import."""

import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)  # so that everything on many devices is tested
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Compiling is most of the time: programs are kept for the other workers, for the processes that tests start, and for
# the next run.
_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"
for _name, _value in {
    "jax_compilation_cache_dir": str(_CACHE),
    "jax_persistent_cache_min_compile_time_secs": 0.2,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}.items():
    jax.config.update(_name, _value)
    os.environ.setdefault(_name.upper(), str(_value))


def _optimise(wanted: bool) -> None:
    """Whether LLVM optimises what is compiled from now on, here and in processes that are started."""
    if jax.config.values["jax_disable_most_optimizations"] == wanted:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", not wanted)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(not wanted).lower()


def _quick(config: pytest.Config) -> bool:
    return config.option.markexpr == "not slow"


def pytest_configure(config: pytest.Config) -> None:
    """Quick tests leave out the optimisation of machine code, which a third of their time went into.

    The programs are the same to JAX and in what XLA makes of them; LLVM translates them as they stand. Results differ
    by roundings, within the same tolerances, and loops run slower. Tests that compare bit for bit are marked
    `optimised`: they compile as users do, and so does every other choice of tests (`-m slow`, `-m ""` for all).
    """
    if _quick(config):
        _optimise(False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if _quick(item.config) and item.get_closest_marker("optimised"):
        _optimise(True)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if _quick(item.config) and not (nextitem and nextitem.get_closest_marker("optimised")):
        _optimise(False)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever the order of tests, those of one file that are optimised stand together: each change recompiles."""
    files = {path: place for place, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (files[item.path], item.get_closest_marker("optimised") is not None))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The seed of the order, also where `-q` leaves out the head of the report."""
    seed = getattr(config.option, "randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"in random order, which --randomly-seed={seed} repeats")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays with one worker, which then traces, compiles and prepares its things once."""
    if config.option.dist != "load":  # what `-n` alone stands for
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A NumPy generator seeded by the name of the test: the same in every order and on every worker."""
    return np.random.default_rng(list(request.node.name.encode()))


class Extracts(NamedTuple):
    """A folder of preference data, and whether it is the published one, whose counts are known."""

    folder: pathlib.Path
    published: bool


@pytest.fixture(scope="session")
def made_extracts(tmp_path_factory: pytest.TempPathFactory) -> Extracts:
    """Generated files of the published schemas."""
    pytest.importorskip("polars")
    import made_data

    return Extracts(made_data.write(tmp_path_factory.mktemp("made")), False)


@pytest.fixture(params=["made", "published"])
def extracts(request: pytest.FixtureRequest) -> Extracts:
    """Generated files everywhere; the published ones too, where they lie beside the checkout."""
    if request.param == "made":
        return request.getfixturevalue("made_extracts")
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA.name}/ is not beside the checkout; the generated files stand in")
    return Extracts(SHARED_DATA, True)


@pytest.fixture
def best_extracts(request: pytest.FixtureRequest) -> Extracts:
    """The published files where they lie beside the checkout, else generated ones: for tests that take long."""
    return Extracts(SHARED_DATA, True) if SHARED_DATA.is_dir() else request.getfixturevalue("made_extracts")
