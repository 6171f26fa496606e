"""Safe regions and tuning against closed forms and a plain scan over values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import RESULTS
from ipodyn._equilibria import equilibrium as _equilibrium
from ipodyn._equilibria import safe_region as _safe_region
from ipodyn._numerics.results import choose


def test_three_cycles_have_a_closed_form():
    """Theory F2: |A| = a sqrt 3 at the uniform point, so beta_max = sqrt(3 (radius_max^2 - alpha^2)) / (a lam)."""
    strengths = np.array([0.1, 0.2, 0.35, 0.5])
    P = jax.vmap(ipodyn.problems.three_cycle)(jnp.asarray(strengths))
    for radius_max in (1.0, 0.9):
        found = ipodyn.safe_region(P, alpha=0.6, lam=0.8, radius_max=radius_max)
        exact = np.sqrt(3 * (radius_max**2 - 0.36)) / (strengths * 0.8)
        np.testing.assert_allclose(found.limits, exact, rtol=1e-9)  # the reserve is 256 roundings of the radius
        assert float(found.value) == pytest.approx(exact.min(), rel=1e-9)
        assert np.asarray(found.binding).tolist() == [False, False, False, True]
        assert float(found.radius[3]) == pytest.approx(radius_max, abs=1e-9) and float(found.fraction) == 1.0
    alphas = ipodyn.safe_region(P, beta=4.0, lam=0.8)
    np.testing.assert_allclose(alphas.limits, np.sqrt(np.maximum(1 - (strengths * 3.2) ** 2 / 3, 0)), rtol=1e-9)
    assert alphas.parameter == "alpha"
    shares = ipodyn.safe_region(P, alpha=0.6, beta=6.0)
    np.testing.assert_allclose(shares.limits, np.minimum(np.sqrt(3 * 0.64) / (strengths * 6), 1), rtol=1e-9)
    assert np.asarray(shares.binding).tolist() == [False, False, False, True]


def test_a_share_gives_up_the_worst_matrices():
    strengths = np.linspace(0.05, 0.5, 10)
    P = jax.vmap(ipodyn.problems.three_cycle)(jnp.asarray(strengths))
    exact = np.sqrt(3 * 0.75) / strengths
    for share, kept in ((1.0, 10), (0.9, 9), (0.55, 6), (0.1, 1)):
        found = ipodyn.safe_region(P, alpha=0.5, lam=1.0, fraction=share)
        assert float(found.value) == pytest.approx(np.sort(exact)[::-1][kept - 1], rel=1e-9)
        assert int(found.unsafe.sum()) == 10 - kept and float(found.fraction) >= share - 1e-12
        assert int(found.binding.sum()) == 1


def test_a_share_that_rounds_above_a_whole_number():
    """0.56 * 25 is 14.000000000000002 in floating point: fourteen matrices are asked for, not fifteen."""
    assert 0.56 * 25 > 14
    strengths = np.linspace(0.05, 0.5, 25)
    found = ipodyn.safe_region(jax.vmap(ipodyn.problems.three_cycle)(strengths), alpha=0.5, lam=1.0, fraction=0.56)
    assert float(found.value) == pytest.approx(np.sqrt(3 * 0.75) / strengths[13], rel=1e-9)
    assert int(found.unsafe.sum()) == 11 and bool(found.result == ipodyn.RESULTS.successful)


def test_a_matrix_whose_fixed_point_was_not_found_is_not_safe(monkeypatch):
    """Three calm loops; of the middle one the solver says that it did not get there."""
    ones = jnp.ones(3)
    solve = _equilibrium.solve_fixed_point

    def failing(loop, policy0):
        star = solve(loop, policy0)
        lost = choose(jnp.arange(3) == 1, RESULTS.max_steps_reached, star.result)
        return eqx.tree_at(lambda found: found.result, star, lost)

    question = _safe_region._Question(
        jnp.stack([ipodyn.problems.three_cycle(0.2)] * 3, axis=-1),
        {"alpha": jnp.asarray(0.5), "lam": jnp.asarray(1.0)},
        jnp.full((3, 3), 1 / 3),
        jnp.full((3, 3), 1 / 3),
        jnp.asarray(1.0),
        jnp.asarray(0.0),
        ipodyn.IPO(),
        "beta",
    )
    assert question.look(ones).safe.tolist() == [True, True, True]
    monkeypatch.setattr(_equilibrium, "solve_fixed_point", failing)
    assert question.look(ones).safe.tolist() == [True, False, True]


def test_reference_and_sampler_keep_their_places():
    """Skewed and distinct, one for each matrix where that is allowed, against calls of single loops."""
    strengths = np.array([0.3, 0.45])
    P = np.asarray(jax.vmap(ipodyn.problems.three_cycle)(strengths))
    pi_ref, pi_0 = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]), np.array([[0.1, 0.3, 0.6], [0.25, 0.15, 0.6]])
    alphas = np.array([0.5, 0.8])

    @jax.jit
    @jax.vmap
    def critical(P, alpha, ref, start):
        return ipodyn.critical_beta(ipodyn.MRS(P, alpha=alpha, beta=1.0, lam=0.7, pi_ref=ref, pi_0=start)).value

    of, at = np.divmod(np.arange(4), 2)
    expected = np.asarray(critical(P[of], alphas[at], pi_ref[of], pi_0[of])).reshape(2, 2)
    swapped = np.asarray(critical(P[of], alphas[at], pi_0[of], pi_ref[of])).reshape(2, 2)
    assert np.isfinite(expected).all() and (np.abs(swapped / expected - 1) > 0.02).all()  # the places do matter
    found = ipodyn.stability_boundary(P, alpha=alphas, lam=0.7, pi_ref=pi_ref, pi_0=pi_0)
    np.testing.assert_allclose(found.value, expected, rtol=1e-8)
    for m in range(2):
        region = ipodyn.safe_region(P[m], alpha=0.5, lam=0.7, pi_ref=pi_ref[m], pi_0=pi_0[m])
        assert float(region.value) == pytest.approx(expected[m, 0], rel=1e-8)
    tuned = ipodyn.tune(
        lambda loop, policy: -ipodyn.entropy(policy),
        P,
        alpha=0.5,
        beta=1.0,
        lam=0.7,
        over=["beta"],
        pi_ref=pi_ref[0],
        pi_0=pi_0[0],
        num_steps=2,
    )
    for m in range(2):
        loop = ipodyn.MRS(P[m], alpha=0.5, beta=tuned.beta, lam=0.7, pi_ref=pi_ref[0], pi_0=pi_0[0])
        np.testing.assert_allclose(tuned.policies[m], ipodyn.fixed_point(loop).policy, rtol=0, atol=1e-10)


def test_entropy_floor_binds_on_two_responses():
    """K = 2: log-odds beta (p - 1/2) / (1 - alpha), radius alpha: only the entropy can bind."""
    found = ipodyn.safe_region(ipodyn.problems.two_responses(0.8), alpha=0.5, lam=0.7, entropy_min=0.3)
    odds = float(found.value) * 0.3 / 0.5
    p = 1 / (1 + np.exp(-odds))
    assert -(p * np.log(p) + (1 - p) * np.log1p(-p)) == pytest.approx(0.3, abs=1e-9)
    free = ipodyn.safe_region(ipodyn.problems.two_responses(0.8), alpha=0.5, lam=0.7, bounds=(0.1, 50.0))
    assert float(free.value) == 50.0 and not bool(free.binding[0])


@pytest.mark.slow
def test_random_matrices_agree_with_a_plain_scan(rng):
    """Against the fixed point and its radius called one by one, on both sides of every limit."""
    P = complementary(rng.uniform(0.02, 0.98, (12, 4, 4)))
    found = ipodyn.safe_region(P, alpha=0.8, lam=0.9, entropy_min=0.4, fraction=0.75)

    @jax.jit
    @jax.vmap
    def safe(P, beta):
        loop = ipodyn.MRS(P, alpha=0.8, beta=beta, lam=0.9)
        star = ipodyn.fixed_point(loop, throw=False)
        return (ipodyn.stability(loop, star.policy).radius < 1) & (ipodyn.entropy(star.policy) >= 0.4)

    limits = np.asarray(found.limits)
    assert ((limits > 1e-3) & (limits < 1e3)).all()
    for factor in (0.3, 0.7, 1 - 1e-6):
        assert np.asarray(safe(P, limits * factor)).all()
    assert not np.asarray(safe(P, limits * (1 + 1e-6))).any()
    assert np.asarray(safe(P, np.full(12, float(found.value)))).sum() == 9


def test_nothing_safe_is_said():
    P = ipodyn.problems.three_cycle(0.5)
    found = ipodyn.safe_region(P, alpha=0.9, lam=1.0, bounds=(5.0, 50.0), throw=False)
    assert bool(found.result == ipodyn.RESULTS.infeasible) and float(found.value) == 5.0 and float(found.fraction) == 0
    with pytest.raises(RuntimeError, match="No value inside the bounds"):
        ipodyn.safe_region(P, alpha=0.9, lam=1.0, bounds=(5.0, 50.0))


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"alpha": 0.5}, "exactly one"),
        ({"alpha": 0.5, "beta": 1.0, "lam": 1.0}, "exactly one"),
        ({"alpha": 1.5, "lam": 1.0}, "alpha"),
        ({"alpha": 0.5, "lam": 1.0, "fraction": 0.0}, "fraction"),
        ({"alpha": 0.5, "lam": 1.0, "radius_max": 2.0}, "radius_max"),
        ({"alpha": 0.5, "lam": 1.0, "entropy_min": 5.0}, "entropy_min"),
        ({"alpha": 0.5, "lam": 1.0, "bounds": (2.0, 1.0)}, "bounds"),
        ({"beta": 1.0, "lam": 1.0, "bounds": (0.0, 1.0)}, "alpha"),
    ],
)
def test_wrong_questions_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit) as error:
        ipodyn.safe_region(ipodyn.problems.three_cycle(0.3), **options)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_tune_meets_the_boundary():
    """Sharpening a three-cycle's rotation: the functional grows with beta, so the answer is the largest stable beta."""
    P = ipodyn.problems.three_cycle(0.4)
    found = ipodyn.tune(
        lambda loop, policy: jnp.log(loop.beta), P, alpha=0.5, beta=1.0, lam=1.0, over=["beta"], radius_max=0.95
    )
    exact = np.sqrt(3 * (0.95**2 - 0.25)) / 0.4
    assert float(found.radius[0]) <= 0.95
    assert float(found.beta) == pytest.approx(exact, rel=0.02)  # the best feasible point visited by Adam


@pytest.mark.slow
def test_tune_beats_a_scan(rng):
    """Win rate against the reference over three matrices and two parameters, against 40 x 40 settings."""
    P = jnp.asarray(complementary(rng.uniform(0.1, 0.9, (3, 4, 4))))
    box = {"alpha": (0.0, 0.9), "beta": (0.1, 20.0)}

    def win_rate(loop, policy):
        return policy @ loop.P @ loop.pi_ref

    found = ipodyn.tune(win_rate, P, alpha=0.3, beta=1.0, lam=0.8, over=["alpha", "beta"], radius_max=0.8, bounds=box)

    @jax.jit
    @jax.vmap
    def at(alpha, beta):
        def one(P):
            loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=0.8)
            star = ipodyn.fixed_point(loop, throw=False)
            return win_rate(loop, star.policy), ipodyn.stability(loop, star.policy).radius

        value, radius = jax.vmap(one)(P)
        return jnp.where(jnp.max(radius) <= 0.8, jnp.mean(value), -1.0)

    alphas, betas = np.meshgrid(np.linspace(0, 0.9, 40), np.geomspace(0.1, 20, 40))
    best = float(np.max(at(alphas.ravel(), betas.ravel())))
    assert (np.asarray(found.radius) <= 0.8).all()
    assert float(found.functional_value) >= best - 0.005  # as good as the scan, up to what 300 steps of Adam leave
    assert float(found.lam) == 0.8


def test_tune_says_when_nothing_is_stable_enough():
    P = ipodyn.problems.three_cycle(0.5)
    options = {"alpha": 0.9, "beta": 5.0, "lam": 1.0, "over": ["beta"], "bounds": {"beta": (4.0, 9.0)}, "num_steps": 20}
    found = ipodyn.tune(lambda loop, policy: policy[0], P, throw=False, **options)
    assert bool(found.result == ipodyn.RESULTS.infeasible)
    with pytest.raises(RuntimeError, match="No value inside the bounds"):
        ipodyn.tune(lambda loop, policy: policy[0], P, **options)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"over": ["gamma"]}, "gamma"),
        ({"over": []}, "over"),
        ({"radius_max": 0.0}, "radius_max"),
        ({"bounds": {"alpha": (0.0, 1.0)}}, "alpha"),
        ({"bounds": {"beta": (0.0, 1.0)}}, "beta"),
        ({"bounds": {"beta": (2.0, 3.0)}}, "starts"),
    ],
)
def test_wrong_tuning_is_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        ipodyn.tune(
            lambda loop, policy: policy[0], ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=1.0, **options
        )
