"""IPO in its three forms, losses against enumeration, samples and TRL, closed form against its definition."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
from ipodyn._objectives.objective import prepare

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "trl_losses.json").read_text())
OBJECTIVES = [ipodyn.IPO(), ipodyn.DPO()]


def named(x):
    return type(x).__name__


def instances(rng, M, K):
    """P, mu, pi_ref, beta, logits; mu and pi_ref skewed."""
    return (
        random_P(rng, M, K),
        rng.dirichlet(np.full(K, 0.5), M),
        rng.dirichlet(np.full(K, 0.5), M),
        10 ** rng.uniform(-2, 2, M),
        rng.normal(scale=2, size=(M, K)),
    )


def softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@jax.jit
@jax.vmap
def three_gradients(z, P, mu, pi_ref, beta):
    forms = (ipodyn.IPO().loss, ipodyn.ipo_regression_loss, ipodyn.ipo_game_value)
    return [jax.grad(form)(z, P, mu, pi_ref, beta=beta) for form in forms]


@jax.jit
@jax.vmap
def three_values(z, P, mu, pi_ref, beta):
    return [f(z, P, mu, pi_ref, beta=beta) for f in (ipodyn.IPO().loss, ipodyn.ipo_regression_loss)]


def covariance(policy):
    return np.eye(policy.shape[1]) * policy[:, None] - policy[:, :, None] * policy[:, None, :]


@pytest.mark.parametrize("K", [2, 6, 16])
def test_the_three_ipo_forms(rng, K):
    P, mu, pi_ref, beta, z = instances(rng, 500, K)
    sampled, regression, game = three_gradients(z, P, mu, pi_ref, beta)
    v = z - np.log(pi_ref) - beta[:, None] * np.einsum("mij,mj->mi", P, mu)
    # Terms as large as v or beta cancel: tolerances are relative to them.
    scale = (1 + np.abs(v).max(axis=1) + beta)[:, None]
    np.testing.assert_allclose(sampled / scale, regression / scale, atol=1e-10)
    losses = 4 * np.einsum("mij,mj->mi", covariance(mu), v)
    np.testing.assert_allclose(regression / scale, losses / scale, atol=1e-12)
    value = -np.einsum("mij,mj->mi", covariance(softmax(z)), v) / beta[:, None]
    np.testing.assert_allclose(game * beta[:, None] / scale, value * beta[:, None] / scale, atol=1e-12)


def test_the_ipo_losses_differ_by_a_constant(rng):
    P, mu, pi_ref, beta, z = instances(rng, 300, 4)
    gaps = [np.subtract(*three_values(x, P, mu, pi_ref, beta)) for x in (z, -z, np.zeros_like(z))]
    # sum_ij mu_i mu_j beta^2 P_ij P_ji, what a labelled pair costs more than its mean
    constant = beta**2 * np.einsum("mi,mj,mij,mji->m", mu, mu, P, P)
    for gap in gaps:
        np.testing.assert_allclose(gap, constant, rtol=1e-9, atol=1e-9)


def test_all_forms_vanish_at_the_optimum_and_on_policy_they_agree(rng):
    P, mu, pi_ref, beta, z = instances(rng, 500, 6)
    optimum = jax.vmap(lambda P, mu, ref, b: jnp.log(ref) + b * ipodyn.IPO().score(P, mu))(P, mu, pi_ref, beta)
    for gradient in three_gradients(optimum, P, mu, pi_ref, beta):
        np.testing.assert_allclose(gradient / (1 + beta[:, None]), 0, atol=1e-13)
    sampled, regression, game = three_gradients(z, P, softmax(z), pi_ref, beta)
    size = np.abs(sampled).max(axis=1, keepdims=True) + 1e-4  # where it vanishes, rounding of z ~ 10 is all there is
    np.testing.assert_allclose(sampled / size, -4 * beta[:, None] * game / size, atol=1e-10)
    np.testing.assert_allclose(regression / size, -4 * beta[:, None] * game / size, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_loss_is_the_expected_pair_loss(rng, objective):
    """Every ordered pair, weighted by the chance that it is drawn and labelled so: an explicit enumeration."""
    P, mu, pi_ref, beta, z = (x[0] for x in instances(rng, 1, 5))
    single = jax.jit(lambda w, l: ipodyn.pair_loss(objective, z, w, l, pi_ref, beta=beta))
    total = sum(
        mu[i]
        * mu[j]
        * (P[i, j] * single(np.array([i]), np.array([j])) + P[j, i] * single(np.array([j]), np.array([i])))
        for i in range(5)
        for j in range(5)
    )
    np.testing.assert_allclose(objective.loss(z, P, mu, pi_ref, beta=beta), total, rtol=1e-13)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_loss_is_what_samples_average_to(rng, objective):
    n = 200_000
    P, mu, pi_ref, _, z = (x[0] for x in instances(rng, 1, 4))
    i, j = rng.choice(4, p=mu, size=(2, n))
    first = rng.uniform(size=n) < P[i, j]
    winners, losers = np.where(first, i, j), np.where(first, j, i)
    mean = ipodyn.pair_loss(objective, z, winners, losers, pi_ref, beta=2.0)
    h = z - np.log(pi_ref)
    margin = h[winners] - h[losers]
    spread = np.std((margin - 1) ** 2 if named(objective) == "IPO" else np.logaddexp(0, -margin / 2))
    # five standard errors
    assert abs(mean - objective.loss(z, P, mu, pi_ref, beta=2.0)) < 5 * spread / np.sqrt(n)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"{c['loss_type']}-{c['tau']}")
def test_pair_loss_is_trls(case):
    objective = {"ipo": ipodyn.IPO(), "sigmoid": ipodyn.DPO()}[case["loss_type"]]
    z, pi_ref = np.array(case["logits"]), np.array(case["pi_ref"])
    winners, losers = np.array(case["winners"]), np.array(case["losers"])

    @jax.jit
    def evaluate(z):
        def mean(z, winners, losers):
            return ipodyn.pair_loss(objective, z, winners, losers, pi_ref, beta=1 / case["tau"])

        each = jax.vmap(mean, in_axes=(None, 0, 0))(z, winners[:, None], losers[:, None])
        return each, *jax.value_and_grad(mean)(z, winners, losers)

    each, mean, gradient = evaluate(z)
    # both sides are float64: a few roundings of the largest term
    np.testing.assert_allclose(each, case["losses"], rtol=1e-12)
    np.testing.assert_allclose(mean, case["mean_loss"], rtol=1e-12)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-11, atol=1e-12 * max(1, 1 / case["tau"]))


def test_ipo_optimum_is_its_formula(rng):
    P, mu, pi_ref, beta, _ = instances(rng, 500, 7)
    found = jax.vmap(lambda P, mu, ref, b: ipodyn.IPO().optimum(P, mu, ref, beta=b))(P, mu, pi_ref, beta)
    logits = np.log(pi_ref) + beta[:, None] * np.einsum("mij,mj->mi", P, mu)
    np.testing.assert_allclose(found, softmax(logits), rtol=1e-11, atol=1e-300)


def ipo_optimum(P, mu, pi_ref, beta):
    return ipodyn.IPO().optimum(P, mu, pi_ref, beta=beta)


def test_ipo_derivatives_are_the_formula_and_central_differences(rng):
    """d pi* = S(pi*) (d log pi_ref + dbeta P mu + beta dP mu + beta P dmu), along directions that stay valid."""
    M, K, step = 100, 5, 1e-6
    P, mu, pi_ref, _, _ = instances(rng, M, K)
    P = 0.5 + 0.9 * (P - 0.5)
    mu, pi_ref = 0.8 * mu + 0.2 / K, 0.8 * pi_ref + 0.2 / K
    beta = rng.uniform(0.1, 5, M)
    dP = rng.normal(size=(M, K, K))
    dP = dP - dP.swapaxes(1, 2)
    dmu, dref = rng.normal(size=(2, M, K))
    dmu, dref = (0.1 * (x - x.mean(axis=1, keepdims=True)) for x in (dmu, dref))
    at, along = (P, mu, pi_ref, beta), (dP, dmu, dref, rng.normal(size=M))

    solve = jax.jit(jax.vmap(ipo_optimum))
    _, forward = jax.jit(jax.vmap(lambda x, d: jax.jvp(ipo_optimum, x, d)))(at, along)
    plus, minus = (solve(*(x + s * step * d for x, d in zip(at, along, strict=True))) for s in (1, -1))
    numeric = (plus - minus) / (2 * step)
    # truncation step^2 and rounding eps / step, both times the size of third derivatives ~ 100
    np.testing.assert_allclose(forward, numeric, atol=1e-7)

    dz = dref / pi_ref + along[3][:, None] * np.einsum("mij,mj->mi", P, mu)
    dz = dz + beta[:, None] * (np.einsum("mij,mj->mi", dP, mu) + np.einsum("mij,mj->mi", P, dmu))
    formula = np.einsum("mij,mj->mi", covariance(np.asarray(solve(*at))), dz)
    np.testing.assert_allclose(forward, formula, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.sum(forward, axis=1), 0, atol=1e-13)

    weight = rng.normal(size=(M, K))
    reverse = jax.jit(jax.vmap(lambda x, w: jax.vjp(ipo_optimum, *x)[1](w)))(at, weight)
    pulled = sum(np.sum(g * d, axis=tuple(range(1, d.ndim))) for g, d in zip(reverse, along, strict=True))
    np.testing.assert_allclose(pulled, np.sum(weight * forward, axis=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_nothing_is_nan_at_faces_and_extremes_in_float32(objective, dtype=jnp.float32):
    """mu and pi_ref at vertices and on edges, beta up to 1e4: values and all derivatives are finite."""
    P = ipodyn.problems.strongly_transitive(jax.random.key(0), 3).astype(dtype)
    faces = jnp.array([[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [1e-30, 1e-6, 1]], dtype)
    grid = [(mu, ref, beta) for mu in faces for ref in faces for beta in (1e-2, 1.0, 1e4)]
    mu, ref, beta = (jnp.stack([jnp.asarray(row[k], dtype) for row in grid]) for k in range(3))

    def everything(mu, ref, beta):
        def optimum(P, mu, ref, beta):
            return objective.optimum(P, mu, ref, beta=beta, throw=False)

        def loss(P, mu, ref, beta):
            return objective.loss(jnp.array([0.3, -0.2, 1.0], dtype), P, mu, ref, beta=beta)

        at = (P, mu, ref, beta)
        policy, pull = jax.vjp(optimum, *at)
        return policy, pull(jnp.array([1.0, -2.0, 3.0], dtype)), jax.value_and_grad(loss, (0, 1, 2, 3))(*at)

    found = jax.jit(jax.vmap(everything))(mu, ref, beta)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(found[0].sum(axis=1), 1, rtol=4 * float(jnp.finfo(dtype).eps))
    assert (np.asarray(found[0])[np.asarray(ref) == 0] == 0).all()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"`P` has shape \(3, 3\).*shape \(2,\)"):
        prepare(jnp.full((3, 3), 0.5), jnp.full(2, 0.5))


@pytest.mark.parametrize("objective", [ipodyn.IPO(), ipodyn.DPO()], ids=["ipo", "dpo"])
def test_pairs_with_an_excluded_response_weigh_nothing(objective):
    """The loss is the sum over the pairs that the reference allows, however often the excluded one is sampled."""
    P = np.array([[0.5, 0.6, 0.9], [0.4, 0.5, 0.7], [0.1, 0.3, 0.5]])
    pi_ref, mu, z, beta = np.array([0.6, 0.4, 0.0]), np.array([0.2, 0.3, 0.5]), np.array([0.3, -0.2, 1.7]), 1.3
    h = z[:2] - np.log(pi_ref[:2])
    margin = h[:, None] - h[None, :]
    losses = (margin - beta / 2) ** 2 if isinstance(objective, ipodyn.IPO) else np.log1p(np.exp(-margin / beta))
    expected = 2 * (mu[:2, None] * mu[None, :2] * P[:2, :2] * losses).sum()
    found, gradient = jax.value_and_grad(lambda z: objective.loss(z, P, mu, pi_ref, beta=beta))(jnp.asarray(z))
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert gradient[2] == 0
