"""Local stability: spectra against automatic Jacobians, closed forms, measured rates and rotations, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops
from preferences import complementary, random_P
from scipy.linalg import null_space

import ipodyn
from ipodyn import DPO, MRS, RESULTS
from ipodyn._equilibria.fixed_point import solve_fixed_point
from ipodyn._equilibria.stability import solve_stability

ROWS = 200
SLOW = pytest.mark.slow


def settle(*fields, objective=None):
    loop = loop_of(*fields, objective=objective)
    found = ipodyn.fixed_point(loop, throw=False)
    return found, ipodyn.stability(loop, found.policy)


def tangent(J):
    """Restriction to the sum-zero space, in a basis of SciPy's."""
    Q = null_space(np.ones((1, J.shape[-1])))
    return Q.T @ np.asarray(J) @ Q


def assert_same_spectra(mine, other, atol):
    """Every eigenvalue of one has its partner in the other: sorting would split near-equal real parts."""
    for a, b in zip(np.asarray(mine), np.asarray(other), strict=True):
        left = list(b)
        for value in a:
            nearest = int(np.argmin(np.abs(np.array(left) - value)))
            assert abs(left.pop(nearest) - value) <= atol


@pytest.mark.parametrize("K", (3, 4, 5, 12))
def test_spectrum_of_ipo_is_that_of_the_automatic_jacobian(rng, K):
    fields = random_loops(rng, ROWS, K)  # with all sizes, 800 loops

    def one_round(z, P, alpha, beta, lam, pi_ref, pi_0):  # the definition, in logits
        mu = lam * jax.nn.softmax(z) + (1 - lam) * pi_0
        return alpha * z + (1 - alpha) * jnp.log(pi_ref) + beta * P @ mu

    def both(*fields):
        found, local = settle(*fields)
        return found.result, local, jax.jacfwd(one_round)(jnp.log(found.policy), *fields)

    result, local, J = jax.jit(jax.vmap(both))(*fields)
    assert bool(jnp.all(result == RESULTS.successful))
    expected = np.linalg.eigvals(tangent(J))
    # The Jacobian is far from normal near a face; LAPACK loses up to 1e-10 there, the symmetric route does not.
    assert_same_spectra(local.eigenvalues, expected, atol=1e-8)
    np.testing.assert_allclose(local.radius, np.abs(expected).max(-1), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(local.stable, local.radius < 1)
    np.testing.assert_array_equal(local.margin, 1 - local.radius)
    # Real parts are alpha, exactly; omega is at most half the norm of A.
    np.testing.assert_array_equal(local.eigenvalues.real, np.broadcast_to(fields[1][:, None], (ROWS, K - 1)))
    assert np.all(local.omega <= np.linalg.norm(fields[0] - 0.5, 2, axis=(1, 2)) / 2 + 1e-15)


@pytest.mark.parametrize("K", (3, pytest.param(6, marks=SLOW)))
def test_spectrum_of_dpo(rng, K):
    """J = alpha + beta lam L^+ diag(mu) E S: against NumPy, and at lam = 1 all real parts are alpha."""
    M = 260
    P, alpha, beta, lam, pi_ref, pi_0 = random_loops(rng, M, K, beta=(0.1, 2.0), edge=0.05)
    lam[: M // 2] = 1

    def both(*fields):
        found, local = settle(*fields, objective=DPO())
        mu = fields[3] * found.policy + (1 - fields[3]) * fields[5]
        return found, local, mu, DPO().score(fields[0], mu, throw=False)

    found, local, mu, score = jax.jit(jax.vmap(both))(P, alpha, beta, lam, pi_ref, pi_0)
    mu, score = np.asarray(mu), np.asarray(score)
    assert bool(jnp.all(found.result == RESULTS.successful))
    rates = 1 / (1 + np.exp(score[:, None, :] - score[:, :, None]))
    # L = diag(mu) L_row: L^+ diag(mu) E d = L_row^{-1} E d up to a constant, without the division by small mu.
    conductance = rates * (1 - rates) * mu[:, None, :]
    row_laplacian = conductance.sum(-1)[:, :, None] * np.eye(K) - conductance
    E = P - rates
    pi = np.asarray(found.policy)
    S = np.eye(K) * pi[:, None] - pi[:, :, None] * pi[:, None, :]
    gain = (beta * lam)[:, None, None] * np.linalg.solve(row_laplacian + mu[:, None, :], E) @ S
    expected = np.linalg.eigvals(tangent(alpha[:, None, None] * np.eye(K) + gain))
    assert_same_spectra(local.eigenvalues, expected, atol=1e-8)
    np.testing.assert_allclose(local.radius, np.abs(expected).max(-1), rtol=0, atol=1e-8)
    # Rounding of the scores and of the Jacobian, magnified where the spectrum is nearly double.
    on_policy = local.eigenvalues[: M // 2].real
    np.testing.assert_allclose(on_policy, np.broadcast_to(alpha[: M // 2, None], on_policy.shape), rtol=0, atol=1e-10)


def test_three_cycle(rng):
    """The uniform fixed point is unstable exactly if alpha^2 + a^2 beta^2 lam^2 / 3 > 1."""
    M = 500
    strength, alpha, lam = rng.uniform(0.01, 0.5, M), rng.uniform(0, 1, M), rng.uniform(0, 1, M)
    beta = np.exp(rng.uniform(-1, 4, M))
    third = jnp.full(3, 1 / 3)

    def local(a, alpha, beta, lam):
        return ipodyn.stability(MRS(ipodyn.problems.three_cycle(a), alpha=alpha, beta=beta, lam=lam), third)

    found = jax.jit(jax.vmap(local))(strength, alpha, beta, lam)
    turning = strength * beta * lam / np.sqrt(3)
    np.testing.assert_allclose(found.radius**2, alpha**2 + turning**2, rtol=1e-13)
    np.testing.assert_array_equal(found.stable, alpha**2 + turning**2 < 1)
    np.testing.assert_allclose(found.angle, np.arctan2(turning, alpha), rtol=1e-13)
    np.testing.assert_allclose(found.period, 2 * np.pi / found.angle, rtol=1e-13)


def test_the_contraction_bound_is_above_the_radius(rng):
    for K in (2, 3, 4, 5):
        fields = random_loops(rng, ROWS, K)

        def bounds(policy, *fields):
            loop = loop_of(*fields)
            return ipodyn.contraction_bound(loop), ipodyn.stability(loop, policy).radius

        # omega <= ||A|| / 2 holds at every policy.
        bound, radius = jax.jit(jax.vmap(bounds))(rng.dirichlet(np.ones(K), ROWS), *fields)
        P, alpha, beta, lam = fields[:4]
        norms = np.linalg.norm(
            (P - 0.5) - (P - 0.5).mean(axis=2, keepdims=True) + (P - 0.5).mean(axis=2)[:, None], 2, axis=(1, 2)
        )
        np.testing.assert_allclose(bound, alpha + beta * lam / 2 * norms, rtol=1e-13, atol=1e-15)
        assert np.all(radius <= bound + 1e-13)


def test_two_responses_never_turn():
    loop = MRS(ipodyn.problems.two_responses(0.9), alpha=0.3, beta=50.0, lam=1.0)
    found = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy)
    np.testing.assert_allclose(found.eigenvalues, [0.3])
    assert float(found.radius) == pytest.approx(0.3)
    assert float(found.omega) == 0 and float(found.period) == np.inf


def test_rollouts_shrink_and_turn_as_predicted(rng):
    """Near the fixed point the deviation follows radius^t cos(angle t + phase); K = 3, where one pair is all."""
    M, K = 40, 3
    P, _, _, _, pi_ref, pi_0 = random_loops(rng, M, K)
    alpha, beta, lam = rng.uniform(0.1, 0.9, M), rng.uniform(1, 6, M), rng.uniform(0.5, 1, M)

    def measure(*fields):
        loop = loop_of(*fields)
        found, local = settle(*fields)
        start = found.policy * jnp.exp(1e-6 * jnp.array([1.0, -1.0, 0.5]))
        orbit = ipodyn.rollout(loop, start / start.sum(), num_steps=12, save=lambda policy: policy)
        return local, orbit.saved - found.policy[None]

    local, apart = jax.jit(jax.vmap(measure))(P, alpha, beta, lam, pi_ref, pi_0)
    # A plane map has x_{t+2} = trace x_{t+1} - det x_t: fit the two numbers to the orbit, in the two best coordinates.
    radius, angle = np.zeros(M), np.zeros(M)
    for i, x in enumerate(np.asarray(apart)):
        left = np.stack([x[1:-1].ravel(), -x[:-2].ravel()], axis=-1)
        (trace, det), *_ = np.linalg.lstsq(left, x[2:].ravel(), rcond=None)
        root = np.roots([1, -trace, det])[0]
        radius[i], angle[i] = np.abs(root), abs(np.angle(root))
    turning = np.asarray(local.angle) > 0.02  # below, a double root: the fit splits it by the square root of its noise
    assert turning.sum() >= 30
    np.testing.assert_allclose(radius[turning], local.radius[turning], rtol=0, atol=1e-3)
    np.testing.assert_allclose(angle[turning], local.angle[turning], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("K", "objective"),
    [(4, None), pytest.param(5, None, marks=SLOW), pytest.param(3, DPO(), marks=SLOW)],
)
def test_derivatives_of_the_radius(rng, K, objective):
    M = 30
    fields = random_loops(rng, M, K, beta=(0.5, 5.0), edge=0.1)
    skew = rng.normal(size=(M, K, K))
    simplex = [d - x * d.sum(-1, keepdims=True) for d, x in zip(rng.normal(size=(2, M, K)), fields[4:], strict=True)]
    directions = (skew - np.swapaxes(skew, 1, 2), *rng.normal(size=(3, M)), *[d * 0.1 for d in simplex])

    def radius(*fields):
        return settle(*fields, objective=objective)[1].radius

    gradients = jax.jit(jax.vmap(jax.grad(radius, argnums=tuple(range(6)))))(*fields)
    total = sum(np.sum(np.reshape(g * d, (M, -1)), -1) for g, d in zip(gradients, directions, strict=True))
    h, at = 1e-6, jax.jit(jax.vmap(radius))
    forward, backward = ([x + s * h * d for x, d in zip(fields, directions, strict=True)] for s in (1, -1))
    # Central differences: 1e-15 / h from rounding, h^2 from the third derivative.
    np.testing.assert_allclose(total, (at(*forward) - at(*backward)) / (2 * h), rtol=1e-6, atol=1e-7)


def paley(K):
    """A tournament whose skew matrix is a multiple of an isometry on the tangent space: all frequencies are equal."""
    squares = {i * i % K for i in range(1, K)}
    ahead = (np.arange(K)[None] - np.arange(K)[:, None]) % K
    return np.where(ahead == 0, 0.5, np.where(np.isin(ahead, list(squares)), 0.9, 0.1))


def test_equal_frequencies():
    """At uniform pi every omega_k is 0.4 / sqrt(7); the derivative exists along the strength, and is finite in P."""
    P, uniform = paley(7), jnp.full(7, 1 / 7)

    def radius(P, policy):
        return ipodyn.stability(MRS(P, alpha=0.5, beta=3.0, lam=1.0), policy).radius

    found = ipodyn.stability(MRS(P, alpha=0.5, beta=3.0, lam=1.0), uniform)
    np.testing.assert_allclose(found.eigenvalues.imag, np.array([1.2] * 3 + [-1.2] * 3) / np.sqrt(7), rtol=1e-12)
    in_P, in_policy = jax.grad(radius, argnums=(0, 1))(jnp.asarray(P), uniform)
    assert bool(jnp.all(jnp.isfinite(in_P))) and bool(jnp.all(jnp.isfinite(in_policy)))
    turning = 1.2 / np.sqrt(7)
    along = np.sum(np.asarray(in_P) * (P - 0.5)) / 0.4  # per unit of strength
    np.testing.assert_allclose(along, (turning / 0.4) * turning / float(found.radius), rtol=1e-10)


@pytest.mark.parametrize("K", (3, 4, 6))
def test_derivatives_stay_finite_at_ties_and_on_faces(K):
    """No cycle at all (omega = 0), and policies with exact zeros: values as on the smaller face, gradients finite."""
    tie = jnp.full((K, K), 0.5)
    uniform = jnp.full(K, 1 / K)

    def quantities(P, policy, alpha):
        found = ipodyn.stability(MRS(P, alpha=alpha, beta=2.0, lam=1.0), policy)
        return found.radius + found.omega + found.angle

    gradients = jax.jit(jax.grad(quantities, argnums=(0, 1, 2)))
    for alpha in (0.0, 0.5):
        for x in gradients(tie, uniform, alpha):
            assert bool(jnp.all(jnp.isfinite(x)))
    cyclic = jnp.asarray(random_P(np.random.default_rng(K), 1, K)[0])
    face = jnp.zeros(K).at[:2].set(0.5)
    vertex = jnp.zeros(K).at[0].set(1.0)
    for policy in (face, vertex):
        # On an edge or a vertex nothing turns: a skew matrix of order 2 has one frequency, and the gauge takes it.
        assert float(ipodyn.stability(MRS(cyclic, alpha=0.5, beta=2.0, lam=1.0), policy).omega) < 1e-7
        for x in gradients(cyclic, policy, 0.5):
            assert bool(jnp.all(jnp.isfinite(x)))


def test_derivative_in_a_policy_on_a_face(rng):
    """d omega^2 / d pi_i does not vanish at pi_i = 0: one-sided differences of the squared radius."""
    K, h = 5, 1e-7
    P = random_P(rng, 1, K)[0]
    policy = jnp.array([0.4, 0.3, 0.3, 0.0, 0.0])
    direction = jnp.array([-0.5, -0.3, -0.2, 0.6, 0.4])

    def squared(policy):
        return ipodyn.stability(MRS(P, alpha=0.5, beta=3.0, lam=1.0), policy).radius ** 2

    slope = jax.grad(squared)(policy) @ direction
    # One-sided: h times half the second derivative.
    np.testing.assert_allclose(slope, (squared(policy + h * direction) - squared(policy)) / h, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_blocks_and_float32(rng):
    fields = random_loops(rng, ROWS, 4)
    back = [jnp.moveaxis(jnp.asarray(x, "float32"), 0, -1) for x in fields]

    @jax.jit
    def block(*fields):
        loop = loop_of(*fields)
        return solve_stability(loop, solve_fixed_point(loop).policy)

    rough, (_, exact) = block(*back), jax.jit(jax.vmap(settle))(*fields)
    assert rough.radius.dtype == jnp.float32 and rough.eigenvalues.dtype == jnp.complex64
    # Rounded inputs, 6e-8, times beta * omega and the sensitivity of the fixed point, up to kappa = 200.
    np.testing.assert_allclose(rough.radius, exact.radius, rtol=2e-5, atol=2e-5)


def test_omega_of_dpo_is_per_unit_of_signal(rng):
    """omega is the largest imaginary part over beta * lam, lam < 1 included."""
    P = complementary(rng.uniform(0.2, 0.8, (3, 3)))
    loop = ipodyn.MRS(P, alpha=0.3, beta=2.5, lam=0.4, objective=ipodyn.DPO())
    found = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy)
    turning = np.abs(np.imag(found.eigenvalues)).max()
    assert turning > 1e-3
    np.testing.assert_allclose(found.omega, turning / (2.5 * 0.4), rtol=1e-12)
