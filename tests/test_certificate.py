"""The error of a fixed point is a bound: against extended precision, for perturbed answers, at the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
from benchmarks.attacks import fixed_points as attacks
from ipodyn import MRS, RESULTS
from ipodyn._equilibria.error_bound import certified
from ipodyn._equilibria.fixed_point import solve_fixed_point
from ipodyn._equilibria.newton_path import Pull, Settled
from ipodyn._numerics.double import Double, two_product, two_sum


@pytest.mark.optimised
def test_twice_the_digits_of_float32(rng):
    """float64 holds every sum and product here exactly, or to 2^-53: what is left are a few units of 2^-48."""
    a, b, c = (rng.normal(size=1000).astype(np.float32) * 10 ** rng.uniform(-3, 3, 1000) for _ in range(3))
    a, b, c = (x.astype(np.float32) for x in (a, b, c))

    @jax.jit
    def work(a, b, c):
        return two_product(a, b), two_sum(a, c), two_product(a, b) + two_sum(b, c), two_sum(a, c).reciprocal()

    product, total, both, inverse = (np.asarray(x.high, np.float64) + np.asarray(x.low) for x in work(a, b, c))
    a, b, c = (x.astype(np.float64) for x in (a, b, c))
    np.testing.assert_array_equal(product, a * b)
    np.testing.assert_array_equal(total, a + c)
    size = np.abs(a * b) + np.abs(b + c)
    assert np.all(np.abs(both - (a * b + (b + c))) <= 4 * 2.0**-48 * size)
    np.testing.assert_allclose(inverse * (a + c), 1, rtol=0, atol=8 * 2.0**-48)
    assert isinstance(two_sum(jnp.ones(1), jnp.ones(1)), Double)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_error_above_the_bound(rng, dtype):
    """Loops with everything that valid input allows; the reference certifies itself."""
    _, found = attacks.attack(rng, 400, 4, dtype)
    assert found.known[found.successful].all()
    assert not (found.excess[found.successful] > 0).any()
    # float32 refuses where the rounding of P itself moves the answer: kappa above 1e7.
    assert found.successful[found.kappa < 1e6].mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("K", [2, 3, 7, 16])
def test_no_error_above_the_bound_for_many(rng, dtype, K):
    _, found = attacks.attack(rng, 2000, K, dtype)
    assert found.known[found.successful].all()
    assert not (found.excess[found.successful] > 0).any()


def blocks(rng, M, K, dtype, kappa):
    """Loops with the batch behind, and their parts."""
    P, pi_ref, pi_0 = random_P(rng, M, K), rng.dirichlet(np.ones(K), M), rng.dirichlet(np.ones(K), M)
    fields = [jnp.asarray(np.moveaxis(x, 0, -1), dtype) for x in (P, pi_ref, pi_0)]
    fill = [jnp.full(M, x, dtype) for x in (0.5, kappa / 2, 0.7)]
    return MRS(fields[0], alpha=fill[0], beta=fill[1], lam=fill[2], pi_ref=fields[1], pi_0=fields[2])


@pytest.mark.parametrize(("dtype", "kappa"), [("float64", 100.0), ("float32", 10.0), ("float32", 1e4)])
def test_perturbed_answers_are_seen_and_rejected(rng, dtype, kappa):
    """Logits moved by 1e-3 to 1: the bound covers what that does to the policy, and none of it is within 7e-5."""
    M, K = 300, 4
    loop = blocks(rng, M, K, dtype, kappa)
    exact = solve_fixed_point(loop)
    assert bool(jnp.all(exact.result == RESULTS.successful))
    logits = jnp.log(exact.policy)
    logits = logits + jnp.asarray(rng.normal(size=(K, M)) * 10 ** rng.uniform(-3, 0, M), dtype)
    logits = logits - logits.max(axis=0, keepdims=True)
    limit = jnp.full(M, 7e-5, dtype)

    @jax.jit
    def check(loop, logits):
        zero = jnp.zeros(M, jnp.int32)
        one_round = loop.round()
        rate = 1 / (1 - loop.alpha)
        pull = Pull.of(one_round.response, rate, loop.pi_ref > 0, loop.lam == 0, 0 * rate)
        return certified(loop, pull, jnp.log(loop.pi_ref), Settled(logits, limit, zero), limit, 0).error

    error = np.asarray(check(loop, logits), np.float64)
    off = np.abs(np.asarray(jax.nn.softmax(logits, axis=0) - exact.policy, np.float64)).max(0)
    assert (off > 1e-3).mean() > 0.2
    assert np.all(error + np.asarray(exact.error) >= off)
    assert np.all(error[off > 2 * 7e-5] > 7e-5)


def test_a_reference_below_the_normal_numbers():
    """1e-39 is a probability in float32 too: at beta = 300 that response takes everything."""
    P = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]], np.float32)
    pi_ref = np.array([1e-39, 0.998, 0.002], np.float32)
    with jax.enable_x64(False):
        found = ipodyn.fixed_point(MRS(P, alpha=0.0, beta=300.0, lam=0.0, pi_ref=pi_ref))
        np.testing.assert_allclose(found.policy, [1, 0, 0], rtol=0, atol=1e-6)
        weak = ipodyn.fixed_point(MRS(P, alpha=0.0, beta=180.0, lam=0.0, pi_ref=pi_ref))
        gradient = jax.grad(lambda p: ipodyn.fixed_point(MRS(P, alpha=0.0, beta=9.0, lam=0.5, pi_ref=p)).policy[1])
        assert bool(jnp.all(jnp.isfinite(gradient(jnp.asarray(pi_ref)))))
    # exp(180 / 2) = 1.2e39: the two sides balance, which an error of 1e-5 in the logarithm of 1e-39 would show.
    w = np.log(pi_ref.astype(np.float64)) + 180 * P.astype(np.float64).mean(1)
    exact = np.exp(w - w.max()) / np.exp(w - w.max()).sum()
    assert 0.05 < exact[0] < 0.95
    assert np.abs(np.asarray(weak.policy) - exact).max() <= float(weak.error) <= 7e-5


@pytest.mark.parametrize("kappa", [1.0, 1e3, 1e6])
def test_data_that_the_policy_does_not_touch(rng, kappa):
    """lam = 0 is a closed form, in one step, and in float32 as right as at small kappa."""
    M, K = 200, 5
    # Wins of 0 to 10 / kappa around 1/2, so that no response takes everything.
    P = (0.5 + (random_P(rng, M, K) - 0.5) * min(1.0, 20 / kappa)).astype(np.float32)
    pi_ref, pi_0 = rng.dirichlet(np.ones(K), (2, M)).astype(np.float32)
    back = [jnp.asarray(np.moveaxis(x, 0, -1)) for x in (P, pi_ref, pi_0)]
    fill = [jnp.full(M, x, jnp.float32) for x in (0.5, kappa / 2, 0.0)]
    found = jax.jit(
        lambda: solve_fixed_point(MRS(back[0], alpha=fill[0], beta=fill[1], lam=fill[2], pi_ref=back[1], pi_0=back[2]))
    )()
    P, pi_ref, pi_0 = (x.astype(np.float64) for x in (P, pi_ref, pi_0))
    w = np.log(pi_ref) + float(fill[1][0] * 2) * np.einsum("mij,mj->mi", P, pi_0)
    exact = np.exp(w - w.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    assert bool(jnp.all(found.result == RESULTS.successful))
    assert np.all(np.abs(np.asarray(found.policy.T) - exact).max(1) <= np.asarray(found.error))
    # One step, and in float32 one or two more that see the miss with twice the digits.
    assert int(found.num_steps.max()) <= 4


def test_slow_cases_are_finished_apart_and_come_out_the_same(rng):
    """A batch of 512 with cases that take long after most are done: each equals its answer in a batch of 16."""
    loops = attacks.draw(rng, 512, 3, "float64")
    loops = [jnp.asarray(x) for x in loops]

    @jax.jit
    @jax.vmap
    def solve(P, alpha, beta, lam, pi_ref, pi_0):
        return solve_fixed_point(MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0))

    together = solve(*loops)
    slow = np.argsort(-np.asarray(together.num_steps))[:16]
    assert int(together.num_steps[slow[0]]) > 24  # after that many the few left are taken apart
    alone = solve(*[x[slow] for x in loops])
    np.testing.assert_array_equal(alone.num_steps, together.num_steps[slow])
    np.testing.assert_allclose(alone.policy, together.policy[slow], rtol=0, atol=1e-12)
