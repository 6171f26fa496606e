"""Fixed points: uniqueness, certificates, an independent oracle, derivatives three ways, extremes, failures as data."""

import functools
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import loops
import numpy as np
import pytest
from loops import loop_of
from preferences import complementary, random_P

import ipodyn
from ipodyn import DPO, IPO, MRS, RESULTS
from ipodyn._equilibria.fixed_point import solve_fixed_point

SIZES = (3, 5, 12)
SLOW = pytest.mark.slow
GOLDEN = pathlib.Path(__file__).parent / "golden" / "qre.json"


ROWS = 200
random_loops = functools.partial(loops.random_loops, alpha=0.95, beta=(0.1, 50.0))


@jax.jit
@jax.vmap
def _solve(policy0, *fields):
    return ipodyn.fixed_point(loop_of(*fields), policy0=policy0, throw=False)


def solve(*fields, policy0=None):
    """Fixed points of many loops, always in batches of ROWS: one compilation for each K."""
    M = fields[1].shape[0]
    start = fields[4] if policy0 is None else policy0
    found = _solve(*[jnp.resize(x, (ROWS, *x.shape[1:])) for x in (start, *fields)])
    return jax.tree.map(lambda x: x[:M], found)


def softmax(z):
    weights = np.exp(z - z.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def one_round(pi, P, alpha, beta, lam, pi_ref, pi_0):
    """The definition of MRS-IPO, in NumPy."""
    mu = lam[:, None] * pi + (1 - lam)[:, None] * pi_0
    a, b = alpha[:, None], beta[:, None]
    return softmax(a * np.log(pi) + (1 - a) * np.log(pi_ref) + b * np.einsum("mij,mj->mi", P, mu))


@pytest.mark.parametrize("K", SIZES)
def test_a_round_leaves_it_unchanged_and_it_is_interior(rng, K):
    fields = random_loops(rng, ROWS, K)  # with all sizes, 600 loops
    found = solve(*fields)
    assert bool(jnp.all(found.result == RESULTS.successful))
    policy = np.asarray(found.policy)
    assert policy.min() > 0
    # Rounding of logits of size beta * K reaches 1e-14; one round multiplies it by about beta / 2.
    np.testing.assert_allclose(one_round(policy, *fields), policy, rtol=0, atol=1e-12)
    assert float(found.residual.max()) <= 1e-12
    assert float(found.error.max()) <= 1e-12  # kappa <= 1000 times a dozen roundings or two


@pytest.mark.parametrize("K", SIZES)
def test_twenty_random_starts_find_one_point(rng, K):
    starts = 20
    for _ in range(17):  # of 10 loops each: 510 with all sizes
        fields = [np.repeat(x, starts, axis=0) for x in random_loops(rng, ROWS // starts, K, beta=(0.1, 300.0))]
        found = solve(*fields, policy0=rng.dirichlet(np.full(K, 0.3), ROWS))
        assert bool(jnp.all(found.result == RESULTS.successful))
        points = np.asarray(found.policy).reshape(-1, starts, K)
        np.testing.assert_allclose(points, np.broadcast_to(points[:, :1], points.shape), rtol=0, atol=1e-10)


def test_the_relaxed_flow_ends_there_too(rng):
    """A method that shares nothing with Newton: damped rounds, which converge globally for small enough steps."""
    K, M = 3, 100
    fields = random_loops(rng, M, K, beta=(0.1, 5.0))
    policy = np.full((M, K), 1 / K)
    step = 0.05
    for _ in range(4000):
        policy = softmax((1 - step) * np.log(policy) + step * np.log(one_round(policy, *fields)))
    change = np.abs(one_round(policy, *fields) - policy).max(-1)
    arrived = change < 1e-13
    assert arrived.mean() > 0.8  # the rest, of small 1 - alpha, are still on their way
    np.testing.assert_allclose(solve(*fields).policy[arrived], policy[arrived], rtol=0, atol=1e-9)


def test_quantal_response_equilibria_of_gambit():
    cases = json.loads(GOLDEN.read_text())["cases"]
    for K in sorted({len(case["P"]) for case in cases}):
        rows = [
            (case["P"], e["kappa"], e["policy"]) for case in cases if len(case["P"]) == K for e in case["equilibria"]
        ]
        P, kappa, expected = (np.array(x) for x in zip(*rows, strict=True))
        alpha = np.linspace(0, 0.9, len(rows))
        uniform = np.full((len(rows), K), 1 / K)
        # The equilibrium at precision kappa is the fixed point of every (alpha, beta) with beta / (1 - alpha) = kappa.
        found = solve(P, alpha, kappa * (1 - alpha), np.ones(len(rows)), uniform, uniform)
        np.testing.assert_allclose(found.policy, expected, rtol=0, atol=1e-9)


def test_closed_forms(rng):
    cycle = ipodyn.problems.three_cycle(0.4)
    np.testing.assert_allclose(
        ipodyn.fixed_point(MRS(cycle, alpha=0.9, beta=50.0, lam=1.0)).policy, np.full(3, 1 / 3), rtol=0, atol=1e-15
    )
    # Data that the policy does not touch: one optimum with the signal beta / (1 - alpha).
    P, ref, start = random_P(rng, 1, 3)[0], *rng.dirichlet(np.ones(3), 2)
    loop = MRS(P, alpha=0.75, beta=0.5, lam=0.0, pi_ref=ref, pi_0=start)
    np.testing.assert_allclose(ipodyn.fixed_point(loop).policy, IPO().optimum(P, start, ref, beta=2.0), atol=1e-15)


def test_blocks_and_neighbours_change_nothing(rng):
    fields = random_loops(rng, ROWS, 3, beta=(0.1, 1000.0))
    back = [jnp.moveaxis(x, 0, -1) for x in fields]
    block = jax.jit(lambda start, *fields: solve_fixed_point(loop_of(*fields), start))(back[4], *back)
    single = solve(*fields)
    np.testing.assert_allclose(block.policy.T, single.policy, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(block.num_steps, single.num_steps)
    alone = solve(*[x[7:8] for x in fields])  # repeated to fill the batch
    np.testing.assert_allclose(alone.policy[0], single.policy[7], rtol=0, atol=1e-15)


def test_it_traces_once(rng):
    fields = random_loops(rng, 2, 4)
    solve_once = jax.jit(chex.assert_max_traces(lambda loop: ipodyn.fixed_point(loop, throw=False).policy, n=1))
    for i in range(2):
        solve_once(loop_of(*[x[i] for x in fields]))


@pytest.mark.parametrize(
    ("objective", "K", "M"),
    [
        (IPO(), 4, 450),
        pytest.param(DPO(), 4, 50, marks=pytest.mark.slow),
        pytest.param(IPO(), 12, 100, marks=pytest.mark.slow),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, IPO | DPO) else x,
)
def test_implicit_unrolled_and_numeric_derivatives_agree(rng, objective, K, M):
    P, _, _, lam, pi_ref, pi_0 = random_loops(rng, M, K, edge=0.1)
    alpha, beta = rng.uniform(0, 0.6, M), rng.uniform(0.1, 1.0, M)  # contractions, so that unrolling converges
    fields = (P, alpha, beta, lam, pi_ref, pi_0)
    skew = rng.normal(size=(M, K, K))
    flat = [d - d.mean(-1, keepdims=True) for d in rng.normal(size=(2, M, K))]
    directions = (
        skew - np.swapaxes(skew, 1, 2),
        *rng.normal(size=(3, M)),
        *[d * x for d, x in zip(flat, fields[4:], strict=True)],
    )
    directions = (
        *directions[:4],
        *[d - x * d.sum(-1, keepdims=True) for d, x in zip(directions[4:], fields[4:], strict=True)],
    )

    def settled(*fields):
        return ipodyn.fixed_point(loop_of(*fields, objective=objective), throw=False).policy

    def unrolled(*fields):
        return ipodyn.rollout(loop_of(*fields, objective=objective), num_steps=400, throw=False).final

    def along(f):
        return jax.jit(jax.vmap(lambda fields, directions: jax.jvp(f, fields, directions)[1]))(fields, directions)

    implicit = along(settled)
    np.testing.assert_allclose(implicit.sum(-1), 0, atol=1e-10)
    # Both are exact up to how far the rollout converged: 0.95^400 ~ 1e-9.
    np.testing.assert_allclose(implicit, along(unrolled), rtol=0, atol=1e-8)
    h = 1e-5  # central differences: h^2 from the third derivative, 1e-15 / h from rounding
    forward, backward = ([x + s * h * d for x, d in zip(fields, directions, strict=True)] for s in (1, -1))
    at = jax.jit(jax.vmap(settled))
    np.testing.assert_allclose(implicit, (at(*forward) - at(*backward)) / (2 * h), rtol=1e-8, atol=1e-8)

    # Reverse mode, contracted with the same directions.
    weights = rng.normal(size=(M, K))

    def functional(fields, weights):
        return settled(*fields) @ weights

    gradients = jax.jit(jax.vmap(jax.grad(functional)))(fields, weights)
    total = sum(np.sum(np.reshape(g * d, (M, -1)), -1) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(total, np.sum(weights * implicit, -1), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_second_derivatives(rng):
    P, _, _, _, pi_ref, pi_0 = (x[0] for x in random_loops(rng, 1, 4))

    def first(x):
        return ipodyn.fixed_point(loop_of(P, x[0], x[1], x[2], pi_ref, pi_0), throw=False).policy[0]

    x, h = jnp.array([0.4, 3.0, 0.7]), 1e-5
    gradient = jax.jit(jax.grad(first))
    numeric = np.stack([(gradient(x + h * e) - gradient(x - h * e)) / (2 * h) for e in np.eye(3)])
    # Differences of the gradient: 1e-15 / h from rounding, h^2 from the next derivative.
    np.testing.assert_allclose(jax.jit(jax.hessian(first))(x), numeric, rtol=0, atol=1e-8)


def near_sure(rng, M, K, edge):
    wins = np.triu(rng.uniform(size=(M, K, K)) > 0.5, 1)
    return complementary(np.where(wins, 1 - edge, edge))


@pytest.mark.parametrize(
    ("K", "M", "dtype", "beta"),
    [
        (4, 200, "float32", 1e2),
        (4, 200, "float32", 1e4),
        (12, 60, "float64", 1e4),
        pytest.param(256, 1, "float64", 1e4, marks=SLOW),
    ],
)
def test_extremes_are_right_or_say_so(rng, K, M, dtype, beta):
    """alpha = 0.999, P within 1e-6 of 0 and 1 or at them: kappa up to 1e7, fixed points on faces."""
    uniform = np.full((M, K), 1 / K)
    P = near_sure(rng, M, K, 1e-6)
    P[::2] = random_P(rng, M, K)[::2]
    P[1::4] = np.round(P[1::4])
    P[:, np.arange(K), np.arange(K)] = 0.5
    fields = [jnp.asarray(x, dtype) for x in (P, np.full(M, 0.999), np.full(M, beta), np.ones(M), uniform, uniform)]

    def best_reply(*fields):
        found = ipodyn.fixed_point(loop_of(*fields), throw=False)
        return ipodyn.entropy(found.policy), found

    (_, found), gradients = jax.jit(jax.vmap(jax.value_and_grad(best_reply, argnums=tuple(range(6)), has_aux=True)))(
        *fields
    )
    for x in (found.policy, found.residual, found.error, *gradients):
        assert bool(jnp.all(jnp.isfinite(x)))
    ok = np.asarray(found.result == RESULTS.successful)
    # In float32 eps * kappa is 1.2: the linear system that the bound needs is solved with hardly a digit, and a few
    # answers, though right, cannot be certified. At a hundredth of that kappa every one can.
    assert ok.mean() >= (1.0 if dtype == "float64" or beta < 1e3 else 0.95)
    # Independent of the solver: the payoff that a best reply gains against pi = softmax(kappa A pi) is at most
    # log K / kappa, for pi' A pi = 0. The error that the result admits to adds to it, and the rounding of A pi.
    policy = np.asarray(found.policy, np.float64)[ok]
    gain = np.einsum("mij,mj->mi", np.asarray(fields[0], np.float64)[ok] - 0.5, policy).max(-1)
    kappa = float(fields[2][0] / (1 - fields[1][0]))
    assert np.all(gain <= np.log(K) / kappa + K * np.asarray(found.error)[ok] + 4 * np.finfo(dtype).eps)


def test_where_newton_cycles_it_starts_anew():
    """Long steps along this path lead to a cycle of Newton's method; shorter ones from the start arrive."""
    eighths = [
        [4, 4, 4, 0, 0, 4, 3, 7],
        [4, 4, 8, 7, 3, 4, 6, 2],
        [4, 0, 4, 2, 6, 4, 0, 3],
        [8, 1, 6, 4, 5, 4, 2, 1],
        [8, 5, 2, 3, 4, 2, 2, 4],
        [4, 4, 4, 4, 6, 4, 8, 1],
        [5, 2, 8, 6, 6, 0, 4, 2],
        [1, 6, 5, 7, 4, 7, 6, 4],
    ]
    reference = np.array([1e-20, 2e-24, 8e-14, 2e-25, 7e-3, 6e-21, 0.993, 4e-22])
    loop = MRS(np.array(eighths) / 8, alpha=0.2512, beta=1668.0, lam=1.0, pi_ref=reference / reference.sum())
    found = ipodyn.fixed_point(loop)  # raises where it did not arrive
    assert int(found.num_steps) > 40 + 8  # it did start anew
    assert float(found.error) <= 4e-10


def test_float32_agrees_with_float64(rng):
    fields = random_loops(rng, ROWS, 3, beta=(0.1, 300.0))
    rough = solve(*[jnp.asarray(x, "float32") for x in fields])
    assert rough.policy.dtype == jnp.float32 and rough.residual.dtype == jnp.float32
    assert bool(jnp.all(rough.result == RESULTS.successful))
    # The inputs are rounded to 6e-8, the logits they make to kappa times that; kappa here is up to 6000, but the
    # response of pi to its own payoffs shrinks the error again.
    np.testing.assert_allclose(rough.policy, solve(*fields).policy, rtol=0, atol=2e-5)


def test_responses_that_the_reference_excludes_stay_out(rng):
    P, alpha, beta, _, _, _ = random_loops(rng, 1, 4)
    keep = np.array([0, 1, 3])
    small = rng.dirichlet(np.ones(3))
    pi_ref = np.zeros(4)
    pi_ref[keep] = small
    loop = MRS(P[0], alpha=alpha[0], beta=beta[0], lam=1.0, pi_ref=pi_ref)
    reduced = MRS(P[0][np.ix_(keep, keep)], alpha=alpha[0], beta=beta[0], lam=1.0, pi_ref=small)
    found = ipodyn.fixed_point(loop).policy
    assert found[2] == 0
    np.testing.assert_allclose(found[keep], ipodyn.fixed_point(reduced).policy, rtol=0, atol=1e-14)

    def mass(pi_ref):
        return ipodyn.fixed_point(MRS(P[0], alpha=alpha[0], beta=beta[0], lam=1.0, pi_ref=pi_ref)).policy[0]

    assert bool(jnp.all(jnp.isfinite(jax.grad(mass)(jnp.asarray(pi_ref)))))


@pytest.mark.slow
def test_dpo_is_where_its_rounds_end(rng):
    K, M = 4, 100
    P, _, _, lam, pi_ref, pi_0 = random_loops(rng, M, K, edge=0.1)
    fields = (P, rng.uniform(0, 0.5, M), rng.uniform(0.1, 0.8, M), lam, pi_ref, pi_0)

    def both(*fields):
        loop = loop_of(*fields, objective=DPO())
        return ipodyn.fixed_point(loop, throw=False), ipodyn.rollout(loop, num_steps=400).final

    found, final = jax.jit(jax.vmap(both))(*fields)
    assert bool(jnp.all(found.result == RESULTS.successful))
    np.testing.assert_allclose(found.policy, final, rtol=0, atol=1e-11)
    assert float(found.residual.max()) <= 1e-12


def test_failures_are_results():
    P = ipodyn.problems.three_cycle(0.3)
    free = MRS(P, alpha=1.0, beta=2.0, lam=1.0)
    found = ipodyn.fixed_point(free, throw=False)
    assert found.result == RESULTS.no_fixed_point
    assert bool(jnp.all(jnp.isfinite(found.policy)))
    with pytest.raises(Exception, match="alpha = 1"):
        ipodyn.fixed_point(free)

    hard = MRS(jnp.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]]), alpha=0.9, beta=50.0, lam=1.0)
    assert ipodyn.fixed_point(hard, max_steps=2, throw=False).result == RESULTS.max_steps_reached
    with pytest.raises(Exception, match="all its steps"):
        ipodyn.fixed_point(hard, max_steps=2)
    with pytest.raises(ValueError, match="max_steps"):
        ipodyn.fixed_point(hard, max_steps=0)

    sure = jnp.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    found = ipodyn.fixed_point(MRS(sure, alpha=0.5, beta=1.0, lam=1.0, objective=DPO()), throw=False)
    assert found.result == RESULTS.diverging_scores
    # The same matrix is an ordinary problem for IPO.
    assert ipodyn.fixed_point(MRS(sure, alpha=0.5, beta=1.0, lam=1.0)).result == RESULTS.successful


def test_gradient_at_alpha_one_is_finite():
    def first(alpha):
        return ipodyn.fixed_point(MRS(ipodyn.problems.three_cycle(0.3), alpha=alpha, beta=2.0, lam=1.0), throw=False)

    assert np.isfinite(jax.grad(lambda alpha: first(alpha).policy[0])(1.0))
