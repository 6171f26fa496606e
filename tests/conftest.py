"""Configuration first; ipodyn is never imported here, so that the run-time shape checker can hook its import."""

import pathlib

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)  # so that everything on many devices is tested
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A NumPy generator seeded by the name of the test: the same in every order and on every worker."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture
def real_data():
    """The folder of real preference data; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real preference data not found at {SHARED_DATA.name}/ beside the checkout")
    return SHARED_DATA
