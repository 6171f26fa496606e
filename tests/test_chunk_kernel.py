"""The GPU kernel of the rounds: its arithmetic by interpretation, its place in the program by lowering for CUDA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

from ipodyn import DPO, MRS
from ipodyn._objectives.response import LinearResponse
from ipodyn._rollouts import chunk_kernel as _chunk_kernel
from ipodyn._rollouts.rounds import run_until_standing, sum_rounds
from ipodyn._rollouts.statistics import Chunking

S = 256


def loops(rng, K, dtype="float32", **options):
    P = complementary(rng.uniform(size=(S, K, K)))
    pi_ref = rng.dirichlet(np.ones(K), S)
    pi_ref[:40, 0] = 0  # a response that the reference excludes
    pi_ref /= pi_ref.sum(-1, keepdims=True)
    alpha, beta, lam = rng.uniform(0, 1, S), np.exp(rng.uniform(-1, 4, S)), rng.uniform(0, 1, S)
    fields = [jnp.moveaxis(jnp.asarray(x, dtype), 0, -1) for x in (P, alpha, beta, lam, pi_ref)]
    loop = MRS(fields[0], alpha=fields[1], beta=fields[2], lam=fields[3], pi_ref=fields[4], **options)
    one_round = loop.round()
    return one_round, one_round.start(loop.pi_0)


@pytest.mark.parametrize("K", [2, 4])
def test_interpreted_kernel_equals_the_scan(rng, K):
    one_round, state = loops(rng, K)
    assert _chunk_kernel.serves(one_round, state)
    length = 7  # one rounding of a logit of size 30 grows by beta in every round
    (after, total, squares), _ = jax.jit(sum_rounds, static_argnums=2)(one_round, state, length)
    mine, my_total, my_squares = _chunk_kernel.sum_rounds(one_round, state, length, interpret=True)
    assert isinstance(one_round.response, LinearResponse)
    gentle = np.asarray(one_round.response.gain).max((0, 1)) < 2  # rounding is not blown up there
    assert gentle.sum() > 50
    for a, b in ((mine.policy, after.policy), (my_total, total), (my_squares, squares)):
        np.testing.assert_allclose(a[..., gentle], b[..., gentle], rtol=0, atol=2e-5)
        assert np.median(np.abs(a - b)) < 1e-6
    assert np.all(np.asarray(mine.policy)[0, :40] == np.asarray(after.policy)[0, :40])  # excluded stays excluded


def test_it_serves_what_fits(rng):
    assert not _chunk_kernel.serves(*loops(rng, 3, dtype="float64"))
    assert _chunk_kernel.serves(*jax.eval_shape(lambda: loops(rng, 8)))
    assert not _chunk_kernel.serves(*jax.eval_shape(lambda: loops(rng, 9)))
    assert not _chunk_kernel.serves(*jax.eval_shape(lambda: loops(rng, 3, objective=DPO())))
    one_round, state = loops(rng, 3)
    assert not _chunk_kernel.serves(*jax.tree.map(lambda x: x[..., :100], (one_round, state)))


def test_sweeps_use_it_on_cuda_and_nowhere_else(rng):
    """Lowering for CUDA needs no GPU: it compiles the kernel to Triton's language."""
    one_round, state = loops(rng, 4)
    plan = Chunking.of(200, None)
    traced = jax.jit(lambda one_round, state: run_until_standing(one_round, state, plan)).trace(one_round, state)
    assert "mrs_ipo_rounds" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "mrs_ipo_rounds" not in traced.lower(lowering_platforms=("cpu",)).as_text()
