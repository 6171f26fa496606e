"""Invariants of the mathematics on drawn instances: each holds for every loop, whatever its numbers.

Examples are drawn by hypothesis from a seed, the same in every run; shapes are fixed, so that each program is compiled
once. Tolerances are in roundings of the dtype times the size of what enters a logit.
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import loop_of, random_loops

import ipodyn
import ipodyn._maps.store
from ipodyn import DPO, IPO
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem

K = 4
EPS = 2.0**-52
draws = settings(derandomize=True, max_examples=8, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
OBJECTIVES = {"IPO": IPO(), "DPO": DPO()}


def one_loop(rng, **options):
    """Fields of one loop (P, alpha, beta, lam, pi_ref, pi_0), and a policy; no entry of P within 0.02 of 0 or 1."""
    return [x[0] for x in random_loops(rng, 1, K, edge=0.02, **options)], rng.dirichlet(np.ones(K))


def renamed(fields, order):
    P, alpha, beta, lam, pi_ref, pi_0 = fields
    return [P[np.ix_(order, order)], alpha, beta, lam, pi_ref[order], pi_0[order]]


def size(fields):
    """Of the numbers that a round adds up: a logit is off by some roundings of this."""
    _, alpha, beta, _, pi_ref, _ = fields
    return 1 + beta / (1 - alpha) + np.abs(np.log(pi_ref)).max()


@jax.jit
def FIXED(fields):
    """What is known of the fixed point of an IPO loop."""
    loop = loop_of(*fields)
    found = ipodyn.fixed_point(loop, throw=False)
    there = ipodyn.stability(loop, found.policy)
    good = found.result == ipodyn.RESULTS.successful
    return {"policy": found.policy, "radius": there.radius, "omega": there.omega, "good": good}


@jax.jit
def ROUNDS(fields, policy):
    return [loop_of(*fields, objective=objective)(policy) for objective in OBJECTIVES.values()]


@jax.jit
def STRUCTURE(P):
    sampler = ipodyn.design_sampler(P, "smith", smoothing=1e-2, throw=False)
    members = {
        "smith": ipodyn.smith_set(P),
        "borda": ipodyn.borda_scores(P),
        "mu": sampler.mu,
        "winner": jnp.arange(K) == ipodyn.condorcet_winner(P),
    }
    return members, {"cycle": ipodyn.has_cycle(P), "strong": ipodyn.strong_order(P).holds, "margin": sampler.margin}


@jax.jit
def LOSSES(logits, P, mu, pi_ref, beta):
    return [jax.value_and_grad(each.loss)(logits, P, mu, pi_ref, beta=beta) for each in OBJECTIVES.values()]


@jax.jit
def OPTIMA(P, mu, pi_ref, beta):
    return [objective.optimum(P, mu, pi_ref, beta=beta) for objective in OBJECTIVES.values()]


@draws
@given(rng=seeds, constant=st.floats(-30, 30))
def test_gauge(rng, constant):
    """A policy knows its logits up to a constant only: loss and gradient cannot see it, and the gradient sums to 0."""
    (P, _, beta, _, pi_ref, _), mu = one_loop(rng)
    logits = rng.normal(size=K)
    here, there = LOSSES(logits, P, mu, pi_ref, beta), LOSSES(logits + constant, P, mu, pi_ref, beta)
    for (loss, gradient), (moved, moved_gradient) in zip(here, there, strict=True):
        # Up to 30 added to a logit: some 30 roundings in it, squared and over beta > 0.1 in the losses.
        scale = 100 * EPS * (30 + beta) * (1 + beta + 1 / beta) * (1 + np.abs(np.log(pi_ref)).max())
        assert abs(loss - moved) <= scale
        np.testing.assert_allclose(gradient, moved_gradient, rtol=0, atol=scale)
        assert abs(gradient.sum()) <= scale


@draws
@given(rng=seeds, order=st.permutations(range(K)))
def test_names_of_responses_do_not_matter(rng, order):
    """Renaming the responses renames every answer: nothing knows the places of a matrix."""
    fields, policy = one_loop(rng)
    order, again = np.array(order), renamed(fields, np.array(order))
    tolerance = 1e3 * EPS * size(fields)
    for before, after in zip(ROUNDS(fields, policy), ROUNDS(again, policy[order]), strict=True):
        np.testing.assert_allclose(before[order], after, atol=tolerance)
    before, after = FIXED(fields), FIXED(again)
    assert before["good"] and after["good"]
    np.testing.assert_allclose(before["policy"][order], after["policy"], atol=tolerance)
    np.testing.assert_allclose(before["omega"], after["omega"], atol=tolerance)
    np.testing.assert_allclose(before["radius"], after["radius"], atol=tolerance * fields[2])
    (members, facts), (new_members, new_facts) = STRUCTURE(fields[0]), STRUCTURE(again[0])
    for name in members:  # the sampler is a point of the central path, solved to roundings over its smoothing
        np.testing.assert_allclose(members[name][order], new_members[name], atol=1e-9)
    for name in facts:
        np.testing.assert_allclose(facts[name], new_facts[name], atol=1e-9)


@draws
@given(rng=seeds)
def test_who_wins_is_a_convention(rng):
    """To read P the other way round reverses scores, so that optima from a uniform reference are reciprocals."""
    (P, _, beta, _, _, _), mu = one_loop(rng, beta=(0.1, 5.0))
    uniform = np.full(K, 1 / K)
    for one, other in zip(OPTIMA(P, mu, uniform, beta), OPTIMA(P.T, mu, uniform, beta), strict=True):
        product = np.log(one) + np.log(other)
        # Newton's fit of DPO leaves a score off by its last step, some 1e-9 at worst.
        np.testing.assert_allclose(product, np.broadcast_to(product.mean(), K), atol=1e-8 * (1 + beta))
        assert np.ptp(np.log(one)) > 1e-3


@draws
@given(rng=seeds, alpha=st.floats(0.0, 0.95))
def test_the_fixed_point_knows_a_ray_only(rng, alpha):
    """It depends on (alpha, beta) through beta / (1 - alpha), and omega with it: the radius follows by its formula."""
    fields, _ = one_loop(rng, alpha=0.8)
    P, first, beta, lam, pi_ref, pi_0 = fields
    kappa = beta / (1 - first)
    moved = [P, np.float64(alpha), kappa * (1 - alpha), lam, pi_ref, pi_0]
    here, there = FIXED(fields), FIXED(moved)
    assert here["good"] and there["good"]
    tolerance = 1e3 * EPS * (1 + kappa + size(fields))
    np.testing.assert_allclose(here["policy"], there["policy"], atol=tolerance)
    expected = np.hypot(alpha, kappa * (1 - alpha) * lam * np.asarray(here["omega"]))
    np.testing.assert_allclose(there["radius"], expected, rtol=1e-9, atol=tolerance * (1 + kappa))


@draws
@given(rng=seeds)
def test_a_batch_is_its_members(rng):
    """What vmap and sweep compute together is what each loop gives by itself."""
    batch = random_loops(rng, 3, K, edge=0.02, alpha=0.7, beta=(0.1, 2.0))
    loops = jax.vmap(loop_of)(*batch)
    together, swept = jax.jit(jax.vmap(FIXED))(batch), ipodyn.sweep(loops, policy0=loops.pi_0, num_steps=40)
    for m in range(3):
        fields = [x[m] for x in batch]
        alone, orbit = FIXED(fields), ipodyn.rollout(loop_of(*fields), num_steps=40)
        assert alone["good"] and together["good"][m]
        for name in alone:
            np.testing.assert_allclose(together[name][m], alone[name], atol=1e3 * EPS * size(fields))
        # Forty rounds, each of which may stretch the roundings of the last by its expansion, at most 1.7 here.
        for name in ("final", "mean"):
            np.testing.assert_allclose(getattr(swept, name)[m], getattr(orbit, name), atol=1e-9)


@settings(draws, max_examples=3)
@given(rng=seeds, stops=st.lists(st.integers(1, 2), min_size=1, max_size=2))
def test_resumed_is_whole(rng, stops):
    """A region depends on the problem alone: however often a run stops, its store holds what one call computes."""
    pytest.importorskip("zarr")
    P = random_loops(rng, 6, 3, edge=0.02)[0]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(ipodyn._maps.store, "POINTS_PER_PIECE", 8)
        problem = MapProblem.of(Grid.of(P, alpha=[0.1, 0.9], beta=[0.5, 4.0], lam=0.8), Request(num_steps=40))
        for stop in [*stops, None]:  # each time as a new process would: from the folder alone
            store = ipodyn._maps.store.Store.open(pathlib.Path(folder) / "run", problem)
            for region in rng.permutation(store.pending())[:stop]:
                store.write(region, problem.compute)
        assert len(store.regions) == 3 and not store.pending()
        found, whole = store.load(), ipodyn._maps.store.as_dataset(problem, problem.compute())
        for name in whole.variables:
            np.testing.assert_array_equal(found[name].values, whole[name].values)


@draws
@given(rng=seeds)
def test_single_precision_is_a_rounding_away(rng):
    """float32 differs by roundings of the logits, which the fixed point's own condition number 1 / (1 - alpha) scales.

    A probability moves by at most half of what its logits do; on the quotient |(I - J)^-1| <= 1 / (1 - alpha) in the
    metric of S, as the eigenvalues of J have real part alpha. 64 roundings: K products, logarithms, Newton's last step.
    """
    fields, policy = one_loop(rng, alpha=0.8, beta=(0.1, 10.0))
    single = [np.float32(x) for x in fields]
    exact = [np.float64(x) for x in single]  # the same numbers, so that only arithmetic differs
    small, large = FIXED(single), FIXED(exact)
    assert small["policy"].dtype == np.float32 and large["policy"].dtype == np.float64
    assert small["good"] and large["good"]
    bound = 64 * 2.0**-23 * size(exact)
    np.testing.assert_allclose(small["policy"], large["policy"], rtol=0, atol=bound)
    policy = policy.astype(np.float32)
    for one, other in zip(ROUNDS(single, policy), ROUNDS(exact, policy.astype(np.float64)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound)
