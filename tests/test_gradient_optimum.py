"""Gradient solvers against the closed form, Newton, and descent by scipy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from preferences import random_P

import ipodyn

R = ipodyn.RESULTS


def instances(rng, M, K, dtype=np.float64):
    """mu spans many orders of magnitude, down to 1e-6."""
    mu = np.maximum(rng.dirichlet(np.full(K, 0.2), M), 1e-6)
    mu /= mu.sum(axis=1, keepdims=True)
    pi_ref = rng.dirichlet(np.full(K, 1.0), M)
    beta = 10 ** rng.uniform(-2, 2, M)
    return tuple(x.astype(dtype) for x in (random_P(rng, M, K), mu, pi_ref, beta))


def by_gradients(objective, **options):
    def solve(P, mu, pi_ref, beta):
        return ipodyn.gradient_optimum(objective, P, mu, pi_ref, beta=beta, throw=False, **options)

    return jax.jit(jax.vmap(solve))


def exactly(objective):
    return jax.jit(jax.vmap(lambda P, mu, ref, b: objective.optimum(P, mu, ref, beta=b)))


@pytest.mark.parametrize("K", [2, 5, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-4)], ids=["float64", "float32"])
def test_ipo_is_its_closed_form(rng, K, dtype, tolerance):
    """Three sizes of 400 instances each; the closed form is computed in float64 for both dtypes."""
    problem = instances(rng, 400, K, dtype)
    found = by_gradients(ipodyn.IPO())(*problem)
    P, mu, pi_ref, beta = (x.astype(np.float64) for x in problem)
    logits = np.log(pi_ref) + beta[:, None] * np.einsum("mij,mj->mi", P, mu)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert (found.result == R.successful).all()
    assert found.policy.dtype == dtype
    assert np.abs(np.asarray(found.policy) - expected).max() <= tolerance
    assert np.asarray(found.num_steps).max() < 100


def test_dpo_is_newtons(rng):
    problem = instances(rng, 200, 4)
    found = by_gradients(ipodyn.DPO())(*problem)
    solved = np.asarray(found.result == R.successful)
    # L-BFGS crawls where curvatures differ by the square root of mu times a saturated sigmoid: few, and they say so
    assert solved.mean() > 0.97
    np.testing.assert_allclose(
        np.where(solved[:, None], found.policy - exactly(ipodyn.DPO())(*problem), 0), 0, atol=1e-6
    )


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.sgd(1.0),
        optax.sgd(0.3, momentum=0.5),
        optax.adam(optax.exponential_decay(0.3, transition_steps=20, decay_rate=0.8)),
    ],
    ids=["sgd", "momentum", "adam-scheduled"],
)
def test_any_optax_optimiser(rng, optimiser):
    P, mu, pi_ref, beta = instances(rng, 20, 4)
    mu, beta = 0.5 * mu + 0.125, np.minimum(beta, 5)
    found = by_gradients(ipodyn.IPO(), optimiser=optimiser, tolerance=1e-7)(P, mu, pi_ref, beta)
    assert (found.result == R.successful).all()
    np.testing.assert_allclose(found.policy, exactly(ipodyn.IPO())(P, mu, pi_ref, beta), atol=1e-6)


@pytest.mark.slow
def test_unpreconditioned_descent_by_scipy_agrees(rng):
    """The losses over plain logits, minimised by scipy from values and gradients: no coordinates of ours."""
    P, mu, pi_ref, beta = instances(rng, 4, 5)
    mu, beta = 0.5 * mu + 0.1, np.array([0.3, 1.0, 2.0, 4.0])
    for objective in (ipodyn.IPO(), ipodyn.DPO()):
        ours = by_gradients(objective)(P, mu, pi_ref, beta).policy
        value_and_grad = jax.jit(jax.value_and_grad(lambda z, *x, o=objective: o.loss(z, *x[:3], beta=x[3])))
        for m in range(4):
            instance = (P[m], mu[m], pi_ref[m], beta[m])
            plain = scipy.optimize.minimize(
                lambda z, x=instance, f=value_and_grad: [np.asarray(y) for y in f(z, *x)],
                np.log(pi_ref[m]),
                jac=True,
                method="BFGS",
                options={"gtol": 1e-10},
            )
            weights = np.exp(plain.x - plain.x.max())
            # BFGS stops where the loss is flat to rounding, at half the digits
            np.testing.assert_allclose(ours[m], weights / weights.sum(), atol=2e-7)


def test_stopping_rule_and_start():
    P = ipodyn.problems.bradley_terry(jnp.array([1.0, 0.0, -1.0]))
    third = jnp.full(3, 1 / 3)
    arguments = (ipodyn.DPO(), P, third, third)
    with pytest.raises(eqx.EquinoxRuntimeError, match="used all its steps"):
        ipodyn.gradient_optimum(*arguments, max_steps=1)
    short = ipodyn.gradient_optimum(*arguments, max_steps=3, throw=False)
    assert bool(short.result == R.max_steps_reached) and int(short.num_steps) == 3
    wild = ipodyn.gradient_optimum(ipodyn.IPO(), *arguments[1:], optimiser=optax.sgd(1e200), throw=False)
    assert bool(wild.result == R.lost_finiteness) and np.isnan(wild.policy).all()
    optimum = ipodyn.DPO().optimum(P, third, third)
    there = ipodyn.gradient_optimum(*arguments, logits0=jnp.log(optimum) + 3.0, tolerance=1e-10)
    assert int(there.num_steps) == 0  # the gauge of the start does not matter
    np.testing.assert_allclose(there.policy, optimum, atol=1e-12)


def test_an_optimum_at_infinity_is_no_optimum():
    P, half = jnp.array([[0.5, 1.0], [0.0, 0.5]]), jnp.full(2, 0.5)
    found = ipodyn.gradient_optimum(ipodyn.DPO(), P, half, half, throw=False)
    assert bool(found.result == R.diverging_scores) and np.isnan(found.policy).all()
    with pytest.raises(eqx.EquinoxRuntimeError, match="no finite optimum"):
        ipodyn.gradient_optimum(ipodyn.DPO(), P, half, half)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_excluded_responses_keep_probability_zero(dtype):
    P = ipodyn.problems.three_cycle(0.3).astype(dtype)
    mu, pi_ref = jnp.array([0.7, 0.3, 0.0], dtype), jnp.array([0.5, 0.0, 0.5], dtype)
    for logits0 in (None, jnp.array([1.0, 2.0, 0.0], dtype)):
        found = ipodyn.gradient_optimum(ipodyn.IPO(), P, mu, pi_ref, logits0=logits0)
        assert float(found.policy[1]) == 0 and np.isfinite(found.policy).all() and found.policy.dtype == dtype
    unsampled = ipodyn.gradient_optimum(ipodyn.IPO(), P, jnp.array([1.0, 0, 0], dtype), jnp.full(3, 1 / 3, dtype))
    np.testing.assert_allclose(unsampled.policy, 1 / 3, rtol=1e-6)  # nothing to compare with: the reference
