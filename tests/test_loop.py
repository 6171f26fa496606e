"""One round of a loop against its definition, at faces and extremes, and what its constructor refuses."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P
from scipy.special import expit

import ipodyn
from ipodyn import DPO, IPO, MRS

OBJECTIVES = [IPO(), DPO()]


def named(x):
    return type(x).__name__


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_one_round_is_its_definition(rng, objective):
    """pi' proportional to pi^alpha pi_ref^(1 - alpha) exp(beta r(mu)); the score of DPO is checked by its equations."""
    M, K = 100, 4
    P = random_P(rng, M, K, edge=0.05)
    pi, pi_ref, pi_0 = rng.dirichlet(np.ones(K), (3, M))
    alpha, lam = rng.uniform(size=(2, M))
    alpha[:10], alpha[10:20], lam[:5], lam[5:10] = 0, 1, 0, 1
    beta = rng.uniform(0.1, 5, M)

    def one(P, alpha, beta, lam, ref, start, pi):
        return MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=ref, pi_0=start, objective=objective)(pi)

    after = np.asarray(jax.jit(jax.vmap(one))(P, alpha, beta, lam, pi_ref, pi_0, pi))
    mu = lam[:, None] * pi + (1 - lam)[:, None] * pi_0
    h = np.log(after) - alpha[:, None] * np.log(pi) - (1 - alpha)[:, None] * np.log(pi_ref)
    score = h / beta[:, None]
    if isinstance(objective, IPO):
        expected = np.einsum("mij,mj->mi", P, mu)
        gap = score - expected
        np.testing.assert_allclose(gap - gap[:, :1], 0, atol=1e-12)  # equal up to the gauge
    else:
        E = P - expit(score[:, :, None] - score[:, None, :])
        np.testing.assert_allclose(np.einsum("mij,mj->mi", E, mu), 0, atol=1e-12)


def test_defaults_are_uniform_and_ipo():
    P = ipodyn.problems.three_cycle(0.3)
    loop = MRS(P, alpha=0, beta=1, lam=1)
    np.testing.assert_array_equal(loop.pi_ref, np.full(3, 1 / 3))
    np.testing.assert_array_equal(loop.pi_0, np.full(3, 1 / 3))
    assert isinstance(loop.objective, IPO)
    assert {x.dtype for x in (loop.P, loop.alpha, loop.beta, loop.lam, loop.pi_ref, loop.pi_0)} == {
        jnp.dtype("float64")
    }


def test_a_zero_stays_zero_unless_the_reference_is_fixed():
    """0^alpha = 0 for alpha > 0 and 1 for alpha = 0: support is kept for good, not until a large number has decayed."""
    P = ipodyn.problems.three_cycle(0.3)
    for alpha in (0.01, 0.5, 0.95, 1.0):
        loop = MRS(P, alpha=alpha, beta=1.0, lam=0.5)
        for start in ([1.0, 0.0, 0.0], [0.5, 0.5, 0.0]):
            found = ipodyn.rollout(loop, start, num_steps=4000)
            assert float(found.final[2]) == 0
            assert np.isfinite(found.rise) and float(found.residual) < 1e-12
    back = MRS(P, alpha=0.0, beta=1.0, lam=0.5)(jnp.array([1.0, 0.0, 0.0]))
    assert (np.asarray(back) > 0.1).all()


def test_a_reference_without_a_response_excludes_it_unless_it_moves_away():
    P = ipodyn.problems.three_cycle(0.3)
    pi_ref, start = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.2, 0.3, 0.5])
    for alpha in (0.0, 0.5, 0.95):
        loop = MRS(P, alpha=alpha, beta=1.0, lam=0.5, pi_ref=pi_ref)
        assert float(loop(start)[2]) == 0
        assert float(ipodyn.rollout(loop, start, num_steps=3000).final[2]) == 0
    assert float(MRS(P, alpha=1.0, beta=1.0, lam=0.5, pi_ref=pi_ref)(start)[2]) > 0.1


CORNERS = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [1e-30, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_no_nan_at_corners_in_float32(objective, dtype=jnp.float32):
    """alpha, lam in {0, 1}, beta up to 1e4, zeros in start, reference and sampler: 5 rounds and their derivatives.

    No more rounds: at an unstable fixed point a derivative grows by up to beta lam ||A|| / 3 = 2e3 in each, and float32
    ends at 1e38.
    """
    P = ipodyn.problems.three_cycle(0.3).astype(dtype)
    corners = [jnp.asarray(c, dtype) for c in CORNERS]
    points = [
        (alpha, beta, lam, start, ref, sampler)
        for alpha in (0.0, 0.5, 1.0)
        for beta in (1e-2, 1.0, 1e4)
        for lam in (0.0, 1.0)
        for start in corners
        for ref in corners
        for sampler in corners[:2]
        if alpha in (0, 1) or jnp.any(start * ref > 0)
    ]
    columns = [jnp.stack([jnp.asarray(p[k], dtype) for p in points]) for k in range(6)]

    def run(P, alpha, beta, lam, start, ref, sampler):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=ref, pi_0=sampler, objective=objective)
        found = ipodyn.rollout(loop, start, num_steps=5, throw=False)
        total = found.final @ jnp.array([1.0, 2.0, -1.0], dtype) + found.variance + found.entropy
        return total, found

    every = jax.value_and_grad(run, argnums=tuple(range(7)), has_aux=True)
    (_, found), gradients = jax.jit(jax.vmap(every, in_axes=(None, *[0] * 6)))(P, *columns)
    for leaf in jax.tree.leaves((found.final, found.mean, found.variance, found.entropy, found.residual, found.rise)):
        assert np.isfinite(leaf).all()
    # A derivative of 0^alpha at alpha = 0 is infinite by right: large it may be, NaN never.
    assert all(not np.isnan(leaf).any() for leaf in jax.tree.leaves(gradients))
    inside = np.array(
        [a > 0 and (np.asarray(s) > 0).all() and (np.asarray(r) > 0).all() for a, _, _, s, r, _ in points]
    )
    assert inside.any() and all(np.isfinite(np.asarray(leaf)[inside]).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(np.sum(found.final, axis=1), 1, rtol=4 * float(jnp.finfo(dtype).eps))


def test_divergence_is_never_a_number():
    """A response that always wins: no scores from the start. A certain cycle: none once a probability underflows."""
    sure = jnp.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    loop = MRS(sure, alpha=0.5, beta=1.0, lam=0.5, objective=DPO())
    assert np.isnan(loop(jnp.full(3, 1 / 3))).all()
    cycle = MRS(ipodyn.problems.three_cycle(0.5), alpha=0.5, beta=1.0, lam=1.0, objective=DPO())
    assert np.isfinite(cycle(jnp.array([0.5, 0.3, 0.2]))).all()

    def save(policy):
        return policy

    for one, start in ((loop, None), (cycle, [0.5, 0.3, 0.2])):
        found = ipodyn.rollout(one, start, num_steps=300, throw=False, save=save)
        assert bool(found.result == ipodyn.RESULTS.diverging_scores)
        numbers = (found.final, found.mean, found.variance, found.entropy, found.residual, found.saved[-1])
        assert all(np.isnan(x).all() for x in numbers)
        assert int(ipodyn.classify(found)) == ipodyn.Regime.unresolved
        with pytest.raises(Exception, match="no finite optimum"):
            ipodyn.rollout(one, start, num_steps=300, save=save)
    early = np.asarray(found.saved)[:3]
    assert np.isfinite(early).all()  # before it failed


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_sweeping_parameters_traces_once(objective):
    P = ipodyn.problems.three_cycle(0.3)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda loop, policy: loop(policy), n=1))
    for k, (alpha, beta, lam) in enumerate([(0, 1, 1), (0.5, 2.0, 0.3), (1.0, jnp.array(1e3), np.float64(0.0))]):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=np.eye(3)[k], objective=objective)
        step(loop, jnp.full(3, 1 / 3))


GOOD = {"P": [[0.5, 0.7], [0.3, 0.5]], "alpha": 0.5, "beta": 1.0, "lam": 0.5}
BAD = [
    ({"beta": 0.0}, "`beta`"),
    ({"beta": -1.0}, "`beta`"),
    ({"beta": np.nan}, "`beta`"),
    ({"beta": np.inf}, "`beta`"),
    ({"beta": [1.0, 2.0]}, r"`beta` has shape \(2,\)"),
    ({"alpha": 1.01}, "`alpha` is 1.01"),
    ({"alpha": -0.1}, "`alpha`"),
    ({"alpha": [0.1, 0.2]}, r"`alpha` has shape \(2,\)"),
    ({"lam": 2}, "`lam` is 2"),
    ({"lam": np.nan}, "`lam`"),
    ({"P": [[0.5, 0.7], [0.4, 0.5]]}, "`P` entry"),
    ({"P": [[0.5, np.nan], [0.3, 0.5]]}, "`P` entry"),
    ({"P": [[0.5, 1.2], [-0.2, 0.5]]}, "`P` entry"),
    ({"P": [[0.6, 0.7], [0.3, 0.5]]}, "`P` entry"),
    ({"P": [[0.5, 0.7]]}, r"`P` has shape \(1, 2\)"),
    ({"P": [[0.5]]}, r"`P` has shape \(1, 1\)"),
    ({"P": [0.5, 0.5]}, r"`P` has shape \(2,\)"),
    ({"pi_ref": [0.7, 0.7]}, "`pi_ref` sums to 1.4"),
    ({"pi_ref": [1.5, -0.5]}, "`pi_ref`"),
    ({"pi_ref": [0.2, 0.3, 0.5]}, r"`pi_ref` has shape \(3,\)"),
    ({"pi_0": [0.5, 0.4]}, "`pi_0` sums to 0.9"),
    ({"pi_0": [[0.5, 0.5]]}, r"`pi_0` has shape \(1, 2\)"),
]


@pytest.mark.parametrize(("wrong", "culprit"), BAD, ids=[str(w) for w, _ in BAD])
def test_bad_input_is_one_line_that_names_the_culprit(wrong, culprit):
    arguments: dict[str, Any] = {name: np.asarray(value, float) for name, value in (GOOD | wrong).items()}
    with pytest.raises(ValueError, match=culprit) as error:
        MRS(**arguments)
    assert "\n" not in str(error.value)


START = [
    ([0.7, 0.7], "`policy0` sums to 1.4"),
    ([1.5, -0.5], "`policy0`"),
    ([0.2, 0.3, 0.5], r"`policy0` has shape \(3,\)"),
]


@pytest.mark.parametrize(("start", "culprit"), START)
def test_bad_start_is_named(start, culprit):
    with pytest.raises(ValueError, match=culprit) as error:
        ipodyn.rollout(MRS(np.array(GOOD["P"]), alpha=0.5, beta=1.0, lam=0.5), start)
    assert "\n" not in str(error.value)


def test_start_and_reference_without_a_common_response():
    loop = MRS(np.array(GOOD["P"]), alpha=0.5, beta=1.0, lam=0.5, pi_ref=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="`policy0` and `pi_ref` have no response in common"):
        ipodyn.rollout(loop, [0.0, 1.0])


def test_at_the_ends_of_alpha_start_and_reference_may_be_disjoint():
    """alpha = 1 mixes in nothing of the reference, alpha = 0 nothing of the start."""
    P, reference = np.array(GOOD["P"]), np.array([1.0, 0.0])
    follows = ipodyn.rollout(MRS(P, alpha=1.0, beta=1.0, lam=0.5, pi_ref=reference), [0.0, 1.0], num_steps=5)
    np.testing.assert_array_equal(follows.final, [0, 1])
    stays = ipodyn.rollout(MRS(P, alpha=0.0, beta=1.0, lam=0.5, pi_ref=reference), [0.0, 1.0], num_steps=5)
    np.testing.assert_array_equal(stays.final, [1, 0])


def test_shape_of_a_called_policy_is_checked():
    with pytest.raises(ValueError, match=r"`policy` has shape \(3,\)"):
        MRS(np.array(GOOD["P"]), alpha=0.5, beta=1.0, lam=0.5)(jnp.full(3, 1 / 3))


def test_values_are_not_asked_of_tracers():
    """Under jit, vmap and grad a constructor sees no values: nothing to refuse, and no error of its own."""

    def entropy_after(P, alpha, beta, lam, ref, start):
        return ipodyn.entropy(MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=ref, pi_0=start)(start))

    P, third = ipodyn.problems.three_cycle(0.3), jnp.full(3, 1 / 3)
    at = (P, jnp.array(0.5), jnp.array(2.0), jnp.array(0.8), third, jnp.array([0.5, 0.3, 0.2]))
    plain = entropy_after(*at)
    np.testing.assert_allclose(jax.jit(entropy_after)(*at), plain, rtol=1e-14)
    gradients = jax.grad(entropy_after, argnums=tuple(range(6)))(*at)
    assert all(np.isfinite(g).all() and np.any(np.asarray(g) != 0) for g in gradients)
    swept = jax.vmap(entropy_after, in_axes=(None, None, 0, None, None, None))(*at[:2], jnp.array([1.0, 2.0]), *at[3:])
    np.testing.assert_allclose(swept[1], plain, rtol=1e-14)
