"""An objective that the library does not know goes through it: what it defines works, what it does not is said.

The squared hinge max(0, 1 - (h_w - h_l) / beta)^2 (SLiC, squared). Where no score gap exceeds 1, both of its sides are
active and the stationarity of sum mu_i mu_j (P_ij (1 - r_i + r_j)^2 + P_ji (1 + r_i - r_j)^2) reads
r_i - r_j = 2 (P mu)_i - 2 (P mu)_j: its loops are those of IPO at twice the beta, an independent answer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import IPO, MRS, RESULTS, MRSStability

K = 4


def hinge_system(score, P, mu):
    """The slope of the loss over mu_i, with its sign turned, and minus its derivative with the gauge fixed."""
    gap = score[:, None] - score[None]
    back = jnp.swapaxes(P, 0, 1)
    slope = jnp.sum(mu[None] * (P * jnp.maximum(1 - gap, 0) - back * jnp.maximum(1 + gap, 0)), axis=1)
    bend = mu[None] * (jnp.where(gap < 1, P, 0) + jnp.where(gap > -1, back, 0))
    eye = jnp.eye(len(mu)).reshape((len(mu), len(mu)) + (1,) * (mu.ndim - 1))
    return slope, eye * jnp.sum(bend, axis=1)[:, None] + (mu[None] - bend)


def newton(score, P, mu):
    slope, matrix = hinge_system(score, P, mu)
    front = jnp.moveaxis(matrix, (0, 1), (-2, -1))
    step = jnp.linalg.solve(jax.lax.stop_gradient(front), jnp.moveaxis(slope, 0, -1)[..., None])[..., 0]
    moved = score + jnp.moveaxis(step, -1, 0)
    return moved - jnp.mean(moved, axis=0, keepdims=True)


class SquaredHinge(ipodyn.AbstractObjective):
    def solve_score(self, P, mu, guess=None):
        still = jax.lax.stop_gradient((P, mu))
        score = jax.lax.fori_loop(0, 12, lambda _, score: newton(score, *still), jnp.zeros_like(mu))
        score = newton(jax.lax.stop_gradient(score), P, mu)  # the step has the derivative of the implicit function
        residual = jnp.max(jnp.abs(hinge_system(score, P, mu)[0]), axis=0)
        converged = residual <= 1e-10
        result = jax.tree.map(lambda x: jnp.broadcast_to(x, converged.shape), RESULTS.successful)
        return ipodyn.ScoreSolution(score, result, residual, jnp.full(converged.shape, 12, jnp.int32), converged)

    def pair_losses(self, margin, beta):
        return jnp.maximum(0, 1 - margin / beta) ** 2

    def response(self, P, *, beta, lam, pi_0):
        return ipodyn.ScoreResponse.of(self, P, beta=beta, lam=lam, pi_0=pi_0)


@pytest.fixture(scope="module")
def pair():
    """A loop with the squared hinge, and the loop of IPO that it is."""
    rng = np.random.default_rng(3)
    P = complementary(rng.uniform(0.3, 0.7, (K, K)))
    pi_ref, pi_0 = rng.dirichlet(np.full(K, 9.0), 2)
    fields = {"alpha": 0.6, "lam": 0.8, "pi_ref": pi_ref, "pi_0": pi_0}
    return MRS(P, beta=3.0, objective=SquaredHinge(), **fields), MRS(P, beta=6.0, objective=IPO(), **fields)


def test_optimum_against_gradient_steps_on_its_pairs(rng):
    """Also where gaps exceed 1, and one side of the hinge is off."""
    P = ipodyn.problems.bradley_terry(jnp.array([2.0, 0.5, -0.5, -2.0]))
    mu, pi_ref = rng.dirichlet(np.full(K, 5.0), 2)
    exact = SquaredHinge().solve(P, mu, pi_ref, beta=1.5)
    score = SquaredHinge().score(P, mu)
    assert float(score.max() - score.min()) > 1
    found = ipodyn.gradient_optimum(SquaredHinge(), P, mu, pi_ref, beta=1.5)
    np.testing.assert_allclose(exact.policy, found.policy, atol=1e-9)


def test_round_fixed_point_and_stability_are_those_of_ipo(pair):
    """The general route of the solver and of the spectrum, against the one for linear scores."""
    ours, twin = pair
    policy = jnp.asarray([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(ours(policy), twin(policy), atol=1e-12)
    star, expected = ipodyn.fixed_point(ours), ipodyn.fixed_point(twin)
    np.testing.assert_allclose(star.policy, expected.policy, atol=1e-12)
    # omega is per unit of beta lam, of which IPO's loop has twice as much.
    found, known = ipodyn.stability(ours, star.policy), ipodyn.stability(twin, expected.policy)
    assert isinstance(found, MRSStability) and isinstance(known, MRSStability)
    np.testing.assert_allclose([found.radius, found.omega / 2], [known.radius, known.omega], rtol=1e-10)


def test_rollout_is_that_of_ipo(pair):
    orbit, expected = (ipodyn.rollout(loop, num_steps=50) for loop in pair)
    np.testing.assert_allclose([*orbit.final, orbit.variance], [*expected.final, expected.variance], atol=1e-12)


@pytest.mark.slow
def test_fluctuations_and_sensitivity_are_those_of_ipo(pair):
    _, twin = pair
    star = ipodyn.fixed_point(twin).policy
    noise, known = (ipodyn.stationary_covariance(loop, star, num_pairs=100) for loop in pair)
    np.testing.assert_allclose(noise.logits, known.logits, rtol=1e-9)
    sensitive, exact = (
        ipodyn.sampling_sensitivity(loop.objective, loop.P, loop.pi_0, pi_ref=loop.pi_ref, beta=loop.beta)
        for loop in pair
    )
    tangent = np.eye(K) - 1 / K  # it acts on changes of mu that sum to zero
    np.testing.assert_allclose(sensitive @ tangent, exact @ tangent, atol=1e-12)


@pytest.mark.slow
def test_map_and_critical_value_are_those_of_ipo(pair):
    ours, twin = pair
    np.testing.assert_allclose(
        2 * ipodyn.critical_beta(ours, largest=100.0).value, ipodyn.critical_beta(twin, largest=200.0).value, rtol=1e-9
    )
    betas = np.array([1.0, 4.0])
    maps = [
        ipodyn.stability_map(
            loop.P[None], alpha=[0.3, 0.6], beta=betas * scale, lam=0.8, num_steps=200, objective=loop.objective
        )
        for loop, scale in ((ours, 1), (twin, 2))
    ]
    np.testing.assert_allclose(maps[0]["radius"], maps[1]["radius"], rtol=1e-9)
    np.testing.assert_array_equal(maps[0]["regime"], maps[1]["regime"])
    assert "contraction_bound" not in maps[0]


def no_fit(P):
    ipodyn.empirical_score(SquaredHinge(), np.ones((K, K)))


def no_finite_loop(P):
    loop = MRS(P, alpha=0.5, beta=1.0, lam=1.0, objective=SquaredHinge())
    ipodyn.finite_rollout(loop, key=jax.random.key(0), num_pairs=10, num_steps=2)


def no_name_at_trl(P):
    ipodyn.recipes.to_trl(ipodyn.recipes.online(beta=1.0, objective=SquaredHinge()))


def no_certificate(P):
    ipodyn.convergence_certificate(MRS(P, alpha=0.5, beta=1.0, lam=1.0, objective=SquaredHinge()))


@pytest.mark.parametrize("ask", [no_fit, no_finite_loop, no_name_at_trl, no_certificate])
def test_what_it_does_not_define_is_one_line(ask, rng):
    with pytest.raises(ValueError, match="SquaredHinge") as error:
        ask(complementary(rng.uniform(0.3, 0.7, (K, K))))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_witnesses_are_found_by_ascent():
    """Scores are not linear in P as a whole, so the search is that of DPO, not the linear programme of IPO."""
    P = np.asarray(ipodyn.problems.bradley_terry(np.array([0.6, 0.0, -0.6])))
    found = ipodyn.most_violating(SquaredHinge(), [0.2, 0.2, 0.6], P - 0.1, P + 0.1)
    ipo = ipodyn.most_violating(IPO(), [0.2, 0.2, 0.6], P - 0.1, P + 0.1)
    assert float(found.margin) == pytest.approx(2 * float(ipo.margin), abs=1e-6)
