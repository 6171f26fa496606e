"""Damping keeps the aim and does what it says: against interpolated logits, grids, radii and certificates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops
from scipy.special import softmax

import ipodyn
from ipodyn import DPO, IPO, MRS, RESULTS

M = 60


@pytest.mark.parametrize("objective", [IPO(), DPO()], ids=["IPO", "DPO"])
def test_a_damped_round_is_part_of_a_round(rng, objective):
    P, alpha, beta, lam, pi_ref, pi_0 = (x[0] for x in random_loops(rng, 1, 4, edge=0.1))
    loop = MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0, objective=objective)
    policy = rng.dirichlet(np.ones(4))
    for s in (0.1, 0.7, 1.0, 1 / (1 - alpha)):
        mixed = softmax((1 - s) * np.log(policy) + s * np.log(np.asarray(loop(policy))))
        np.testing.assert_allclose(ipodyn.damped(loop, s)(policy), mixed, rtol=1e-9)
    assert float(ipodyn.damped(loop, 1 / (1 - alpha)).alpha) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("K", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_dampings_of_ipo(rng, K):
    """The aim stays to 1e-12; radii and rates of the damped loops are those of the formulas, and the best on grids."""
    fields = random_loops(rng, M, K, beta=(1.0, 60.0))
    grid = np.linspace(0.02, 1, 41)

    def parts(*fields):
        loop = loop_of(*fields)
        star = ipodyn.fixed_point(loop, tolerance=1e-13, throw=False).policy
        critical = ipodyn.critical_damping(loop, throw=False)
        fastest = ipodyn.fastest_damping(loop, throw=False)
        certified = ipodyn.certified_damping(loop, throw=False)
        asked = ipodyn.certified_damping(loop, rate=0.97, throw=False)

        def radius(s):
            return ipodyn.stability(ipodyn.damped(loop, s), star).radius

        def rate(s):
            return ipodyn.convergence_certificate(ipodyn.damped(loop, s)).rate

        ends = grid / (1 - loop.alpha)
        at = jnp.stack([jnp.where(jnp.isinf(critical.value), 1.0, critical.value), fastest.value])
        moved = ipodyn.fixed_point(ipodyn.damped(loop, 0.37), tolerance=1e-13, throw=False).policy - star
        rates = jax.vmap(rate)(jnp.stack([certified.value, asked.value, asked.value * 1.0001]))
        return (
            moved,
            critical,
            fastest,
            certified,
            asked,
            jax.vmap(radius)(at),
            rates,
            (jax.vmap(radius)(ends), jax.vmap(rate)(ends)),
        )

    moved, critical, fastest, certified, asked, radii, rates, grids = jax.jit(jax.vmap(parts))(*fields)
    assert np.max(np.abs(moved)) <= 1e-12
    inside = np.isfinite(critical.value)
    assert 3 < inside.sum() < M and np.all(np.asarray(critical.value) > 0)
    np.testing.assert_allclose(np.asarray(radii)[inside, 0], 1, rtol=1e-12)
    np.testing.assert_array_equal(inside, np.max(np.asarray(grids[0]), axis=1) >= 1)
    np.testing.assert_allclose(np.asarray(radii)[:, 1], fastest.radius, rtol=1e-9, atol=1e-14)
    assert np.all(np.asarray(fastest.radius) <= np.min(np.asarray(grids[0]), axis=1) + 1e-12)
    np.testing.assert_allclose(np.asarray(fastest.value)[inside], np.asarray(critical.value)[inside] / 2, rtol=1e-12)
    assert np.all(certified.result == RESULTS.successful) and np.all(np.asarray(certified.rate) < 1)
    np.testing.assert_allclose(np.asarray(rates)[:, 0], certified.rate, rtol=1e-12, atol=1e-14)
    assert np.all(np.asarray(certified.rate) <= np.min(np.asarray(grids[1]), axis=1) + 1e-12)
    possible = np.asarray(asked.result == RESULTS.successful)
    assert possible.sum() > 5 and np.all(possible == (np.asarray(certified.rate) <= 0.97))
    assert np.all(np.asarray(rates)[possible, 1] <= 0.97 + 1e-12) and np.all(np.asarray(asked.value)[~possible] == 0)
    boldest = np.asarray(asked.value) * (1 - fields[1]) > 1 - 1e-9
    assert np.all((np.asarray(rates)[:, 2] > 0.97) | ~possible | boldest)


@pytest.mark.slow
def test_dampings_of_dpo(rng):
    """lam below 1, so that real parts differ."""
    P, alpha, _, lam, pi_ref, pi_0 = random_loops(rng, 20, 5, edge=0.05)
    fields = P, alpha, np.full(20, 30.0), lam, pi_ref, pi_0
    grid = np.linspace(0.001, 1, 400)

    def parts(*fields):
        loop = loop_of(*fields, objective=DPO())
        star = ipodyn.fixed_point(loop, throw=False)
        critical = ipodyn.critical_damping(loop, throw=False)
        fastest = ipodyn.fastest_damping(loop, throw=False)
        radii = jax.vmap(lambda s: ipodyn.stability(ipodyn.damped(loop, s), star.policy).radius)
        at = jnp.where(jnp.isfinite(critical.value) & (critical.value > 0), critical.value, 1.0)
        return star.result == RESULTS.successful, critical, fastest, radii(at[None])[0], radii(grid / (1 - loop.alpha))

    solved, critical, fastest, radius, radii = jax.jit(jax.vmap(parts))(*fields)
    inside = np.asarray(solved & np.isfinite(critical.value) & (np.asarray(critical.value) > 0))
    assert inside.sum() > 5
    np.testing.assert_allclose(np.asarray(radius)[inside], 1, rtol=1e-9)
    assert np.all(np.asarray(fastest.radius)[inside] <= np.min(np.asarray(radii)[inside], axis=1) + 1e-9)


def test_a_free_reference_has_no_damping():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=1.0, beta=2.0, lam=1.0)
    for find in (ipodyn.critical_damping, ipodyn.fastest_damping, ipodyn.certified_damping):
        found = find(loop, throw=False)
        assert float(found.value) == 0 and bool(found.result == RESULTS.no_fixed_point)
        with pytest.raises(Exception, match="nothing anchors the loop"):
            find(loop)
    assert float(ipodyn.damped(loop, 5.0).alpha) == 1


def test_wrong_arguments_have_one_clear_line():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
    with pytest.raises(ValueError, match=r"`s` is 2.1; it must be above 0 and at most 1 / \(1 - alpha\) = 2"):
        ipodyn.damped(loop, 2.1)
    with pytest.raises(ValueError, match="`s` is 0"):
        ipodyn.damped(loop, 0.0)
    with pytest.raises(ValueError, match="`metric` is 'other'"):
        ipodyn.certified_damping(loop, metric="other")
    with pytest.raises(ValueError, match="does not depend on damping"):
        ipodyn.certified_damping(MRS(loop.P, alpha=0.5, beta=2.0, lam=1.0, objective=DPO()))
    with pytest.raises(Exception, match="No value inside the bounds"):
        ipodyn.certified_damping(MRS(loop.P, alpha=0.5, beta=50.0, lam=1.0), rate=0.5)


def test_settings_say_the_same_loop():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    found = ipodyn.damping_settings(loop, 0.25)
    assert float(found.reference) == 0.875 and float(found.beta) == 2.0 and float(found.trl_beta_factor) == 4.0
    np.testing.assert_allclose(1 - np.exp(-4 * found.gradient_time / 3), 0.25)
    assert str(found).startswith("damping s = 0.25") and "0.875" in str(found)
    assert float(ipodyn.damping_settings(loop, 1.5).gradient_time) == np.inf
