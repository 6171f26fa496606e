"""Leaving a block early changes no figure: against the same rounds computed to the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn._rollouts.rollout import finish
from ipodyn._rollouts.rounds import run, run_until_standing
from ipodyn._rollouts.statistics import Chunking


def both(P, alpha, beta, lam, start, *, num_steps=3000):
    """Statistics of a block of loops (batch axis last), left early and computed to the end."""
    loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=jnp.full_like(start, 1 / len(start)), pi_0=start)
    plan = Chunking.of(num_steps, None)

    @jax.jit
    def compute(loop):
        one_round = loop.round()
        state = one_round.start(loop.pi_0)
        return finish(one_round, run_until_standing(one_round, state, plan)), finish(
            one_round, run(one_round, state, plan)[0]
        )

    return compute(loop)


def block(rng, K, size, dtype, alphas):
    P = complementary(rng.uniform(0.05, 0.95, (size, K, K)))
    draws = (rng.choice(alphas, size), 10 ** rng.uniform(-0.5, 1.2, size), rng.uniform(0, 1, size))
    start = rng.dirichlet(np.full(K, 3.0), size).T
    return [jnp.asarray(x, dtype) for x in (np.moveaxis(P, 0, -1), *draws, start)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 1e-5)])
def test_same_figures(rng, dtype, tolerance):
    """The bound promised for sweeps is 1e-5; in float64 what is left out moves less than 1e-9 a chunk, 50 chunks."""
    early, full = both(*block(rng, 4, 200, dtype, [0.0, 0.3, 0.9, 0.97]))
    regimes = np.asarray(ipodyn.classify(full))
    assert np.bincount(regimes, minlength=4)[ipodyn.Regime.oscillates] > 3  # both kinds are there
    assert np.bincount(regimes, minlength=4)[ipodyn.Regime.converges] > 100
    assert (np.asarray(ipodyn.classify(early)) == regimes).all()
    for name in ("variance", "entropy", "window_variance"):
        np.testing.assert_allclose(getattr(early, name), getattr(full, name), atol=tolerance, rtol=0, err_msg=name)
    np.testing.assert_allclose(early.mean, full.mean, atol=tolerance, rtol=0)


def test_a_short_cycle_is_not_standing_still():
    """At alpha = 0 the three-cycle turns by a quarter a round, so it is where it was after every chunk of 60 rounds."""
    P = ipodyn.problems.three_cycle(0.5)[..., None]
    one = jnp.ones(1)
    early, full = both(P, 0 * one, 8 * one, one, jnp.asarray([[0.4], [0.35], [0.25]]))
    assert float(full.variance[0]) > 0.1
    np.testing.assert_allclose(early.variance, full.variance, rtol=1e-12)


def test_a_response_on_its_way_back_is_waited_for():
    """With alpha = 1 a three-cycle visits the vertices in turn, standing still for ever longer between the visits."""
    P = ipodyn.problems.three_cycle(0.4)[..., None]
    one = jnp.ones(1)
    early, full = both(P, one, one, one, jnp.asarray([[0.4], [0.35], [0.25]]))
    np.testing.assert_allclose(early.variance, full.variance, rtol=1e-9)
    assert int(ipodyn.classify(early)[0]) not in (ipodyn.Regime.converges, ipodyn.Regime.collapses)


@pytest.mark.optimised
@pytest.mark.slow
def test_what_a_trajectory_gets_does_not_depend_on_its_block(rng):
    """Bit for bit: a settled trajectory is frozen whether or not its block goes on."""
    arguments = block(rng, 3, 64, np.float64, [0.2, 0.95])
    together, _ = both(*arguments, num_steps=700)
    for part in (slice(0, 16), slice(16, 64)):
        alone, _ = both(*(x[..., part] for x in arguments), num_steps=700)
        np.testing.assert_array_equal(alone.variance, together.variance[part])
        np.testing.assert_array_equal(alone.final, together.final[:, part])


@pytest.mark.parametrize(("num_steps", "window", "opens", "early"), [(800, 80, range(0, 20, 2), range(0, 11, 2))])
def test_windows_are_counted_from_the_end_and_half_way_is_still_the_first_half(num_steps, window, opens, early):
    """Twenty chunks of forty rounds, two a window: the window that opens after exactly 400 rounds is an early one."""
    cut = Chunking.of(num_steps, window)
    assert (cut.odd, cut.chunk, cut.num_chunks, cut.chunks_per_window) == (0, 40, 20, 2)
    found = [np.flatnonzero(np.asarray(mask)).tolist() for mask in cut.opens()]
    assert found == [list(opens), list(early)]
