"""Critical parameters: closed forms, brute force, rollouts, derivatives, and what is said where nothing crosses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
from ipodyn import DPO, MRS, RESULTS
from ipodyn._equilibria.critical import CODES, solve_critical
from ipodyn._equilibria.fixed_point import solve_fixed_point
from ipodyn._equilibria.stability import solve_stability


def cyclic_P(rng, M):
    """Random K = 3 cycles, 0 beats 1 beats 2 beats 0, of any shape."""
    wins = rng.uniform(0.55, 0.95, (3, M))
    P = np.full((M, 3, 3), 0.5)
    for (i, j), win in zip(((0, 1), (1, 2), (2, 0)), wins, strict=True):
        P[:, i, j], P[:, j, i] = win, 1 - win
    return P


def last_axis(*arrays):
    return [jnp.moveaxis(jnp.asarray(x), 0, -1) for x in arrays]


@jax.jit
def radii(P, alpha, beta, lam):
    """Radius at the fixed point, for a block of matrices with the batch behind and a leading axis of parameters."""

    def one(alpha, beta, lam):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam)
        return solve_stability(loop, solve_fixed_point(loop).policy).radius

    return jax.lax.map(lambda x: one(*x), (alpha, beta, lam))


def test_three_cycle_has_a_closed_form(rng):
    M = 100
    a, alpha, lam = rng.uniform(0.1, 0.5, M), rng.uniform(0, 0.95, M), rng.uniform(0.2, 1, M)

    def find(a, alpha, lam):
        return ipodyn.critical_beta(MRS(ipodyn.problems.three_cycle(a), alpha=alpha, beta=1.0, lam=lam), throw=False)

    def value(a, alpha, lam):
        return find(a, alpha, lam).value

    found = jax.jit(jax.vmap(find))(a, alpha, lam)
    expected = np.sqrt(3 * (1 - alpha**2)) / (a * lam)
    assert bool(jnp.all(found.result == RESULTS.successful))
    # log rho^2 is solved to a few epsilons; its slope in log beta is 2 (1 - alpha^2), down to 0.2.
    np.testing.assert_allclose(found.value, expected, rtol=1e-13)
    assert float(found.residual.max()) < 1e-14
    gradients = jax.jit(jax.vmap(jax.grad(value, argnums=(0, 1, 2))))(a, alpha, lam)
    for gradient, exact in zip(
        gradients, (-expected / a, -expected * alpha / (1 - alpha**2), -expected / lam), strict=True
    ):
        np.testing.assert_allclose(gradient, exact, rtol=1e-10)


@pytest.mark.slow
def test_second_derivative_of_the_three_cycle():
    def value(alpha):
        return ipodyn.critical_beta(MRS(ipodyn.problems.three_cycle(0.3), alpha=alpha, beta=1.0, lam=0.7)).value

    second = jax.jit(jax.grad(jax.grad(value)))(0.6)
    np.testing.assert_allclose(second, -np.sqrt(3) / (0.3 * 0.7) * (1 - 0.6**2) ** -1.5, rtol=1e-9)


@pytest.mark.parametrize("name", ["beta", *(pytest.param(name, marks=pytest.mark.slow) for name in ("alpha", "lam"))])
def test_it_is_the_first_crossing_on_a_fine_grid(rng, name):
    M = 300
    P = random_P(rng, M, 4)
    fields = {"alpha": rng.uniform(0, 0.9, M), "beta": np.exp(rng.uniform(1, 4, M)), "lam": rng.uniform(0.3, 1, M)}
    (block,) = last_axis(P)
    largest = {"beta": 1e3, "alpha": 0.999, "lam": 1.0}[name]
    find = jax.jit(lambda P, fields: solve_critical(MRS(P, **fields), CODES[name], largest))
    found = find(block, {k: jnp.asarray(x) for k, x in fields.items()})
    assert not bool(jnp.any(found.result == RESULTS.max_steps_reached))

    count = 600
    grid = {
        "beta": lambda: np.geomspace(0.5, largest, count),
        "alpha": lambda: 1 - np.geomspace(1, 1 - largest, count),
        "lam": lambda: np.linspace(0, 1, count),
    }[name]()
    every = {k: jnp.broadcast_to(jnp.asarray(x), (count, M)) for k, x in fields.items()}
    every[name] = jnp.broadcast_to(jnp.asarray(grid)[:, None], (count, M))
    above = np.asarray(radii(block, every["alpha"], every["beta"], every["lam"])) >= 1
    first = above.argmax(0)
    never, always = ~above.any(0), above[0]
    kinds = np.where(always, 2, np.where(never, 1, 0))
    mine = np.where(
        found.result == RESULTS.unstable_throughout, 2, np.where(found.result == RESULTS.stable_throughout, 1, 0)
    )
    # A grid of 600 may miss a hump that the search finds, or the very end of the range; never the other way round.
    assert np.all((kinds == mine) | ((kinds == 1) & (mine == 0)))
    assert np.mean(kinds == mine) > 0.99
    for kind in (0, 1):
        assert (kinds == kind).sum() >= 10
    at = (kinds == 0) & (mine == 0)
    value = np.asarray(found.value)
    assert np.all(value[at] <= grid[first[at]] * (1 + 1e-12))
    assert np.mean(value[at] >= grid[first[at] - 1]) > 0.97  # the rest are humps between two points of the grid
    assert np.all(np.isinf(value[mine == 1])) and np.all(value[mine == 2] == 0)
    assert float(found.residual.max()) < 1e-12


def test_a_hump_between_two_points_of_the_scan():
    """A loop that is unstable only in a narrow band of beta, because its fixed point leaves the cycle for a vertex.

    With kappa = beta / (1 - alpha) and w the maximum over kappa of kappa * omega, the radius reaches
    sqrt(alpha^2 + (1 - alpha)^2 w^2), which is 1 at alpha = (w^2 - 1) / (w^2 + 1).
    """
    P = jnp.array([[0.5, 0.81, 0.06, 0.47], [0.19, 0.5, 0.98, 0.19], [0.94, 0.02, 0.5, 0.48], [0.53, 0.81, 0.52, 0.5]])
    kappas = np.geomspace(0.5, 200.0, 20000)
    count = kappas.shape[0]
    block = jnp.broadcast_to(P[..., None], (4, 4, count))

    @jax.jit
    def swing(alpha):
        loop = MRS(block, alpha=alpha, beta=kappas * (1 - alpha), lam=1.0)
        return solve_stability(loop, solve_fixed_point(loop).policy).radius

    w_squared = 4 * np.max(np.square(swing(0.5))) - 1
    alpha = float((w_squared - 1) / (w_squared + 1)) - 1e-6
    above = np.asarray(swing(alpha)) >= 1
    spacing = count / 48 * np.log(400) / np.log(200 / kappas[above.argmax()])  # of the scan, in points, at least
    assert 0 < above.sum() < spacing / 5
    # The ends shift the points of the scan against the hump by a whole spacing and more: in about half of them the
    # parabola through the points beside it stays below 0, so that only a margin makes the search look closer.
    ends = jnp.geomspace(200, 260, 12)
    twelve = MRS(block[..., :12], alpha=jnp.full(12, alpha), beta=jnp.ones(12), lam=jnp.ones(12))
    found = jax.jit(lambda loop, ends: solve_critical(loop, CODES["beta"], ends))(twelve, ends * (1 - alpha))
    assert bool(jnp.all(found.result == RESULTS.successful))
    # The grid is spaced by a factor of 1 + 3e-4.
    np.testing.assert_allclose(found.value, kappas[above.argmax()] * (1 - alpha), rtol=6e-4)


@pytest.mark.slow
def test_results_say_what_is_not_a_crossing():
    cycle, tie = ipodyn.problems.three_cycle(0.3), jnp.full((3, 3), 0.5)

    def kinds(P, **fields):
        loop = MRS(P, **{"alpha": 0.5, "beta": 2.0, "lam": 1.0, **fields})
        return [find(loop) for find in (ipodyn.critical_beta, ipodyn.critical_alpha, ipodyn.critical_lam)]

    for found in (*kinds(tie), kinds(cycle, lam=0.0)[0], kinds(cycle)[2], *kinds(ipodyn.problems.two_responses(0.9))):
        assert found.result == RESULTS.stable_throughout
        assert float(found.value) == np.inf
    beta, _, lam = kinds(cycle, alpha=1.0)
    _, alpha, _ = kinds(cycle, beta=50.0)
    for found in (beta, lam, alpha):
        assert found.result == RESULTS.unstable_throughout
        assert float(found.value) == 0
    for P in (tie, cycle):
        gradient = jax.grad(lambda alpha, P=P: ipodyn.critical_beta(MRS(P, alpha=alpha, beta=1.0, lam=0.0)).value)(0.5)
        assert float(gradient) == 0
    with pytest.raises(ValueError, match="largest"):
        ipodyn.critical_alpha(MRS(cycle, alpha=0.5, beta=1.0, lam=1.0), largest=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beta", "alpha", "lam"])
def test_derivatives_against_differences(rng, name):
    M = 20
    fields = {
        "alpha": np.full(M, 0.3),
        "beta": np.full(M, 9.0),
        "lam": np.full(M, 0.9),
        "pi_ref": rng.dirichlet(np.full(3, 20.0), M),
        "pi_0": rng.dirichlet(np.full(3, 20.0), M),
    }
    if name == "alpha":
        fields["beta"] = np.full(M, 3.0)
    P = 0.5 + 0.4 * (cyclic_P(rng, M) - 0.5) / 0.45

    def value(P, fields):
        find = {"beta": ipodyn.critical_beta, "alpha": ipodyn.critical_alpha, "lam": ipodyn.critical_lam}[name]
        found = find(MRS(P, **fields), throw=False)
        return found.value, found.result == RESULTS.successful

    directions = {key: rng.normal(size=x.shape) for key, x in fields.items()}
    for key in ("pi_ref", "pi_0"):
        directions[key] = 0.1 * (directions[key] - directions[key].mean(-1, keepdims=True))
    skew = 0.1 * rng.normal(size=P.shape)
    skew = skew - np.swapaxes(skew, 1, 2)
    gradients, ok = jax.jit(jax.vmap(jax.grad(value, argnums=(0, 1), has_aux=True)))(P, fields)
    assert np.sum(ok) >= 10
    total = np.sum(gradients[0] * skew, (1, 2))
    for key, x in gradients[1].items():
        total = total + np.sum(np.reshape(x * directions[key], (M, -1)), -1)
    np.testing.assert_array_equal(gradients[1][name], 0)
    h, at = 1e-6, jax.jit(jax.vmap(lambda P, fields: value(P, fields)[0]))
    forward, backward = (
        at(P + s * h * skew, {key: x + s * h * directions[key] for key, x in fields.items()}) for s in (1, -1)
    )
    # Central differences: 1e-15 / h times the condition of the crossing, h^2 from the third derivative.
    np.testing.assert_allclose(total[ok], ((forward - backward) / (2 * h))[ok], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_boundaries_of_many_matrices(rng):
    P, alphas = cyclic_P(rng, 30), np.array([0.0, 0.4, 0.8])
    edge = ipodyn.stability_boundary(P, alpha=alphas, lam=0.8)
    assert edge.value.shape == (30, 3) and edge.policy.shape == (30, 3, 3)

    def single(P, alpha):
        return ipodyn.critical_beta(MRS(P, alpha=alpha, beta=1.0, lam=0.8), throw=False).value

    each = jax.jit(jax.vmap(jax.vmap(single, in_axes=(None, 0)), in_axes=(0, None)))(P, alphas)
    np.testing.assert_allclose(edge.value, each, rtol=1e-12)


@pytest.mark.slow
def test_dpo_three_cycle_has_a_closed_form():
    """At uniform mu, L = (3 I - 1 1^T) / 36 and E = a C with |C| = sqrt(3), so omega = 12 * a sqrt(3) / 9."""
    a, alpha = 0.3, 0.5
    loop = MRS(ipodyn.problems.three_cycle(a), alpha=alpha, beta=1.0, lam=1.0, objective=DPO())
    found = ipodyn.critical_beta(loop, largest=10.0)
    np.testing.assert_allclose(found.value, np.sqrt(1 - alpha**2) / (4 * a / np.sqrt(3)), rtol=1e-12)


@pytest.mark.slow
def test_float32(rng):
    P, alpha = cyclic_P(rng, 100), rng.uniform(0, 0.9, 100)
    find = jax.jit(
        lambda P, alpha: solve_critical(
            MRS(P, alpha=alpha, beta=jnp.ones_like(alpha), lam=jnp.ones_like(alpha)), CODES["beta"], 1e3
        )
    )
    exact = find(*last_axis(P, alpha))
    rough = find(*[x.astype("float32") for x in last_axis(P, alpha)])
    assert rough.value.dtype == jnp.float32
    kept = np.asarray(rough.result == RESULTS.successful)
    np.testing.assert_array_equal(kept, exact.result == RESULTS.successful)
    assert kept.sum() >= 50
    # Rounding of rho^2, 1e-7, over its slope in log beta, 2 (1 - alpha^2) or more than a tenth of that.
    np.testing.assert_allclose(rough.value[kept], exact.value[kept], rtol=1e-4)


@pytest.mark.slow
def test_critical_beta_against_bisection_on_rollouts(rng):
    """Whether a small deviation has grown after 4,000 rounds, bisected in beta, for 50 cycles: within 0.5 %."""
    M, rounds = 50, 4000
    P = cyclic_P(rng, M)
    alpha, lam = rng.uniform(0.1, 0.7, M), rng.uniform(0.7, 1, M)

    def grows(P, alpha, beta, lam):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam)
        star = ipodyn.fixed_point(loop, throw=False).policy
        start = star * jnp.exp(1e-5 * jnp.array([1.0, -1.0, 0.0]))
        start = start / start.sum()
        orbit = ipodyn.rollout(loop, start, num_steps=rounds)
        return jnp.sum((orbit.final - star) ** 2) > jnp.sum((start - star) ** 2)

    grown = jax.jit(jax.vmap(grows))
    low, high = np.full(M, 0.1), np.full(M, 40.0)
    found = jax.jit(
        jax.vmap(lambda P, a, l: ipodyn.critical_beta(MRS(P, alpha=a, beta=1.0, lam=l), largest=40.0, throw=False))
    )(P, alpha, lam)
    crosses = np.asarray(found.result == RESULTS.successful)
    for _ in range(14):
        middle = np.sqrt(low * high)
        up = np.asarray(grown(P, alpha, middle, lam))
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    assert crosses.sum() >= 40
    np.testing.assert_allclose(np.sqrt(low * high)[crosses], found.value[crosses], rtol=5e-3)
