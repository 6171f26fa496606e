"""Rounds on finite samples, against NumPy least squares, explicit likelihoods and loops in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn._objectives.wins import least_squares_scores
from ipodyn._preferences import posterior

K = 4
IPO, DPO = ipodyn.IPO(), ipodyn.DPO()


def preference(rng, K=K, low=0.1):
    return complementary(rng.uniform(low, 1 - low, (K, K)))


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def test_labels_have_the_chances_they_should(rng):
    P, mu, n, draws = preference(rng), rng.dirichlet(np.ones(K)), 300, 20_000
    P[0, 1], P[1, 0] = 1.0, 0.0
    mu = np.array([mu[0] + mu[3], mu[1], mu[2], 0.0])
    keys = jax.random.split(jax.random.key(3), draws)
    wins = np.asarray(jax.vmap(lambda key: ipodyn.draw_wins(key, P, mu, num_pairs=n))(keys))
    chance = 2 * np.outer(mu, mu) * P * (1 - np.eye(K))
    assert (wins == np.round(wins)).all() and (wins[:, chance == 0] == 0).all()
    assert (wins.sum((1, 2)) <= n).all()
    # Counts of one cell are binomial: mean and variance within five standard errors of each.
    mean, variance = n * chance, n * chance * (1 - chance)
    assert (np.abs(wins.mean(0) - mean) <= 5 * np.sqrt(variance / draws)).all()
    # A sample variance is known to sqrt((2 + excess) / draws); the excess kurtosis is at most one over the variance.
    bound = 5 * np.sqrt((2 + 1 / np.where(chance > 0, variance, 1)) / draws) * variance
    assert (np.abs(wins.var(0) - variance) <= bound).all() and bound.max() < 0.06 * variance.max()
    # Cells of one multinomial are negatively correlated.
    covariance = np.mean(wins[:, 0, 1] * wins[:, 2, 0]) - wins[:, 0, 1].mean() * wins[:, 2, 0].mean()
    np.testing.assert_allclose(covariance, -n * chance[0, 1] * chance[2, 0], rtol=0, atol=5 * mean.max() / draws**0.5)
    again = ipodyn.draw_wins(keys[7], P, mu, num_pairs=n)
    np.testing.assert_array_equal(again, wins[7])


def pairs_of(wins):
    """Every labelled pair as a row e_winner - e_loser."""
    rows = []
    for i, j in np.argwhere(wins > 0):
        row = np.zeros(len(wins))
        row[i], row[j] = 1, -1
        rows += [row] * int(wins[i, j])
    return np.stack(rows)


def test_empirical_ipo_is_least_squares_on_the_pairs(rng):
    """Minimum-norm least squares of h_w - h_l = beta / 2 over all pairs, connected or not."""
    beta = 3.0
    wins = rng.poisson(0.4, (60, K, K)).astype(float)
    wins[:20, 3], wins[:20, :, 3] = 0, 0  # one response never compared
    wins[20:40, :2, 2:], wins[20:40, 2:, :2] = 0, 0  # two groups
    wins = np.stack([w * (1 - np.eye(K)) for w in wins])
    wins[:, 0, 1] += 1
    found = np.asarray(jax.vmap(lambda w: ipodyn.empirical_score(IPO, w))(wins))
    for w, score in zip(wins, found, strict=True):
        rows = pairs_of(w)
        expected = np.linalg.lstsq(rows, np.full(len(rows), beta / 2), rcond=None)[0]
        np.testing.assert_allclose(beta * score, expected, rtol=0, atol=1e-12)  # roundings of a K x K system
    assert (np.abs(found[:20, 3]) < 1e-15).all()


def test_a_fit_does_not_depend_on_the_others_in_its_batch(rng):
    """A loop with 1e15 comparisons beside one with a few: each is fitted in the unit of its own counts."""
    few = rng.integers(1, 9, (K, K)) * (1.0 - np.eye(K))
    beside = jnp.stack([jnp.asarray(few), jnp.asarray(few.T * 1e15)], axis=-1)  # batch axis last, as in sweeps
    found = np.asarray(least_squares_scores(beside))[:, 0]
    np.testing.assert_allclose(found, np.linalg.lstsq(pairs_of(few), np.full(int(few.sum()), 0.5), rcond=None)[0],
                               rtol=0, atol=1e-12)  # fmt: skip


def test_a_response_never_compared_keeps_its_reference_log_probability(rng):
    wins, pi_ref = np.zeros((K, K)), rng.dirichlet(np.ones(K))
    wins[0, 1], wins[1, 0] = 7, 2
    for objective, ridge in ((IPO, None), (DPO, 0.5)):
        policy = np.asarray(ipodyn.empirical_optimum(objective, wins, pi_ref, beta=2.0, ridge=ridge))
        gained = np.log(policy) - np.log(pi_ref)
        np.testing.assert_allclose(gained[2], gained[3], atol=1e-13)  # both untouched, up to the normalisation
        np.testing.assert_allclose((gained[0] + gained[1]) / 2, gained[2], atol=1e-13)
    untouched = ipodyn.empirical_optimum(IPO, np.zeros((K, K)), pi_ref, beta=2.0)
    np.testing.assert_allclose(untouched, pi_ref, rtol=1e-14)


def test_empirical_dpo_solves_its_likelihood_equations(rng):
    """At the fit, sum_j W_ij - N_ij sigmoid(r_i - r_j) = ridge r_i; separable data stay finite."""
    wins, ridge = rng.poisson(2.0, (40, K, K)).astype(float), 0.3
    wins[:10] = np.triu(wins[:10], 1)  # the lower index always wins
    wins[10:20, 3], wins[10:20, :, 3] = 0, 0
    wins *= 1 - np.eye(K)
    found = np.asarray(jax.vmap(lambda w: ipodyn.empirical_score(DPO, w, ridge=ridge))(wins))
    assert np.isfinite(found).all()
    for w, r in zip(wins, found, strict=True):
        fitted = (w + w.T) / (1 + np.exp(r[None] - r[:, None]))
        np.testing.assert_allclose(w.sum(1) - fitted.sum(1), ridge * r, atol=1e-10)  # Newton to sqrt(eps), squared
    P, mu = preference(rng), rng.dirichlet(np.ones(K))
    expected = DPO.score(P, mu)
    exact = ipodyn.empirical_score(DPO, 2 * np.outer(mu, mu) * P, ridge=1e-10)
    np.testing.assert_allclose(exact, expected, atol=1e-7)  # the ridge pulls by about itself over the curvature


@pytest.mark.parametrize(("objective", "ridge"), [(IPO, None), (DPO, 1.0)], ids=["ipo", "dpo"])
def test_empirical_optima_converge_as_one_over_root_n(objective, ridge, rng):
    P, mu, pi_ref = preference(rng), rng.dirichlet(np.full(K, 5.0)), rng.dirichlet(np.full(K, 5.0))
    target = np.asarray(objective.optimum(P, mu, pi_ref, beta=1.0))
    sizes = 400 * 4 ** np.arange(4)

    @jax.jit
    @jax.vmap
    def trained(key, n):
        wins = ipodyn.draw_wins(key, P, mu, num_pairs=n)
        return ipodyn.empirical_optimum(objective, wins, pi_ref, beta=1.0, ridge=ridge)

    errors = []
    for n in sizes:
        keys = jax.random.split(jax.random.key(int(n)), 256)
        policies = np.asarray(trained(keys, jnp.full(256, float(n))))
        errors.append(np.sqrt(np.mean(np.sum((policies - target) ** 2, axis=1))))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope + 0.5) <= 0.05  # each error is known to 1 / sqrt(2 * 256 * 3), 3 %: the slope to 0.01


STEPS, PAIRS = 6, 40


@pytest.mark.slow
def test_a_finite_rollout_is_its_definition_in_numpy(rng):
    P, (pi_ref, pi_0, start) = preference(rng), rng.dirichlet(np.full(K, 5.0), 3)
    alpha, beta, lam = 0.6, 1.5, 0.7
    loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0)
    key = jax.random.key(11)
    orbit = ipodyn.finite_rollout(loop, start, key=key, num_pairs=PAIRS, num_steps=STEPS, save=jnp.asarray)
    policy, policies = start, []
    for _ in range(STEPS):
        key, now = jax.random.split(key)
        wins = np.asarray(ipodyn.draw_wins(now, P, lam * policy + (1 - lam) * pi_0, num_pairs=PAIRS))
        rows = pairs_of(wins)
        h = np.linalg.lstsq(rows, np.full(len(rows), beta / 2), rcond=None)[0]
        policy = softmax(alpha * np.log(policy) + (1 - alpha) * np.log(pi_ref) + h)
        policies.append(policy)
    np.testing.assert_allclose(orbit.saved, policies, rtol=1e-10)
    np.testing.assert_allclose(orbit.variance, np.var(policies, axis=0).sum(), rtol=1e-9)
    np.testing.assert_allclose(orbit.mean, np.mean(policies, axis=0), rtol=1e-10)

    # The same trajectory from the sweep, which cuts it into blocks of two.
    orbits = ipodyn.finite_sweep(
        loop, start, key=jax.random.key(5), num_pairs=PAIRS, num_trajectories=3, num_steps=STEPS, size=2
    )
    folded = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 2)
    single = ipodyn.finite_rollout(loop, start, key=folded, num_pairs=PAIRS, num_steps=STEPS, save=jnp.asarray)
    np.testing.assert_allclose(orbits.final[2], single.final, rtol=1e-12)
    assert orbits.final.shape == (3, K) and (orbits.final[1] != orbits.final[2]).any()


def test_averaging_policies_hides_oscillation_and_averaging_variances_does_not():
    loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.9, beta=3.0, lam=1.0)
    assert not ipodyn.stability(loop, np.full(3, 1 / 3)).stable
    orbits = ipodyn.finite_sweep(
        loop, key=jax.random.key(0), num_pairs=100, num_trajectories=64, num_steps=600, window=300, save=jnp.asarray
    )
    paths = np.asarray(orbits.saved)[:, 300:]
    within = orbits.across("window_variance")
    np.testing.assert_allclose(orbits.window_variance, paths.var(axis=1).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(within.mean, np.mean(orbits.window_variance), rtol=1e-12)
    np.testing.assert_allclose(within.error, np.std(orbits.window_variance, ddof=1) / 8, rtol=1e-12)
    # 64 random phases leave a 64th of the variance on average.
    assert float(ipodyn.variance_of_average(paths)) < 0.1 * float(within.mean)
    assert float(within.mean) > 0.1


def test_dpo_loops_need_a_ridge_and_stay_finite():
    loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.5), alpha=0.5, beta=1.0, lam=1.0, objective=DPO)
    with pytest.raises(ValueError, match="give `ridge` > 0"):
        ipodyn.finite_rollout(loop, key=jax.random.key(0), num_pairs=10)
    orbit = ipodyn.finite_rollout(loop, key=jax.random.key(0), num_pairs=10, num_steps=30, ridge=0.5)  # P has 0 and 1
    assert np.isfinite(orbit.variance) and bool(orbit.result == ipodyn.RESULTS.successful)


@pytest.mark.slow
def test_draws_of_preferences_have_the_moments_of_their_distributions():
    wins = np.array([[0, 12, 3], [4, 0, 0], [3, 0, 0]])
    draws = np.asarray(ipodyn.posterior_preferences(jax.random.key(0), wins, num_draws=40_000))
    boots = np.asarray(ipodyn.bootstrap_preferences(jax.random.key(1), wins, num_draws=40_000))
    for P in (draws, boots):
        np.testing.assert_allclose(P + P.swapaxes(1, 2), 1, rtol=0, atol=1e-15)
        ipodyn.check_preference(P)
    a, b = 13, 5  # Beta(W + 1, L + 1)
    np.testing.assert_allclose(draws[:, 0, 1].mean(), a / (a + b), atol=5 * 0.1 / 200)
    spread = a * b / ((a + b) ** 2 * (a + b + 1))
    np.testing.assert_allclose(draws[:, 0, 1].var(), spread, rtol=0.036)  # 5 sqrt(2 / 40,000)
    np.testing.assert_allclose(draws[:, 1, 2].mean(), 0.5, atol=5 * 0.29 / 200)  # the uniform prior
    np.testing.assert_allclose(boots[:, 0, 1].mean(), 0.75, atol=5 * 0.11 / 200)
    np.testing.assert_allclose(boots[:, 0, 1].var(), 0.75 * 0.25 / 16, rtol=0.036)
    assert (boots[:, 1, 2] == 0.5).all()


@pytest.mark.slow
def test_more_counts_decide_the_regime():
    """The three-cycle of strength 0.3 is stable at (0.5, 3, 1), unstable at (0.9, 4, 1); ten labels do not tell."""
    share = 0.5 + 0.3 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    np.fill_diagonal(share, 0)

    def found(n, alpha, beta):
        draws = ipodyn.posterior_preferences(jax.random.key(0), n * share, num_draws=64)
        return ipodyn.regime_probabilities(
            draws, alpha=alpha, beta=beta, lam=1.0, policy0=np.array([0.5, 0.3, 0.2]), num_steps=500
        )

    sure = found(2000, 0.5, 3.0)
    assert float(sure.stable) == 1 and float(sure.probability[ipodyn.Regime.converges]) == 1
    sure = found(2000, 0.9, 4.0)
    assert float(sure.stable) == 0 and float(sure.probability[ipodyn.Regime.oscillates]) == 1
    unsure = found(10, 0.9, 4.0)
    p = float(unsure.probability[ipodyn.Regime.oscillates])
    assert 0.05 < p < 0.95 and 0.05 < float(unsure.stable) < 0.95
    np.testing.assert_allclose(unsure.error[ipodyn.Regime.oscillates], np.sqrt(p * (1 - p) / 64), rtol=1e-12)
    np.testing.assert_allclose(np.sum(unsure.probability), 1, rtol=1e-12)


@pytest.mark.slow
def test_it_takes_enough_pairs_to_tell_stable_from_unstable():
    P = ipodyn.problems.three_cycle(0.4)  # its critical beta is 3.75
    stable, unstable = (ipodyn.MRS(P, alpha=0.5, beta=beta, lam=1.0) for beta in (3.4, 4.1))
    sizes = [4, 16, 64, 256, 1024]
    found = ipodyn.smallest_sample(
        stable,
        unstable,
        key=jax.random.key(0),
        num_pairs=sizes,
        num_trajectories=64,
        num_steps=100,
        policy0=np.array([0.5, 0.3, 0.2]),
    )
    assert found.value in (16.0, 64.0, 256.0)
    assert found.error[0] > 0.05 and found.error[-1] < 0.03  # of 64 trajectories each
    # More pairs, less noise, to first order in 1/n; the unstable loop turns on.
    calm, wild = found.stable.mean(axis=1), found.unstable.mean(axis=1)
    assert 3 < calm[-2] / calm[-1] < 5 and 0.8 < wild[-2] / wild[-1] < 1.25
    # The threshold separates what was simulated as well as the error says.
    for n in range(len(sizes)):
        wrong = (found.stable[n] > found.threshold[n]).mean() + (found.unstable[n] <= found.threshold[n]).mean()
        np.testing.assert_allclose(wrong / 2, found.error[n], atol=1e-12)


def test_probabilities_of_a_regime_are_shares_of_the_draws():
    """Five three-cycles at (0.5, 5, 1), stable exactly where 0.5^2 + (5 a)^2 / 3 < 1: a below 0.3."""
    strengths = np.array([0.1, 0.2, 0.4, 0.45, 0.48])
    draws = jax.vmap(ipodyn.problems.three_cycle)(strengths)
    found = ipodyn.regime_probabilities(draws, alpha=0.5, beta=5.0, lam=1.0, policy0=[0.5, 0.3, 0.2], num_steps=400)
    np.testing.assert_allclose(found.radius, np.sqrt(0.25 + (5 * strengths) ** 2 / 3), rtol=1e-10)
    assert float(found.stable) == 0.4
    share = np.zeros(len(ipodyn.Regime))
    share[ipodyn.Regime.converges], share[ipodyn.Regime.oscillates] = 0.4, 0.6
    np.testing.assert_allclose(found.probability, share, rtol=1e-15)
    np.testing.assert_allclose(found.error, np.sqrt(share * (1 - share) / 5), rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2), (4,)])
def test_counts_of_another_shape_are_named(shape):
    """Below the run-time checker of shapes, which users do not have."""
    with pytest.raises(ValueError, match=r"`wins` has shape .*; give \(K, K\), and `jax.vmap` many"):
        posterior._one_table.__wrapped__(jnp.ones(shape))
    with pytest.raises(ValueError, match=r"`P` has shape .*; give \(draws, K, K\)"):
        ipodyn.regime_probabilities.__wrapped__(jnp.ones(shape[:2]), alpha=0.5, beta=1.0, lam=1.0)


def test_wrong_arguments_meet_a_sentence():
    loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=1.0, lam=1.0)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`ridge` goes with DPO"):
        ipodyn.finite_rollout(loop, key=key, num_pairs=10, ridge=1.0)
    with pytest.raises(ValueError, match="`num_trajectories` is 0"):
        ipodyn.finite_sweep(loop, key=key, num_pairs=10, num_trajectories=0)
    with pytest.raises(ValueError, match="`num_pairs` is -1"):
        ipodyn.finite_sweep(loop, key=key, num_pairs=-1)
    with pytest.raises(ValueError, match=r"`num_pairs` has shape \(2,\)"):
        ipodyn.finite_sweep(loop, key=key, num_pairs=np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="increasing sizes"):
        ipodyn.smallest_sample(loop, loop, key=key, num_pairs=[10, 5])
    with pytest.raises(ValueError, match="`error` is"):
        ipodyn.smallest_sample(loop, loop, key=key, num_pairs=[5, 10], error=0.7)
    with pytest.raises(ValueError, match="`prior` is 0"):
        ipodyn.posterior_preferences(key, np.ones((2, 2)), prior=0.0)
