"""Sweeps give what rollouts of single loops give, whatever the blocks, pieces and devices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
import ipodyn._maps.sweep

FIELDS = ("final", "mean", "variance", "window_variance", "previous_variance", "window_shift", "entropy", "residual")


def draw(rng, N, K, dtype=np.float64, alphas=(0.2, 0.9, 0.97)):
    """A batch in which every field differs from loop to loop, and starts."""
    P = complementary(rng.uniform(0.05, 0.95, (N, K, K)))
    numbers = {"alpha": rng.choice(alphas, N), "beta": 10 ** rng.uniform(-0.5, 1.2, N), "lam": rng.uniform(0, 1, N)}
    policies = {name: rng.dirichlet(np.full(K, 3.0), N) for name in ("pi_ref", "pi_0")}
    arrays = {name: jnp.asarray(x, dtype) for name, x in {"P": P, **numbers, **policies}.items()}
    return arrays, jnp.asarray(rng.dirichlet(np.full(K, 3.0), N), dtype)


def batch(arrays, objective=None):
    return jax.vmap(lambda P, rest: ipodyn.MRS(P, **rest, objective=objective))(
        arrays["P"], {name: x for name, x in arrays.items() if name != "P"}
    )


def one_by_one(loops, starts, num_steps, window=None):
    def roll(loop, start):
        return ipodyn.rollout(loop, start, num_steps=num_steps, window=window, throw=False)

    return jax.jit(jax.vmap(roll))(loops, starts)


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("objective", [ipodyn.IPO(), ipodyn.DPO()], ids=["ipo", "dpo"])
def test_agrees_with_rollouts(rng, objective):
    """To 1e-12: one chunk of 40 rounds, so that nothing is left early; failures of single loops are data."""
    arrays, starts = draw(rng, 70, 3)
    arrays["P"] = arrays["P"].at[4].set(jnp.array([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]]))  # no finite scores
    loops = batch(arrays, objective)
    found = ipodyn.sweep(loops, starts, num_steps=40, window=40)
    expected = one_by_one(loops, starts, 40, window=40)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12, err_msg=name)
    assert found.final.shape == (70, 3) and found.saved is None
    failed = np.zeros(70, bool)
    failed[4] = isinstance(objective, ipodyn.DPO)
    np.testing.assert_array_equal(np.isnan(found.final).any(axis=1), failed)
    np.testing.assert_array_equal(found.result == ipodyn.RESULTS.diverging_scores, failed)
    np.testing.assert_array_equal(found.result == ipodyn.RESULTS.successful, ~failed)
    with pytest.raises(ValueError, match="vmap"):  # it would take the number of loops for the number of responses
        ipodyn.classify(found)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 2e-5)])
def test_agrees_after_early_leaving(rng, dtype, tolerance):
    """What is left out moves less than 1e-9 a chunk (float32: two roundings); regimes are the same."""
    arrays, starts = draw(rng, 70, 3, dtype)
    loops = batch(arrays)
    found, expected = ipodyn.sweep(loops, starts, num_steps=1500), one_by_one(loops, starts, 1500)
    regimes = np.asarray(jax.vmap(ipodyn.classify)(found))
    np.testing.assert_array_equal(regimes, jax.vmap(ipodyn.classify)(expected))
    assert {ipodyn.Regime.converges, ipodyn.Regime.oscillates} <= set(regimes)
    for name in ("variance", "mean", "entropy"):
        assert getattr(found, name).dtype == dtype
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name)


def test_two_responses_by_hand():
    """K = 2, lam = 0: logit differences obey d' = alpha d + beta (P01 - 1/2), whose solution is known."""
    alphas = np.array([0.0, 0.5, 0.9])
    P = jnp.array([[0.5, 0.8], [0.2, 0.5]])
    loops = jax.vmap(lambda alpha: ipodyn.MRS(P, alpha=alpha, beta=2.0, lam=0.0))(jnp.asarray(alphas))
    found = ipodyn.sweep(loops, [0.5, 0.5], num_steps=6)
    difference = 2.0 * 0.3 * (1 - alphas**6) / (1 - alphas)
    np.testing.assert_allclose(found.final[:, 0], 1 / (1 + np.exp(-difference)), rtol=1e-13)


@pytest.mark.slow
def test_neither_blocks_nor_pieces_nor_devices_matter(rng, monkeypatch):
    arrays, starts = draw(rng, 70, 3)
    loops = batch(arrays)
    expected = ipodyn.sweep(loops, starts, num_steps=200, size=32)
    assert_same(ipodyn.sweep(loops, starts, num_steps=200, size=16, devices=jax.local_devices()[:1]), expected)
    seen = []
    monkeypatch.setattr(
        ipodyn._maps.sweep, "PIECE_BYTES", 30 * 8 * (9 + 3 + 9)
    )  # 30 loops: two whole pieces and a rest
    in_pieces = ipodyn.sweep(loops, starts, num_steps=200, size=32, progress=lambda done, total: seen.append(done))
    assert_same(in_pieces, expected)
    assert seen == [30, 60, 70]


def test_fields_without_the_axis_are_shared(rng):
    """To 1e-12, since a shared matrix may be multiplied in another order."""
    arrays, _ = draw(rng, 70, 3)

    def of(lam):
        return ipodyn.MRS(arrays["P"][0], alpha=0.5, beta=arrays["beta"][0], lam=lam, pi_0=arrays["pi_0"][0])

    shared = eqx.tree_at(lambda loop: loop.lam, of(0.5), arrays["lam"])
    every = jax.vmap(of)(arrays["lam"])
    assert shared.P.shape == (3, 3) and every.P.shape == (70, 3, 3)
    found = ipodyn.sweep(shared, num_steps=50)
    start = ipodyn.generic_start(arrays["pi_0"][0])
    expected = ipodyn.sweep(every, jnp.broadcast_to(start, (70, 3)), num_steps=50)
    np.testing.assert_allclose(found.final, expected.final, atol=1e-12)
    np.testing.assert_allclose(found.variance, expected.variance, atol=1e-12)
    assert_same(ipodyn.sweep(every, num_steps=50), expected)


def test_wrong_inputs(rng):
    arrays, starts = draw(rng, 5, 3)
    loops = batch(arrays)

    def changed(name, value):
        return eqx.tree_at(lambda loops: getattr(loops, name), loops, jnp.asarray(value))

    wrong = {
        "no batch axis": (jax.tree.map(lambda x: x[0], loops), None),
        r"`policy0` has shape \(4, 3\); give \(5, 3\)": (loops, starts[:4]),
        r"`beta` has shape \(4,\)": (changed("beta", np.ones(4)), None),
        "`beta` entry 2 is -1.0": (changed("beta", arrays["beta"].at[2].set(-1)), None),
        "`alpha` entry 4 is 1.5": (changed("alpha", arrays["alpha"].at[4].set(1.5)), None),
        r"`P` matrix 3, entry \(0, 1\)": (changed("P", arrays["P"].at[3, 0, 1].add(0.01)), None),
        r"`pi_ref\[1\]` sums to": (changed("pi_ref", arrays["pi_ref"].at[1].multiply(2)), None),
        r"`policy0\[2\]` entry 0": (loops, starts.at[2].set(jnp.array([-0.5, 1, 0.5]))),
        "holds no loop": (jax.tree.map(lambda x: x[:0], loops), None),
    }
    for message, (bad, policy0) in wrong.items():
        with pytest.raises(ValueError, match=message):
            ipodyn.sweep(bad, policy0, num_steps=5)


@pytest.mark.parametrize("max_steps", [60, 1])
def test_rounds_of_several_steps_are_those_of_rollouts(rng, max_steps):
    """Trajectories of a block that take different numbers of Newton steps a round, near-certain preferences among them.

    Rollouts solve each round before the next. Contracting loops, so that rounding stays: 1e-10. With one step a round
    no loop has its scores in every round, and both say so.
    """
    P = complementary(rng.uniform(0.1, 0.9, (96, 4, 4)))
    P[::3] = complementary(1 / (1 + np.exp(rng.uniform(-12, 12, (32, 4, 4)))))
    draws = rng.uniform(0.0, 0.5, 96), rng.uniform(0.02, 0.3, 96), rng.uniform(0, 1, 96), rng.dirichlet(np.ones(4), 96)

    def make(P, alpha, beta, lam, start):
        objective = ipodyn.DPO(max_steps=max_steps)
        return ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_0=start, objective=objective)

    loops = jax.vmap(make)(*map(jnp.asarray, (P, *draws)))
    together = ipodyn.sweep(loops, draws[3], num_steps=90)
    alone = jax.vmap(lambda loop: ipodyn.rollout(loop, num_steps=90, throw=False))(loops)
    good = np.asarray(alone.result == ipodyn.RESULTS.successful)
    np.testing.assert_array_equal(together.result == ipodyn.RESULTS.successful, good)
    assert good.all() if max_steps == 60 else not good.any()
    np.testing.assert_allclose(together.final[good], alone.final[good], atol=1e-10, rtol=0)
    np.testing.assert_allclose(together.variance[good], alone.variance[good], atol=1e-10, rtol=0)
