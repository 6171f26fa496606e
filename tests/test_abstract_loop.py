"""The interface of loops: one written here, with momentum and a state of its own, goes wherever an `MRS` goes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import ipodyn


class HeavyBall(ipodyn.AbstractLoop):
    """z' = z + v', v' = m v + (F(z) - z): MRS-IPO with a heavy ball; the state is logits and velocity."""

    P: Float[Array, "K K"]
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    lam: Float[Array, ""]
    mass: Float[Array, ""]
    pi_0: Float[Array, " K"]

    def start(self, policy):
        return jnp.log(policy), jnp.zeros_like(policy)

    def step(self, state):
        z, v = state
        scores = self.P @ (self.lam * jax.nn.softmax(z) + (1 - self.lam) * self.pi_0)
        v = self.mass * v + (self.alpha - 1) * z + self.beta * scores  # pi_ref is uniform
        z, v = z + v, v - v.mean()
        return z - z.max(), v

    def logits(self, state):
        return state[0]


def heavy(P, *, alpha=0.5, beta=2.0, lam=0.8, mass=0.3, pi_0=None):
    P = jnp.asarray(P)
    uniform = jnp.full(P.shape[:1], 1 / P.shape[0], P.dtype)
    alpha, beta, lam, mass = (jnp.asarray(x, P.dtype) for x in (alpha, beta, lam, mass))
    return HeavyBall(P, alpha, beta, lam, mass, uniform if pi_0 is None else jnp.asarray(pi_0, P.dtype))


def numpy_orbit(P, alpha, beta, lam, mass, pi_0, policy0, num_steps):
    """The same loop as a plain loop in NumPy."""
    z, v, policies = np.log(policy0), np.zeros(len(P)), []
    policy = policy0
    for _ in range(num_steps):
        v = mass * v + (alpha - 1) * z + beta * P @ (lam * policy + (1 - lam) * pi_0)
        z = z + v
        z -= z.max()
        v -= v.mean()
        policy = np.exp(z) / np.exp(z).sum()
        policies.append(policy)
    return np.array(policies)


P = np.asarray(ipodyn.problems.three_cycle(0.4))
START = np.array([0.5, 0.3, 0.2])


def test_rollout_is_the_plain_loop():
    orbit = ipodyn.rollout(heavy(P, pi_0=[0.2, 0.5, 0.3]), START, num_steps=150, save=lambda policy: policy)
    expected = numpy_orbit(P, 0.5, 2.0, 0.8, 0.3, np.array([0.2, 0.5, 0.3]), START, 150)
    np.testing.assert_allclose(orbit.saved, expected, atol=1e-12)
    np.testing.assert_allclose(orbit.mean, expected.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(orbit.variance, expected.var(axis=0).sum(), atol=1e-12)


def test_spectrum_covers_the_whole_state():
    """At the centre of a balanced matrix: mu^2 - (1 + m + c) mu + m = 0 with c = alpha - 1 + i beta lam omega."""
    for mass in (0.0, 0.3, 0.9):
        found = ipodyn.stability(heavy(P, mass=mass), jnp.full(3, 1 / 3))
        assert not hasattr(found, "omega")  # it is defined for `MRS` alone
        expected = []
        for w in np.linalg.eigvals((P - 0.5) / 3):  # S = I / 3 on the tangent space
            if abs(w) > 1e-9:
                c = 0.5 - 1 + 2.0 * 0.8 * w
                expected += list(np.roots([1, -(1 + mass + c), mass]))
        assert found.eigenvalues.shape == (4,)
        order = lambda x: np.sort_complex(np.round(np.asarray(x), 10))  # noqa: E731
        np.testing.assert_allclose(order(found.eigenvalues), order(expected), atol=1e-9)
        assert found.radius == pytest.approx(np.abs(expected).max(), abs=1e-12)


def test_rates_of_rollouts_are_the_radius():
    loop = heavy(P, mass=0.5)
    radius = float(ipodyn.stability(loop, jnp.full(3, 1 / 3)).radius)
    orbit = ipodyn.rollout(loop, START, num_steps=60, save=lambda policy: jnp.linalg.norm(policy - 1 / 3))
    # Two complex pairs beat against each other: the slope of a fit over many turns is the slower one's.
    slope = np.polyfit(np.arange(20, 60), np.log(orbit.saved[20:]), 1)[0]
    assert slope == pytest.approx(np.log(radius), abs=0.02)


def test_momentum_makes_a_stable_loop_turn():
    """Regimes on both sides of the stability that the spectrum says."""
    for mass in (0.0, 0.95):
        loop = heavy(P, alpha=0.8, beta=2.0, lam=1.0, mass=mass)
        stable = bool(ipodyn.stability(loop, jnp.full(3, 1 / 3)).stable)
        regime = ipodyn.Regime(int(ipodyn.classify(ipodyn.rollout(loop, START, num_steps=3000))))
        assert stable == (mass == 0.0)
        assert regime.name == ("converges" if stable else "oscillates")


@pytest.mark.parametrize("own_start", [False, True])
def test_sweep_is_rollouts_one_by_one(own_start, rng):
    masses = np.linspace(0, 0.9, 7)
    starts = rng.dirichlet(np.ones(3), 7) if own_start else START
    loops = jax.vmap(lambda mass: heavy(P, mass=mass))(jnp.asarray(masses))
    orbits = ipodyn.sweep(loops, starts, num_steps=300, size=4)
    for i, mass in enumerate(masses):
        single = ipodyn.rollout(heavy(P, mass=mass), starts[i] if own_start else starts, num_steps=300)
        for name in ("final", "mean", "variance", "window_variance", "entropy"):
            np.testing.assert_allclose(getattr(orbits, name)[i], getattr(single, name), atol=1e-9, err_msg=name)
    assert jax.vmap(ipodyn.classify)(orbits).shape == (7,)


def test_jit_vmap_grad():
    def final(mass):
        return ipodyn.rollout(heavy(P, mass=mass), START, num_steps=5).final[0]

    masses = jnp.array([0.1, 0.4])
    np.testing.assert_allclose(jax.vmap(jax.jit(final))(masses), [final(m) for m in masses], atol=1e-14)
    numeric = (final(0.4 + 1e-5) - final(0.4 - 1e-5)) / 2e-5
    assert jax.grad(final)(0.4) == pytest.approx(float(numeric), abs=1e-8)  # differences of 1e-5: error of order 1e-10

    def radius(beta):
        return ipodyn.stability(heavy(P, beta=beta), jnp.full(3, 1 / 3)).radius

    numeric = (radius(2.0 + 1e-5) - radius(2.0 - 1e-5)) / 2e-5
    assert jax.grad(radius)(2.0) == pytest.approx(float(numeric), abs=1e-8)


class Cooling(ipodyn.AbstractLoop):
    """Moves towards uniform for 200 rounds, then to the first response: the state holds the number of the round."""

    pi_0: Float[Array, " K"]

    def start(self, policy):
        return jnp.log(policy), jnp.asarray(0)

    def step(self, state):
        z, count = state
        aim = jnp.where(count < 200, jnp.zeros_like(z), jnp.array([2.0, 0.0, 0.0]))
        return 0.5 * z + 0.5 * aim, count + 1

    def logits(self, state):
        return state[0]


def test_a_loop_that_counts_rounds_is_never_left_early():
    single = ipodyn.rollout(Cooling(jnp.asarray(START)), num_steps=400)
    loops = jax.vmap(Cooling)(jnp.asarray([START, START[::-1]]))
    np.testing.assert_allclose(ipodyn.sweep(loops, num_steps=400).final, [single.final] * 2, atol=1e-12)
    assert single.final[0] == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-9)
    # The counter is no direction in which a state can deviate.
    assert ipodyn.stability(Cooling(jnp.asarray(START)), jnp.full(3, 1 / 3)).eigenvalues.shape == (2,)


def test_what_does_not_fit_is_said():
    loops = jax.vmap(lambda mass: heavy(P, mass=mass))(jnp.linspace(0, 0.9, 7))
    with pytest.raises(ValueError, match=r"`policy0` has shape \(4,\); give \(7, 3\)"):
        ipodyn.sweep(loops, [0.25] * 4, num_steps=10)
    with pytest.raises(ValueError, match=r"by `jax\.vmap`"):
        ipodyn.sweep(heavy(P), num_steps=10)
    with pytest.raises(ValueError, match=r"a field of HeavyBall has shape \(\)"):
        ipodyn.sweep(eqx.tree_at(lambda loop: loop.mass, loops, jnp.asarray(0.5)), num_steps=10)
    with pytest.raises(ValueError, match=r"`policy0` has shape \(2,\)"):
        ipodyn.rollout(heavy(P), [0.5, 0.5], num_steps=10)
