"""Boundary, safe region and tuning with a reference and a sampler of their own, checked by NumPy's own rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn
from ipodyn import MRS, RESULTS
from ipodyn._equilibria import critical

P = np.array(
    [
        [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]],
        [[0.5, 0.7, 0.1], [0.3, 0.5, 0.9], [0.9, 0.1, 0.5]],
    ]
)
PI_REF = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
PI_0 = np.array([[0.05, 0.15, 0.8], [0.7, 0.1, 0.2]])


def next_round(policy, P, alpha, beta, lam, pi_ref, pi_0):
    """The definition of MRS-IPO."""
    logits = alpha * np.log(policy) + (1 - alpha) * np.log(pi_ref) + beta * P @ (lam * policy + (1 - lam) * pi_0)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def radius_at(policy, P, alpha, beta, lam):
    jacobian = alpha * np.eye(3) + beta * lam * (P - 0.5) @ (np.diag(policy) - np.outer(policy, policy))
    return np.abs(np.linalg.eigvals(jacobian)).max()


def test_boundary_takes_the_policies_of_each_matrix():
    edge = ipodyn.stability_boundary(P, alpha=[0.3, 0.6], lam=0.7, pi_ref=PI_REF, pi_0=PI_0)
    assert bool(jnp.all(edge.result == RESULTS.successful))
    for m in range(2):
        for a, alpha in enumerate((0.3, 0.6)):
            policy, beta = np.asarray(edge.policy[m, a]), float(edge.value[m, a])
            after = next_round(policy, P[m], alpha, beta, 0.7, PI_REF[m], PI_0[m])
            np.testing.assert_allclose(after, policy, rtol=0, atol=1e-10)
            assert radius_at(policy, P[m], alpha, beta, 0.7) == pytest.approx(1, abs=1e-10)


def test_safe_region_takes_both_policies():
    found = ipodyn.safe_region(P, alpha=0.5, lam=0.7, radius_max=0.9, pi_ref=PI_REF[0], pi_0=PI_0[0])
    beta = float(found.value)
    for m in range(2):
        policy = PI_REF[0]
        for _ in range(2000):  # stable, so that rounds end at the fixed point: 0.9^2000 is nothing
            policy = next_round(policy, P[m], 0.5, beta, 0.7, PI_REF[0], PI_0[0])
        assert float(found.radius[m]) == pytest.approx(radius_at(policy, P[m], 0.5, beta, 0.7), abs=1e-9)
        assert float(found.entropy[m]) == pytest.approx(-np.sum(policy * np.log(policy)), abs=1e-9)


def test_tune_takes_both_policies():
    found = ipodyn.tune(
        lambda loop, policy: policy[0],
        P,
        alpha=0.3,
        beta=1.0,
        lam=0.7,
        over=["beta"],
        pi_ref=PI_REF[0],
        pi_0=PI_0[0],
        num_steps=2,
    )
    for m in range(2):
        policy = np.asarray(found.policies[m])
        after = next_round(policy, P[m], 0.3, float(found.beta), 0.7, PI_REF[0], PI_0[0])
        np.testing.assert_allclose(after, policy, rtol=0, atol=1e-10)


def test_the_multiplier_brings_tuning_to_the_bound():
    """Theory F2: radius^2 = alpha^2 + (a beta lam)^2 / 3 on a three-cycle, so the bound on it is one on beta.

    The value grows with beta. The penalty alone comes to rest outside, where its slope balances that of the value; the
    multiplier takes it back to the bound, closer than the first steps over it left.
    """
    exact = np.sqrt(3 * (0.9**2 - 0.25)) / 0.4
    found = ipodyn.tune(
        lambda loop, policy: 3 * jnp.log(loop.beta),
        ipodyn.problems.three_cycle(0.4),
        alpha=0.5,
        beta=1.0,
        lam=1.0,
        over=["beta"],
        radius_max=0.9,
        bounds={"beta": (0.5, 20.0)},
        num_steps=200,
    )
    assert float(found.radius[0]) <= 0.9
    assert float(found.beta) == pytest.approx(exact, rel=5e-3)


def test_what_could_not_be_solved_is_not_safe():
    """beta = 1e25 and more: no dtype holds such logits, so the fixed point is unknown, though with lam = 0 the radius
    would be alpha."""
    found = ipodyn.safe_region(P, alpha=0.5, lam=0.0, bounds=(1e25, 1e26), pi_ref=PI_REF[0], throw=False)
    assert found.parameter == "beta"
    assert bool(found.result == RESULTS.infeasible)
    assert float(found.fraction) == 0


def test_a_share_that_rounds_up_by_itself():
    """0.55 * 20 is 11.000000000000002: eleven matrices are asked for, not twelve."""
    strengths = np.linspace(0.1, 0.48, 20)
    cycles = jax.vmap(ipodyn.problems.three_cycle)(jnp.asarray(strengths))
    found = ipodyn.safe_region(cycles, alpha=0.6, lam=0.8, fraction=0.55)
    exact = np.sqrt(3 * (1 - 0.36)) / (strengths * 0.8)  # theory F2
    assert float(found.value) == pytest.approx(np.sort(exact)[20 - 11], rel=1e-9)


def test_a_jump_over_one_is_not_a_crossing(monkeypatch):
    """Where a fixed point jumps, as DPO's may, the radius leaps over 1 without being it: nothing is certified."""

    def leaping(loop, policy):
        return jnp.where(loop.beta < 20.0, 0.5, 2.0) * jnp.ones_like(loop.beta)

    monkeypatch.setattr(critical, "_squared_radius", leaping)
    loop = MRS(P[0], alpha=0.5, beta=1.0, lam=0.7)
    found = jax.jit(lambda loop: critical.solve_critical(loop, critical.BETA, 1e2))(loop)
    assert bool(found.result == RESULTS.max_steps_reached)
    assert np.isnan(found.value)
