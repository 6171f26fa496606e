"""Certificates of convergence: their norms by NumPy, their promises on random states, what they must not promise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import loop_of, random_loops
from preferences import random_P
from scipy.special import logsumexp, softmax

import ipodyn
from ipodyn import DPO, MRS

ROWS = 40


def projected_norm(P, inside=None):
    """|Pi A Pi|_2 by NumPy."""
    keep = np.arange(len(P)) if inside is None else np.flatnonzero(inside)
    A, n = (P - 0.5)[np.ix_(keep, keep)], len(keep)
    Pi = np.eye(n) - 1 / n
    return np.linalg.norm(Pi @ A @ Pi, 2)


def kl_from(policy, logits):
    """KL(policy || softmax(logits)), rows, kept accurate where it is small compared with the logits."""
    moved = logits - np.log(policy)
    return logsumexp(np.log(policy) + moved, axis=-1) - np.sum(policy * moved, axis=-1)


def next_logits(fields, logits):
    P, alpha, beta, lam, pi_ref, pi_0 = fields
    mu = lam[:, None] * softmax(logits, axis=-1) + (1 - lam[:, None]) * pi_0
    scores = np.einsum("mij,mj->mi", P - 0.5, mu)
    return alpha[:, None] * logits + (1 - alpha[:, None]) * np.log(pi_ref) + beta[:, None] * scores


def over_loops(f, fields):
    return jax.jit(jax.vmap(lambda *fields: f(loop_of(*fields))))(*fields)


@pytest.mark.parametrize("K", [2, 3, 4, 5, 8])
def test_rates_are_those_of_numpy(rng, K):
    fields = random_loops(rng, ROWS, K, beta=(0.1, 50.0))
    P, alpha, beta, lam = fields[:4]

    def found(loop):
        certificate = ipodyn.convergence_certificate(loop)
        local = ipodyn.locally_stable_certificate(loop)
        return certificate.rate, certificate.certified, certificate.gain, ipodyn.contraction_bound(loop), local.radius

    rate, certified, gain, bound, radius = over_loops(found, fields)
    norm = np.array([projected_norm(p) for p in P])
    b = beta * lam * norm / 2
    np.testing.assert_allclose(gain, b, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(rate, np.maximum(alpha, alpha**2 + b**2), rtol=1e-12)
    np.testing.assert_allclose(bound, alpha + b, rtol=1e-12)
    np.testing.assert_allclose(radius, np.sqrt(alpha**2 + (2 * b / 3) ** 2), rtol=1e-12)
    np.testing.assert_array_equal(certified, rate < 1)
    assert K == 2 or 0 < np.sum(certified) < ROWS


@pytest.mark.parametrize("K", [4, 6])
def test_excluded_responses_have_no_part(rng, K):
    P, pi_ref = random_P(rng, 1, K)[0], np.full(K, 1 / (K - 2))
    pi_ref[[1, K - 1]] = 0.0
    keep = np.flatnonzero(pi_ref)
    for metric in ("euclidean", "best"):
        whole = ipodyn.convergence_certificate(MRS(P, alpha=0.3, beta=2.0, lam=0.9, pi_ref=pi_ref), metric=metric)
        part = ipodyn.convergence_certificate(MRS(P[np.ix_(keep, keep)], alpha=0.3, beta=2.0, lam=0.9), metric=metric)
        np.testing.assert_allclose(whole.rate, part.rate, rtol=1e-12 if metric == "euclidean" else 4e-4)
    np.testing.assert_allclose(whole.rate, max(0.3, 0.09 + (0.9 * projected_norm(P, pi_ref > 0)) ** 2), rtol=1e-3 * K)


def test_nothing_is_promised_for_starts_on_another_face():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
    found = ipodyn.convergence_certificate(loop)
    assert float(found.kl_bound([0.5, 0.5, 0.0], 5)) == np.inf == float(found.rounds([0.5, 0.5, 0.0]))
    inside = MRS(loop.P, alpha=0.5, beta=2.0, lam=1.0, pi_ref=np.array([0.6, 0.4, 0.0]))
    found = ipodyn.convergence_certificate(inside)
    assert float(found.rounds([0.3, 0.3, 0.4])) == np.inf and np.isfinite(found.rounds([0.9, 0.1, 0.0]))


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_ties_and_a_free_reference_have_finite_values_and_derivatives(dtype):
    K, dtype = 5, np.dtype(dtype)

    def parts(P, alpha):
        loop = MRS(P, alpha=alpha, beta=np.ones((), dtype), lam=np.ones((), dtype))
        best = ipodyn.convergence_certificate(loop, metric="best")
        found = ipodyn.convergence_certificate(loop)
        local = ipodyn.locally_stable_certificate(loop)
        return jnp.stack([found.rate, found.gain, best.rate, best.gain, local.radius])

    def both(P, alpha):
        return parts(P, alpha), jax.jacrev(parts, (0, 1))(P, alpha)

    ties = np.full((K, K), 0.5, dtype)
    sure = np.triu(np.ones_like(ties), 1) + 0.5 * np.eye(K, dtype=dtype)
    value, jacobian = jax.jit(jax.vmap(both))(np.stack([ties, ties, sure]), np.array([0, 1, 1], dtype))
    assert value.dtype == dtype
    assert all(np.isfinite(x).all() for x in (value, *jacobian))
    with jax.enable_x64(dtype == np.float64):
        free = ipodyn.convergence_certificate(MRS(ties, alpha=1.0, beta=1.0, lam=1.0))
        assert not bool(free.certified) and float(free.rounds()) == np.inf == float(free.kl_bound(t=3))


SIZES = [5, pytest.param(3, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]


@pytest.mark.parametrize("K", SIZES)
def test_kl_falls_by_the_rate_in_every_round(rng, K):
    """States from next to the fixed point to next to the vertices, every loop at its own rate up to 0.999."""
    M = 200
    P, alpha, beta, lam, pi_ref, pi_0 = random_loops(rng, M, K, alpha=0.98)
    P[: M // 2] = 0.5 + 0.5 * np.sign(P[: M // 2] - 0.5)
    b = np.sqrt(np.maximum(1 - 10 ** rng.uniform(-3, 0, M) - alpha**2, 1e-6))
    lam = 0.1 + 0.9 * lam
    beta = 2 * b / (lam * np.maximum([projected_norm(p) for p in P], 1e-3))
    fields = P, alpha, beta, lam, pi_ref, pi_0

    def rates(loop):
        certificates = [ipodyn.convergence_certificate(loop, metric=metric) for metric in ("euclidean", "best")]
        return ipodyn.fixed_point(loop).policy, *(found.rate for found in certificates)

    star, euclidean, best = map(np.asarray, over_loops(rates, fields))
    star = np.maximum(star, 1e-300)  # what a policy does not hold does not matter
    assert np.all(best <= euclidean) and (K == 3 or np.mean(best < 0.999 * euclidean) > 0.3)
    assert np.all(euclidean < 1)
    closest = 0.0
    for _ in range(60):
        logits = np.log(star) + rng.normal(size=star.shape) * 10 ** rng.uniform(-1.5, 1.5, (M, 1))
        before, after = kl_from(star, logits), kl_from(star, next_logits(fields, logits))
        seen = before >= 1e-6
        ratio = after[seen] / (before * best)[seen]
        assert np.all(ratio <= 1 + 1e-9)
        closest = max(closest, ratio.max())
    assert closest > 0.9  # alpha is approached


def test_rounds_are_enough(rng):
    M, K = 60, 4
    fields = random_loops(rng, M, K, alpha=0.9, beta=(0.1, 3.0))
    starts = rng.dirichlet(np.full(K, 0.3), M) * (1 - 1e-6) + 1e-6 / K

    def promised(start, *fields):
        found = ipodyn.convergence_certificate(loop_of(*fields))
        bounds = jnp.stack([found.kl_bound(start, t) for t in (0, 1, 7)])
        return found.certified, found.rounds(start, 1e-6), bounds, ipodyn.fixed_point(loop_of(*fields)).policy

    certified, rounds, bounds, star = map(np.asarray, jax.jit(jax.vmap(promised))(starts, *fields))
    assert np.all(np.isinf(rounds) == ~certified) and certified.sum() > 20
    logits, needed, counted = np.log(starts), np.full(M, np.inf), {}
    for t in range(400):
        kl = kl_from(star, logits)
        needed = np.where((kl <= 1e-6) & np.isinf(needed), t, needed)
        counted[t] = kl
        logits = next_logits(fields, logits)
    assert np.all(needed[certified] <= rounds[certified])
    assert np.median(rounds[certified] / np.maximum(needed[certified], 1)) < 6  # and not by far
    for place, t in enumerate((0, 1, 7)):
        assert np.all(counted[t] <= bounds[:, place] * (1 + 1e-9) + 1e-15)
    at_once = ipodyn.convergence_certificate(MRS(np.full((3, 3), 0.5), alpha=0.0, beta=1.0, lam=1.0))
    assert float(at_once.rounds([0.8, 0.1, 0.1])) == 1 and float(at_once.rounds([1 / 3] * 3)) == 0
    assert float(at_once.kl_bound([0.8, 0.1, 0.1], 0)) > 0 == float(at_once.kl_bound([0.8, 0.1, 0.1], 1))


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 4, 7])
def test_certificates_are_nested(rng, K):
    fields = random_loops(rng, 300, K, beta=(0.3, 30.0))

    def claims(loop):
        star = ipodyn.fixed_point(loop)
        best = ipodyn.convergence_certificate(loop, metric="best")
        local = ipodyn.stability(loop, star.policy)
        return (
            ipodyn.contraction_bound(loop) < 1,
            ipodyn.convergence_certificate(loop).certified,
            best.certified,
            local.stable,
        ), (best.gain, best.least_gain, local.radius, ipodyn.locally_stable_certificate(loop).radius)

    levels, (gain, least, radius, bound) = over_loops(claims, fields)
    for inner, outer in itertools.pairwise(levels):
        inner, outer = np.asarray(inner), np.asarray(outer)
        assert np.all(~inner | outer) and np.sum(inner) <= np.sum(outer)
    assert np.sum(levels[0]) < np.sum(levels[1]) < np.sum(levels[3])
    assert np.all(least <= gain) and np.all(gain - least <= 1e-3 * gain)
    assert np.all(radius <= bound * (1 + 1e-12))


def test_no_other_metric_is_better(rng):
    """Any positive definite N, scaled to |e_i - e_j|_N^2 <= 4, gives a norm; none is below the lower bound."""
    for K in (4, 5, 7):
        P = random_P(rng, 1, K)[0]
        found = ipodyn.convergence_certificate(MRS(P, alpha=0.0, beta=1.0, lam=1.0), metric="best")
        for _ in range(300):
            root = np.eye(K) + rng.uniform(0, 1) * rng.normal(size=(K, K))
            N = root @ root.T
            largest = max(N[i, i] + N[j, j] - 2 * N[i, j] for i in range(K) for j in range(i))
            inverse = np.linalg.inv(np.linalg.cholesky(N))
            # The best norm of A plus rows and columns of constants: those do not act on differences of policies.
            Pi = np.eye(K) - 1 / K
            norm = largest / 4 * np.linalg.norm(inverse @ Pi @ (P - 0.5) @ Pi @ inverse.T, 2)
            assert norm >= float(np.asarray(found.least_gain)) * (1 - 1e-12)
        policies = rng.dirichlet(np.full(K, 0.5), 300)
        for pi in policies:
            root = (np.diag(pi) - np.outer(pi, pi)) / np.sqrt(pi)  # one square root of S
            assert np.linalg.norm(root.T @ (P - 0.5) @ root, 2) <= float(found.gain) * (1 + 1e-12)


def test_singular_weights_leave_the_best_metric_finite():
    """Weights of most pairs tend to 0 here, until rounding makes eigenvalues of their Laplacian negative."""
    wins = [[1, -1, 1, 1, -1], [1, -1, 1, -1], [-1, 1, 1], [1, 1], [-1]]
    A = np.zeros((6, 6))
    A[np.triu_indices(6, 1)] = np.concatenate(wins) / 2
    found = ipodyn.convergence_certificate(MRS(0.5 + A - A.T, alpha=0.0, beta=1.0, lam=1.0), metric="best")
    least, gain = float(np.asarray(found.least_gain)), float(found.gain)
    assert 0 < least <= gain <= projected_norm(0.5 + A - A.T) / 2 * (1 + 1e-12) and gain - least < 1e-3 * gain


def test_three_responses_have_no_better_metric(rng):
    loop = MRS(random_P(rng, 1, 3)[0], alpha=0.2, beta=2.0, lam=1.0)
    best = ipodyn.convergence_certificate(loop, metric="best")
    assert float(best.gain) == float(ipodyn.convergence_certificate(loop).gain) == float(np.asarray(best.least_gain))


def test_the_derivative_of_the_best_gain(rng):
    K = 5
    P, D = random_P(rng, 1, K)[0], np.triu(rng.normal(size=(K, K)), 1)
    D = D - D.T

    def gain(P):
        return ipodyn.convergence_certificate(MRS(P, alpha=0.0, beta=1.0, lam=1.0), metric="best").gain

    slope = jax.jvp(gain, (P,), (D,))[1]
    np.testing.assert_allclose(np.sum(jax.grad(gain)(P) * D), slope, rtol=1e-10)
    step = 0.01  # the values are within 2e-4 of the optimum
    difference = (gain(P + step * D) - gain(P - step * D)) / (2 * step)
    np.testing.assert_allclose(slope, difference, atol=0.04 * float(np.linalg.norm(D)))


def test_the_local_bound_is_attained_by_the_uniform_cycle(rng):
    loop = MRS(ipodyn.problems.three_cycle(0.4), alpha=0.3, beta=3.0, lam=1.0)
    radius = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy).radius
    np.testing.assert_allclose(ipodyn.locally_stable_certificate(loop).radius, radius, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 5])
def test_dpo_certificates_hold(rng, K):
    """P of moderate odds at nine tenths of what is certified: KL and the range of the logits fall as promised."""
    M = 12
    P, alpha, _, lam, pi_ref, pi_0 = random_loops(rng, M, K, edge=0.35)
    directions = rng.normal(size=(100, K)) * 10 ** rng.uniform(-1, 0.8, (100, 1))

    def states(*fields):
        loop = loop_of(*fields, objective=DPO())
        star, found = ipodyn.fixed_point(loop), ipodyn.convergence_certificate(loop)
        logits = jnp.log(star.policy)[None] + directions
        after = jax.vmap(lambda z: jnp.log(loop(jax.nn.softmax(z))))(logits)
        return star.policy, found.rate, found.gain, found.certified, logits, after

    run = jax.jit(jax.vmap(states))
    gain = run(P, alpha, np.ones(M), lam, pi_ref, pi_0)[2]
    beta = np.minimum(0.9 * (1 - alpha) / np.asarray(gain), 50.0)  # the fixed point moves with beta
    star, rate, gain, certified, logits, after = map(np.asarray, run(P, alpha, beta, lam, pi_ref, pi_0))
    assert np.sum(certified) >= 4
    for m in np.flatnonzero(certified):
        assert np.all(kl_from(star[m], after[m]) <= rate[m] * kl_from(star[m], logits[m]) * (1 + 1e-7) + 1e-14)
        ranges = [np.ptp(z - np.log(star[m]), axis=1) for z in (logits[m], after[m])]
        assert np.all(ranges[1] <= (alpha[m] + gain[m]) * ranges[0] * (1 + 1e-7))


def cycle_of(p01, p02, p12):
    return np.array([[0.5, p01, p02], [1 - p01, 0.5, p12], [1 - p02, 1 - p12, 0.5]])


def test_kl_can_grow_tenfold_beside_a_stable_fixed_point_of_dpo(rng):
    """So that the certificate of IPO would be wrong for DPO."""
    P, star, beta = cycle_of(0.528, 0.022, 0.023), np.array([0.258, 0.511, 0.231]), 82.0
    score = np.asarray(DPO().score(P, star))
    pi_ref = softmax(np.log(star) - beta * score)  # whose fixed point at alpha = 0 is `star`
    loop = MRS(P, alpha=0.0, beta=beta, lam=1.0, pi_ref=pi_ref, objective=DPO())
    assert float(ipodyn.stability(loop, star).radius) < 1
    assert not bool(ipodyn.convergence_certificate(loop).certified)
    logits = np.log(star) + rng.normal(size=(2000, 3)) * 10 ** rng.uniform(-1, 0, (2000, 1))
    after = np.asarray(jax.jit(jax.vmap(lambda z: jnp.log(loop(jax.nn.softmax(z)))))(logits))
    before, after = kl_from(star, logits), kl_from(star, after)
    assert np.max(after[before > 1e-3] / before[before > 1e-3]) > 10


def test_certificates_of_dpo_say_nothing_where_scores_diverge():
    sure = cycle_of(1.0, 1.0, 0.5)
    found = ipodyn.convergence_certificate(MRS(sure, alpha=0.2, beta=1.0, lam=1.0, objective=DPO()))
    assert float(found.rate) == np.inf and float(found.kl_bound(t=2)) == np.inf == float(found.rounds())


def test_wrong_arguments_have_one_clear_line():
    loop = MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=2.0, lam=1.0)
    with pytest.raises(ValueError, match="`metric` is 'other'; it must be 'euclidean' or 'best'"):
        ipodyn.convergence_certificate(loop, metric="other")
    with pytest.raises(ValueError, match="`tolerance` is 0"):
        ipodyn.convergence_certificate(loop).rounds(tolerance=0.0)
    with pytest.raises(ValueError, match="this bound is for IPO"):
        ipodyn.locally_stable_certificate(MRS(loop.P, alpha=0.5, beta=2.0, lam=1.0, objective=DPO()))
