"""Rollouts against plain NumPy loops: trajectories, statistics, derivatives, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from preferences import random_P
from scipy.special import expit, logsumexp

import ipodyn
from ipodyn import DPO, MRS


def numpy_rounds(score, log_policy, alpha, beta, lam, pi_ref, pi_0, num_steps):
    """The definition, in log-probabilities; leading axes are instances. The trajectory has rounds 1..num_steps."""
    trajectory = []
    for _ in range(num_steps):
        mu = lam[:, None] * np.exp(log_policy) + (1 - lam)[:, None] * pi_0
        z = alpha[:, None] * log_policy + (1 - alpha)[:, None] * np.log(pi_ref) + beta[:, None] * score(mu)
        log_policy = z - logsumexp(z, axis=1, keepdims=True)
        trajectory.append(np.exp(log_policy))
    return np.stack(trajectory, axis=1)


@jax.jit
@jax.vmap
def finals(P, alpha, beta, lam, pi_ref, pi_0, start):
    found = ipodyn.rollout(MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0), start, num_steps=3000)
    return found.final, found.mean, found.variance


def test_three_thousand_rounds_of_ipo_are_numpys(rng):
    """alpha in {0, 1/2, 0.95, 1} by lam in {0, 1/2, 1}, four instances each: fixed points, drifts and limit cycles."""
    alpha, lam, kind = (x.ravel() for x in np.meshgrid([0, 0.5, 0.95, 1.0], [0, 0.5, 1.0], np.arange(4), indexing="ij"))
    M, K = alpha.size, 4
    P = random_P(rng, M, K)
    beta = rng.uniform(0.1, 1.5, M)
    # Two of four in a strict order, which for alpha = 1 gives a definite limit; on-policy at alpha = 1 all of them,
    # for cycles amplify rounding near the vertices.
    rewards = rng.normal(size=(M, K))
    ordered = (kind < 2) | ((alpha == 1) & (lam > 0))
    P[ordered] = expit(rewards[:, :, None] - rewards[:, None, :])[ordered]
    # One limit cycle in three of the cells below 1: a three-cycle with a fourth response that is a copy.
    cycle = 0.5 + 0.4 * np.array([[0, 1, -1, 0], [-1, 0, 1, -1], [1, -1, 0, 1], [0, 1, -1, 0]])
    turning = (kind == 3) & (alpha > 0.4) & (alpha < 1) & (lam > 0)
    P[turning] = cycle
    beta[turning] = 5
    pi_ref, pi_0, start = 0.9 * rng.dirichlet(np.ones(K), (3, M)) + 0.1 / K
    expected = numpy_rounds(
        lambda mu: np.einsum("mij,mj->mi", P, mu), np.log(start), alpha, beta, lam, pi_ref, pi_0, 3000
    )
    assert np.ptp(expected[turning, -100:], axis=1).max() > 0.1  # it does turn
    final, mean, variance = finals(P, alpha, beta, lam, pi_ref, pi_0, start)
    # 3,000 rounds of rounding, at most added up along a cycle
    np.testing.assert_allclose(final, expected[:, -1], atol=1e-10)
    np.testing.assert_allclose(mean, expected.mean(axis=1), atol=1e-10)
    np.testing.assert_allclose(variance, expected.var(axis=1).sum(axis=1), atol=1e-10)


def scipy_scores(P):
    def one(P, mu):
        def misfit(r):
            r = np.append(r, 0.0)
            return ((P - expit(r[:, None] - r[None, :])) @ mu)[:-1]

        return np.append(scipy.optimize.root(misfit, np.zeros(len(mu) - 1), tol=1e-15).x, 0.0)

    return lambda mu: np.stack([one(*x) for x in zip(P, mu, strict=True)])


def test_rounds_of_dpo_are_numpys_with_a_scipy_solver(rng):
    M, K, num_steps = 6, 3, 60
    P = random_P(rng, M, K, edge=0.1)
    alpha, lam = np.array([0, 0.5, 0.95, 1, 0.5, 0.9]), np.array([1, 0.5, 0, 0.5, 1, 1.0])
    beta = rng.uniform(0.2, 1, M)
    pi_ref, pi_0, start = 0.9 * rng.dirichlet(np.ones(K), (3, M)) + 0.1 / K
    expected = numpy_rounds(scipy_scores(P), np.log(start), alpha, beta, lam, pi_ref, pi_0, num_steps)

    @jax.jit
    @jax.vmap
    def ours(P, alpha, beta, lam, ref, start0, start):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=ref, pi_0=start0, objective=DPO())
        return ipodyn.rollout(loop, start, num_steps=num_steps, save=lambda p: p).saved

    saved = ours(P, alpha, beta, lam, pi_ref, pi_0, start)
    np.testing.assert_allclose(saved, expected, atol=1e-9)  # MINPACK stops at 1e-12 or so in each round


def turning(dtype=np.float64):
    P = np.asarray(ipodyn.problems.three_cycle(0.4)).astype(dtype)
    return MRS(P, alpha=0.8, beta=4.0, lam=0.9)


@pytest.mark.parametrize(
    ("num_steps", "window", "counted"),
    [
        (1, None, 1),
        (50, None, 5),
        (203, 20, 20),  # not divisible: the odd rounds come first
        (1003, 130, 129),  # three chunks of 43
        (128, 128, 128),  # nothing before the window
    ],
)
def test_statistics_are_those_of_the_trajectory(num_steps, window, counted):
    found = ipodyn.rollout(turning(), [0.5, 0.3, 0.2], num_steps=num_steps, window=window, save=lambda p: p)
    path = np.asarray(found.saved)
    assert path.shape == (num_steps, 3)
    late, before = path[num_steps - counted :], path[max(0, num_steps - 2 * counted) : num_steps - counted]
    np.testing.assert_array_equal(found.final, path[-1])

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)

    close(found.mean, path.mean(axis=0))
    close(found.variance, path.var(axis=0).sum())
    close(found.window_variance, late.var(axis=0).sum())
    close(found.entropy, -np.sum(path[-1] * np.log(path[-1])))
    if len(before):
        close(found.previous_variance, before.var(axis=0).sum())
        shift = np.sum((late.mean(axis=0) - before.mean(axis=0)) ** 2)
        np.testing.assert_allclose(found.window_shift, shift, rtol=1e-10, atol=1e-15)
    else:
        assert float(found.window_shift) == np.inf and float(found.previous_variance) == 0
    following = np.asarray(turning()(path[-1]))
    np.testing.assert_allclose(found.residual, np.abs(following - path[-1]).max(), rtol=1e-10)
    gains = np.log(following / path[-1])
    np.testing.assert_allclose(found.rise, gains.max() - gains[path[-1].argmax()], rtol=1e-10)


def test_start_defaults_to_the_sampler_and_save_sees_the_new_policy():
    pi_0 = jnp.array([0.6, 0.3, 0.1])
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=0.8, pi_0=pi_0)
    found = ipodyn.rollout(loop, num_steps=3, save=lambda p: {"policy": p, "entropy": ipodyn.entropy(p)})
    policy = pi_0
    for n in range(3):
        policy = loop(policy)
        np.testing.assert_allclose(found.saved["policy"][n], policy, rtol=1e-14)
        np.testing.assert_allclose(found.saved["entropy"][n], ipodyn.entropy(policy), rtol=1e-14)
    assert ipodyn.rollout(loop, num_steps=3).saved is None


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"num_steps": 0}, "`num_steps` is 0"),
        ({"num_steps": -3}, "`num_steps` is -3"),
        ({"num_steps": 10, "window": 11}, "`window` is 11"),
        ({"num_steps": 10, "window": 0}, "`window` is 0"),
    ],
)
def test_counts_of_rounds_are_checked(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        ipodyn.rollout(turning(), **options)


def test_jit_is_eager_vmap_is_a_loop_and_float32_stays(rng):
    """Every field of an orbit. The same program up to vectorised exponentials: a few roundings, on a stable orbit."""
    starts = rng.dirichlet(np.ones(3), 3).astype(np.float32)
    betas = np.array([0.5, 1.0, 2.0], np.float32)
    P = np.asarray(ipodyn.problems.three_cycle(0.3)).astype(np.float32)

    def run(start, beta):
        return ipodyn.rollout(MRS(P, alpha=0.5, beta=beta, lam=0.8), start, num_steps=200, save=ipodyn.entropy)

    single = [run(*x) for x in zip(starts, betas, strict=True)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *[jax.tree.leaves(x) for x in single])
    many = jax.jit(jax.vmap(run))(starts, betas)
    for a, b in zip(jax.tree.leaves(many), stacked, strict=True):
        np.testing.assert_allclose(a, b, atol=200 * float(jnp.finfo(jnp.float32).eps))
        assert a.dtype == b.dtype
    floats = [x for x in jax.tree.leaves((many, single)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {np.dtype("float32")}


def test_new_parameters_do_not_compile_anew():
    traces = []

    def save(policy):
        traces.append(None)
        return policy[0]

    ipodyn.rollout(turning(), num_steps=64, save=save)
    first = len(traces)
    P = ipodyn.problems.three_cycle(0.1)
    for alpha, beta, lam in ((0, 1, 0.1), (0.5, 2.0, 1), (1, 0.5, 0)):
        ipodyn.rollout(
            MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=np.array([0.2, 0.3, 0.5])), num_steps=64, save=save
        )
    assert 0 < first == len(traces)


@pytest.mark.slow
def test_gradient_through_the_rounds_is_a_central_difference(rng):
    """Fifty rounds of a turning loop, every field of it at once: reverse, forward and differences."""
    P = np.asarray(ipodyn.problems.three_cycle(0.4))
    at = (P, 0.8, 4.0, 0.9, np.array([0.3, 0.3, 0.4]), np.array([0.2, 0.5, 0.3]), np.array([0.5, 0.3, 0.2]))
    at = tuple(jnp.asarray(x) for x in at)
    skew = rng.normal(size=(3, 3))
    tangents = [skew - skew.T, *rng.normal(size=3), *(x - x.mean() for x in rng.normal(size=(3, 3)))]
    along = tuple(0.1 * jnp.asarray(x) for x in tangents)

    def total(P, alpha, beta, lam, ref, sampler, start):
        loop = MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=ref, pi_0=sampler)
        found = ipodyn.rollout(loop, start, num_steps=50)
        return found.final[0] + found.variance + found.window_variance + found.entropy

    value = jax.jit(total)
    step = 1e-6
    plus, minus = (value(*(x + s * step * d for x, d in zip(at, along, strict=True))) for s in (1, -1))
    forward = jax.jit(lambda at, along: jax.jvp(total, at, along)[1])(at, along)
    reverse = jax.jit(jax.grad(total, argnums=tuple(range(7))))(*at)
    pulled = sum(np.sum(g * d) for g, d in zip(reverse, along, strict=True))
    np.testing.assert_allclose(forward, (plus - minus) / (2 * step), rtol=1e-6)  # third derivatives of 50 rounds
    np.testing.assert_allclose(pulled, forward, rtol=1e-10)


def test_memory_does_not_grow_with_the_rounds():
    """What the compiled program sets aside, for a hundred times the rounds; a trajectory would take 2.4 MB."""
    loop = turning()

    def temporary(num_steps):
        def run(beta, start):
            one = MRS(loop.P, alpha=loop.alpha, beta=beta, lam=loop.lam)
            found = ipodyn.rollout(one, start, num_steps=num_steps)
            return found.final, found.variance, found.window_variance

        compiled = jax.jit(run).lower(jnp.array(2.0), jnp.full(3, 1 / 3)).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    few, many = temporary(1000), temporary(100_000)
    assert many <= few + 4096  # one flag a chunk
