"""Entropy, divergence, the gauge and the tangent space, in the interior and on the faces of the simplex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import ipodyn
from ipodyn._numerics.simplex import LOG_ZERO, centred, log_policy, matvec, softmax, tangent_basis
from ipodyn._numerics.types import as_float

FACES = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.3, 0.7]]


def test_entropy_is_scipys(rng):
    policies = rng.dirichlet(np.full(6, 0.3), size=200)
    policies[:50, 0] = 0
    policies /= policies.sum(axis=1, keepdims=True)
    ours = jax.vmap(ipodyn.entropy)(policies)
    np.testing.assert_allclose(ours, scipy.stats.entropy(policies, axis=1), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(ipodyn.entropy(policies.T), ours, rtol=1e-14, atol=1e-15)  # batch axes behind


def test_kl_divergence_is_scipys(rng):
    p, q = rng.dirichlet(np.full(6, 0.5), size=(2, 200))
    p[:50, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    expected = scipy.special.rel_entr(p, q).sum(axis=1)
    # terms of either sign up to 10 cancel
    np.testing.assert_allclose(jax.vmap(ipodyn.kl_divergence)(p, q), expected, rtol=1e-13, atol=1e-14)


def test_kl_divergence_is_infinite_outside_the_reference():
    assert float(ipodyn.kl_divergence(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]))) == np.inf
    assert float(ipodyn.kl_divergence(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))) == 0


@pytest.mark.parametrize("policy", FACES)
def test_gradients_on_faces_are_those_of_the_face(policy):
    """On its support the gradient is that of the smaller simplex, elsewhere it is zero: never infinite, never NaN."""
    policy = jnp.array(policy)
    inside = np.asarray(policy) > 0
    gradient = jax.grad(ipodyn.entropy)(policy)
    expected = np.where(inside, -np.log(np.where(inside, policy, 1)) - 1, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-15)
    reference = jnp.array([0.2, 0.3, 0.5])
    gradient = jax.grad(ipodyn.kl_divergence)(policy, reference)
    expected = np.where(inside, np.log(np.where(inside, policy, 1) / reference) + 1, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-14)
    assert np.isfinite(jax.hessian(ipodyn.entropy)(policy)).all()


def test_log_policy_of_zero_is_finite_with_derivative_zero():
    policy = jnp.array([0.0, 0.25, 0.75])
    np.testing.assert_array_equal(log_policy(policy), [LOG_ZERO, np.log(0.25), np.log(0.75)])
    np.testing.assert_array_equal(jax.jacobian(log_policy)(policy), np.diag([0, 4, 1 / 0.75]))
    assert np.isfinite(log_policy(policy.astype(jnp.float32)) * 1e4).all()


@pytest.mark.parametrize("K", [2, 3, 7])
def test_tangent_basis_is_orthonormal_and_sums_to_zero(K):
    Q = np.asarray(tangent_basis(K))
    np.testing.assert_allclose(Q.T @ Q, np.eye(K - 1), atol=1e-15)
    np.testing.assert_allclose(Q.sum(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(Q @ Q.T, np.eye(K) - 1 / K, atol=1e-15)  # the projection onto sum zero
    assert tangent_basis(K, jnp.dtype("float32")).dtype == jnp.float32


def test_softmax_and_centred_ignore_the_gauge(rng):
    z = rng.normal(size=(5, 4))
    np.testing.assert_allclose(softmax(jnp.asarray(z + 7)), scipy.special.softmax(z, axis=0), rtol=1e-14)
    np.testing.assert_allclose(centred(jnp.asarray(z + 7)), centred(jnp.asarray(z)), atol=1e-14)
    np.testing.assert_allclose(centred(jnp.asarray(z)).sum(axis=0), 0, atol=1e-15)


@pytest.mark.parametrize("K", [3, 16, 17])  # unrolled up to 16, a loop over columns above
def test_matvec_is_matmul_with_batch_axes_behind(rng, K):
    matrix, vector = rng.normal(size=(K, K, 4)), rng.normal(size=(K, 4))
    expected = np.stack([matrix[..., b] @ vector[..., b] for b in range(4)], axis=-1)
    np.testing.assert_allclose(matvec(jnp.asarray(matrix), jnp.asarray(vector)), expected, rtol=1e-12, atol=1e-13)
    single = matvec(jnp.asarray(matrix[..., 0]), jnp.asarray(vector[..., 0]))
    np.testing.assert_allclose(single, expected[..., 0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("policy", [np.array([1, 0, 0]), np.array([True, False, False]), np.array([1.0, 0.0, 0.0])])
def test_whole_numbers_become_floating_point(policy):
    """What a user writes as integers is a policy; its entropy, and that of a number alone, is a float of JAX's own."""
    assert as_float(policy).dtype == jnp.result_type(float)
    assert as_float(2).dtype == as_float(True).dtype == jnp.result_type(float)
    assert as_float(np.float32(2)).dtype == np.float32 and as_float(2, np.zeros(1, np.float32)).dtype == np.float32
