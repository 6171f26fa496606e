"""Derivatives of every public function: forward, backward, second, in a batch, compiled, against central differences.

`TABLE` holds what is differentiated, `EXCEPTIONS` the public functions that are not, each with its reason; a public
function that is in neither fails. All rows see one vector x of local coordinates, so that preferences move along skew
directions and policies along the simplex.
"""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn
from ipodyn import DPO, IPO, MRS, problems, recipes

SIZES = [3, pytest.param(4, marks=pytest.mark.slow)]


def skew(K, entries):
    upper = jnp.zeros((K, K), entries.dtype).at[np.triu_indices(K, 1)].set(entries)
    return upper - upper.T


def coordinates(K):
    return K * (K - 1) // 2 + 3 * (K - 1) + 4


def point(K, x):
    """Preferences, policies and parameters at local coordinates x, all inside their ranges."""
    n = K * (K - 1) // 2
    along = np.linspace(-1, 1, K)
    gaps = along[None] - along[:, None]
    signs = np.where(np.arange(K)[None] < np.arange(K)[:, None], -1, 1) * ~np.eye(K, dtype=bool)
    # P has an order and no ties; C is near a cycle. The small sines take away what both share with simple families.
    P = 0.5 + 0.16 * gaps + 0.07 * signs + 0.02 * np.sin(5 * along[:, None] * gaps + gaps**3)
    ahead = (np.arange(K)[None] - np.arange(K)[:, None]) % K
    C = 0.5 + 0.2 * np.where(ahead == 0, 0, np.where(2 * ahead < K, 1, np.where(2 * ahead > K, -1, signs)))
    odd = np.triu(np.cos(np.arange(K * K).reshape(K, K)), 1) * 0.02
    P, C = (np.triu(m + odd, 1) + np.tril(1 - (m + odd).T, -1) + 0.5 * np.eye(K) for m in (P, C))
    policies, start = [], n
    for phase in (0.3, 1.1, 2.3):
        moved = x[start : start + K - 1]
        base = 1 + 0.5 * np.sin(phase + 2.1 * np.arange(K))
        base = jnp.asarray(base / base.sum(), x.dtype)
        policies.append(base + jnp.concatenate([moved, -jnp.sum(moved, keepdims=True)]))
        start += K - 1
    alpha, beta, lam, share = (jnp.asarray(v, x.dtype) + x[start + i] for i, v in enumerate((0.4, 1.6, 0.7, 0.55)))
    mu, ref, pi = policies
    P, C = (jnp.asarray(m, x.dtype) + skew(K, x[:n]) for m in (P, C))
    wins = 20 * P * (mu[:, None] + mu[None])
    return types.SimpleNamespace(
        K=K, P=P, C=C, mu=mu, ref=ref, pi=pi, alpha=alpha, beta=beta, lam=lam, share=share, wins=wins
    )


def loop_of(at, objective=None, matrix="C", **fields):
    fields = {"alpha": at.alpha, "beta": at.beta, "lam": at.lam, "pi_ref": at.ref, "pi_0": at.mu} | fields
    return MRS(getattr(at, matrix), objective=objective, **fields)


def settled(at, objective=None):
    loop = loop_of(at, objective)
    return loop, ipodyn.fixed_point(loop).policy


def box(at):
    """A box of matrices about P."""
    width = 0.02 * at.share * jnp.asarray(1 - np.eye(at.K), at.P.dtype)
    return at.P - width, at.P + width


def stability_parts(at, objective=None):
    found = ipodyn.stability(*settled(at, objective))
    ordered = jnp.sort(found.eigenvalues.imag)  # a pair may come in either order
    return ordered, found.radius, found.omega, found.angle, found.margin, found.period


def sampler_parts(found):
    return found.mu, found.margin, found.bound, found.floor, found.certificate, found.gap


def orbit_parts(orbit):
    return orbit.final, orbit.mean, orbit.variance, orbit.window_variance, orbit.entropy, orbit.saved


# (public name, variant): what of it is differentiated. "." leads from a class to its method.
TABLE = {
    ("entropy", ""): lambda at: ipodyn.entropy(at.pi),
    ("kl_divergence", ""): lambda at: ipodyn.kl_divergence(at.pi, at.ref),
    ("AbstractObjective.score", "IPO"): lambda at: IPO().score(at.P, at.mu),
    ("AbstractObjective.score", "DPO"): lambda at: DPO().score(at.P, at.mu),
    ("AbstractObjective.loss", "IPO"): lambda at: IPO().loss(jnp.log(at.pi), at.P, at.mu, at.ref, beta=at.beta),
    ("AbstractObjective.loss", "DPO"): lambda at: DPO().loss(jnp.log(at.pi), at.P, at.mu, at.ref, beta=at.beta),
    ("AbstractObjective.solve", "DPO"): lambda at: DPO().solve(at.P, at.mu, at.ref, beta=at.beta).policy,
    ("AbstractObjective.optimum", "IPO"): lambda at: IPO().optimum(at.P, at.mu, at.ref, beta=at.beta),
    ("AbstractObjective.optimum", "DPO"): lambda at: DPO().optimum(at.P, at.mu, at.ref, beta=at.beta),
    ("IPO.pair_losses", ""): lambda at: IPO().pair_losses(jnp.log(at.pi), at.beta * at.mu),
    ("DPO.pair_losses", ""): lambda at: DPO().pair_losses(jnp.log(at.pi), at.beta * at.mu),
    ("IPO.solve_score", ""): lambda at: IPO().solve_score(at.P, at.mu).score,
    ("DPO.solve_score", ""): lambda at: DPO().solve_score(at.P, at.mu).score,
    ("pair_loss", "IPO"): lambda at: ipodyn.pair_loss(
        IPO(), jnp.log(at.pi), [0, 1, 0], [1, 2, 2], at.ref, beta=at.beta
    ),
    ("pair_loss", "DPO"): lambda at: ipodyn.pair_loss(
        DPO(), jnp.log(at.pi), [0, 1, 0], [1, 2, 2], at.ref, beta=at.beta
    ),
    ("ipo_game_value", ""): lambda at: ipodyn.ipo_game_value(jnp.log(at.pi), at.P, at.mu, at.ref, beta=at.beta),
    ("ipo_regression_loss", ""): lambda at: ipodyn.ipo_regression_loss(
        jnp.log(at.pi), at.P, at.mu, at.ref, beta=at.beta
    ),
    ("gradient_optimum", "IPO"): lambda at: ipodyn.gradient_optimum(IPO(), at.P, at.mu, at.ref, beta=at.beta).policy,
    ("gradient_optimum", "DPO"): lambda at: ipodyn.gradient_optimum(DPO(), at.P, at.mu, at.ref, beta=at.beta).policy,
    ("empirical_score", "IPO"): lambda at: ipodyn.empirical_score(IPO(), at.wins),
    ("empirical_score", "DPO"): lambda at: ipodyn.empirical_score(DPO(), at.wins, ridge=at.share),
    ("empirical_optimum", "DPO"): lambda at: ipodyn.empirical_optimum(
        DPO(), at.wins, at.ref, beta=at.beta, ridge=at.share
    ),
    ("sampling_sensitivity", "IPO"): lambda at: ipodyn.sampling_sensitivity(IPO(), at.P, at.mu, pi_ref=at.ref),
    ("sampling_sensitivity", "DPO"): lambda at: ipodyn.sampling_sensitivity(
        DPO(), at.P, at.mu, pi_ref=at.ref, beta=at.beta
    ),
    ("bradley_terry_distance", ""): lambda at: ipodyn.bradley_terry_distance(at.P),
    ("AbstractLoop.__call__", "IPO"): lambda at: loop_of(at)(at.pi),
    ("AbstractLoop.__call__", "DPO"): lambda at: loop_of(at, DPO())(at.pi),
    ("rollout", "IPO"): lambda at: orbit_parts(ipodyn.rollout(loop_of(at), at.pi, num_steps=8, save=ipodyn.entropy)),
    ("rollout", "DPO"): lambda at: orbit_parts(ipodyn.rollout(loop_of(at, DPO()), at.pi, num_steps=4)),
    ("fixed_point", "IPO"): lambda at: settled(at)[1],
    ("fixed_point", "DPO"): lambda at: settled(at, DPO())[1],
    ("stability", "IPO"): stability_parts,
    ("stability", "DPO"): lambda at: stability_parts(at, DPO()),
    ("contraction_bound", ""): lambda at: ipodyn.contraction_bound(loop_of(at)),
    ("convergence_certificate", "IPO"): lambda at: (
        (found := ipodyn.convergence_certificate(loop_of(at, beta=5 * at.beta))).rate,
        found.gain,
    ),
    ("convergence_certificate", "DPO"): lambda at: ipodyn.convergence_certificate(loop_of(at, DPO())).rate,
    ("ConvergenceCertificate.kl_bound", ""): lambda at: ipodyn.convergence_certificate(
        loop_of(at, beta=5 * at.beta)
    ).kl_bound(at.pi, 3),
    ("certified_basin", ""): lambda at: (
        (loop := loop_of(at, beta=5 * at.beta), basin := ipodyn.certified_basin(loop, ipodyn.fixed_point(loop)))
        and (basin.kl, basin.rate)
    ),
    ("damped", ""): lambda at: ipodyn.damped(loop_of(at), at.share)(at.pi),
    ("critical_damping", "IPO"): lambda at: ipodyn.critical_damping(loop_of(at, beta=10 * at.beta)).value,
    ("critical_damping", "DPO"): lambda at: ipodyn.critical_damping(loop_of(at, DPO(), beta=10 * at.beta)).value,
    ("fastest_damping", ""): lambda at: (
        (found := ipodyn.fastest_damping(loop_of(at, beta=10 * at.beta))).value,
        found.radius,
    ),
    ("certified_damping", ""): lambda at: (
        (found := ipodyn.certified_damping(loop_of(at, beta=5 * at.beta))).value,
        found.rate,
        ipodyn.certified_damping(loop_of(at, beta=5 * at.beta), rate=0.4 + at.share).value,
    ),
    ("damping_settings", ""): lambda at: (
        (found := ipodyn.damping_settings(loop_of(at), at.share)).reference,
        found.beta,
        found.gradient_time,
    ),
    ("InexactRound.step", ""): lambda at: ipodyn.InexactRound(loop_of(at), steps=2, rate=at.share).step(jnp.log(at.pi)),
    ("InexactRound.residual", ""): lambda at: ipodyn.InexactRound(loop_of(at), steps=2, rate=at.share).residual(at.pi),
    ("noise_floor", ""): lambda at: ipodyn.noise_floor(loop_of(at), num_pairs=9 * at.share),
    ("sample_size", ""): lambda at: ipodyn.sample_size(loop_of(at), 0.01 * at.share).pairs,
    ("locally_stable_certificate", ""): lambda at: ipodyn.locally_stable_certificate(loop_of(at)).radius,
    ("critical_beta", ""): lambda at: ipodyn.critical_beta(loop_of(at), largest=50.0).value,
    ("critical_alpha", ""): lambda at: ipodyn.critical_alpha(loop_of(at, beta=2 * at.beta)).value,
    ("critical_lam", ""): lambda at: ipodyn.critical_lam(loop_of(at, beta=10 * at.beta)).value,
    ("stability_boundary", ""): lambda at: (
        ipodyn.stability_boundary(
            at.C[None], alpha=at.alpha[None], lam=at.lam, pi_ref=at.ref[None], pi_0=at.mu[None], largest=50.0
        ).value
    ),
    ("stationary_covariance", "IPO"): lambda at: ipodyn.stationary_covariance(*settled(at), num_pairs=10.0).logits,
    ("stationary_covariance", "DPO"): lambda at: (
        ipodyn.stationary_covariance(*settled(at, DPO()), num_pairs=10.0).logits
    ),
    ("design_sampler", "condorcet"): lambda at: sampler_parts(
        ipodyn.design_sampler(at.P, "condorcet", smoothing=0.02 * at.share)
    ),
    ("design_sampler", "order, floor"): lambda at: sampler_parts(
        ipodyn.design_sampler(at.P, "order", floor=0.02 * at.share, smoothing=0.01)
    ),
    ("robust_sampler", ""): lambda at: sampler_parts(ipodyn.robust_sampler(*box(at), "condorcet", smoothing=0.01)),
    ("closest_sampler", ""): lambda at: (
        (found := ipodyn.closest_sampler(at.P, "condorcet", near=at.mu, fraction=at.share + 0.4)).kl,
        found.sampler.mu,
        found.sampler.margin,
        found.sampler.bound,
    ),
    ("sparsest_sampler", ""): lambda at: (
        (found := ipodyn.sparsest_sampler(at.P, "condorcet", fraction=at.share)).margin,
        found.bound,
    ),
    ("preference_intervals", "confidence"): lambda at: (
        (found := ipodyn.preference_intervals(np.arange(at.K**2).reshape(at.K, at.K), confidence=at.share)).lower,
        found.upper,
        found.confidence,
    ),
    ("condorcet_top", ""): lambda at: ipodyn.condorcet_top(at.P, jnp.log(at.pi)).margin,
    ("smith_top", ""): lambda at: ipodyn.smith_top(at.P, jnp.log(at.pi)).margin,
    ("order_preserving", ""): lambda at: ipodyn.order_preserving(at.P, jnp.log(at.pi)).margin,
    ("concentration", "IPO"): lambda at: [
        getattr(ipodyn.concentration(IPO(), at.P, at.mu, at.pi, num=3, beta=at.beta, pi_ref=at.ref), part)
        for part in ("policy", "gap", "entropy", "top", "mu")
    ],
    ("concentration", "DPO"): lambda at: ipodyn.concentration(DPO(), at.P, at.mu, at.pi, num=3, beta=at.beta).policy,
    ("concentration_condition", ""): lambda at: (
        (found := ipodyn.concentration_condition(at.P, at.mu, at.pi)).gain,
        found.margin,
        found.crossing,
    ),
    ("row_gap_monotone", ""): lambda at: ipodyn.row_gap_monotone(at.P).drop,
    ("hodge_split", ""): lambda at: (split := ipodyn.hodge_split(at.C), split.cyclic_fraction),
    ("transitivity", ""): lambda at: ipodyn.transitivity(at.P),
    ("generic_start", ""): lambda at: ipodyn.generic_start(at.pi),
    ("borda_scores", ""): lambda at: ipodyn.borda_scores(at.P),
    ("witness", "condorcet"): lambda at: ipodyn.witness(IPO(), at.mu, "condorcet", fraction=at.share),
    ("witness", "smith, DPO"): lambda at: ipodyn.witness(DPO(), at.mu, "smith", fraction=at.share),
    ("witness", "order"): lambda at: ipodyn.witness(IPO(), at.mu, "order", fraction=at.share),
    ("problems.three_cycle", ""): lambda at: problems.three_cycle(at.share),
    ("problems.cycle", ""): lambda at: problems.cycle(5, at.share),
    ("problems.two_responses", ""): lambda at: problems.two_responses(at.share),
    ("problems.bradley_terry", ""): lambda at: problems.bradley_terry(jnp.log(at.mu)),
    ("problems.thurstone", ""): lambda at: problems.thurstone(jnp.log(at.mu)),
    ("problems.overshadowed_winner", ""): lambda at: problems.overshadowed_winner(at.K, at.share),
    ("recipes.custom", ""): lambda at: recipes.custom(alpha=at.alpha, beta=at.beta, lam=at.lam).loop(at.P)(at.pi),
    ("recipes.one_shot", ""): lambda at: recipes.one_shot(beta=at.beta).loop(at.P, pi_0=at.mu)(at.pi),
    ("recipes.online", ""): lambda at: recipes.online(beta=at.beta).loop(at.P, pi_ref=at.ref)(at.pi),
    ("recipes.last_checkpoint", ""): lambda at: recipes.last_checkpoint(beta=at.beta).loop(at.P, pi_0=at.mu)(at.pi),
    ("recipes.self_rewarding", ""): lambda at: recipes.self_rewarding(beta=at.beta).loop(at.P)(at.pi),
    ("recipes.mirror_descent", ""): lambda at: recipes.mirror_descent(eta=at.share, tau=at.alpha).loop(at.P)(at.pi),
    ("recipes.nash_md", ""): lambda at: recipes.nash_md(eta=at.share, tau=at.alpha).loop(at.P)(at.pi),
    ("recipes.nash_md_policy", ""): lambda at: recipes.nash_md_policy(loop_of(at), at.pi),
}
# Properties and methods that rows above differentiate through.
INSIDE = {
    "Sampler.gap": ("design_sampler", "condorcet"),
    "Stability.margin": ("stability", "IPO"),
    "Stability.period": ("stability", "IPO"),
    "HodgeSplit.cyclic_fraction": ("hodge_split", ""),
    "recipes.Recipe.loop": ("recipes.custom", ""),
    **dict.fromkeys(
        ["MRS.round", "MRS.start", "MRS.step", "MRS.logits", "AbstractRound.policy"], ("AbstractLoop.__call__", "IPO")
    ),
    "AbstractRound.jacobian": ("stability", "DPO"),
    "IPO.response": ("AbstractLoop.__call__", "IPO"),
    "DPO.response": ("AbstractLoop.__call__", "DPO"),
    "IPO.fit_wins": ("empirical_score", "IPO"),
    "DPO.fit_wins": ("empirical_score", "DPO"),
    **dict.fromkeys(
        [f"ScoreResponse.{what}" for what in ("of", "init", "__call__", "attempt")], ("AbstractLoop.__call__", "DPO")
    ),
}

# Rows whose second derivatives are not claimed, as their documentation says.
FIRST_ORDER = {
    "stability_boundary": "its loop over blocks does not pass second derivatives; `critical_beta` has them",
    "closest_sampler": "it keeps a share of the value of a linear programme, known to first order",
    "sparsest_sampler": "the value of a linear programme, known to first order",
}

DISCRETE = "returns whole numbers or truth values"
HOST = "runs on the host, on values"
RANDOM = "draws at random: whole numbers, or samples whose distribution is what depends on the arguments"
CHECK = "checks values and returns them as NumPy arrays"
INTERFACE = "abstract: its implementations are in the table"
WORDS = "words and settings for people and trainers"
EXCEPTIONS = {
    **dict.fromkeys(
        [
            *("dominates", "classify", "condorcet_winner", "weak_condorcet_winners", "smith_set", "schwartz_set"),
            *("has_cycle", "strong_order", "copeland_scores", "Stability.stable", "Transitivity.weak"),
            *("Transitivity.moderate", "Transitivity.strong", "AbstractRound.is_iterative", "AbstractRound.result"),
            *("AbstractRound.stands", "ConvergenceCertificate.certified", "ConvergenceCertificate.rounds"),
            "ScoreResponse.result",
            *(
                "LocalCertificate.certified",
                "Basin.contains",
                "FixedPoints.unique",
            ),
        ],
        DISCRETE,
    ),
    **dict.fromkeys(
        [
            *("audit", "configure_cpu", "diagnose", "maximal_lottery", "most_violating", "smallest_sample", "sweep"),
            *("stability_map", "safe_region", "SequentialDesign.comparisons", "SequentialDesign.wins"),
            *("SequentialDesign.lower", "SequentialDesign.upper", "SequentialDesign.record"),
            *("SequentialDesign.next_pair", "SequentialDesign.certified", "SequentialDesign.sampler"),
            *("Diagnosis.at_risk", "Diagnosis.turning", "Diagnosis.riskiest", "Recommendation.result"),
            *("SmallestSample.result", "ClosestSampler.result"),
        ],
        HOST,
    ),
    **dict.fromkeys(
        [
            *("draw_wins", "finite_rollout", "finite_sweep", "FiniteOrbit.across", "sequential_runs"),
            *("bootstrap_preferences", "posterior_preferences", "regime_probabilities", "problems.random"),
            *("problems.cyclic", "problems.with_condorcet_winner", "problems.strongly_transitive"),
        ],
        RANDOM,
    ),
    **dict.fromkeys(
        [f"check_{what}" for what in ("alpha", "beta", "lam", "policy", "positive", "preference", "unit_interval")],
        CHECK,
    ),
    **dict.fromkeys(
        [
            *(f"AbstractObjective.{what}" for what in ("solve_score", "improve_score", "pair_losses", "response")),
            "AbstractObjective.fit_wins",
            *(f"AbstractLoop.{what}" for what in ("start", "step", "logits", "rest", "round")),
            *(f"AbstractRound.{what}" for what in ("start", "__call__", "logits", "attempt")),
        ],
        INTERFACE,
    ),
    **dict.fromkeys(
        [
            *("recipes.Recipe.point", "recipes.Recipe.describe", "recipes.TrlSettings.arguments"),
            *(
                "recipes.TrlSettings.describe",
                "recipes.from_trl",
                "recipes.to_trl",
                "recipes.from_config",
                "recipes.read_config",
            ),
        ],
        WORDS,
    ),
    "tune": "a search that keeps the best setting it visited: the answer moves in jumps",
    "fixed_points": "a search: how many there are and in which order moves in jumps",
    "DampingSettings.describe": WORDS,
    **dict.fromkeys(["InexactRound.pi_0", "InexactRound.start", "InexactRound.logits"], "takes a field or a logarithm"),
    "InexactRound.check_start": "raises or does nothing",
    "variance_of_average": "a statistic of simulated rounds",
    "DPO.improve_score": "one step of a solver; `DPO.solve_score` has the derivative of what it tends to",
    **dict.fromkeys(["AbstractLoop.check_start", "MRS.check_start"], "raises or does nothing"),
    "RegimeThresholds.residual_for": "a constant of the dtype",
}


def public_functions():
    """The names of all functions and methods that users see; classes that only hold results have none."""
    for prefix, module in (("", ipodyn), ("problems.", problems), ("recipes.", recipes)):
        for name, thing in vars(module).items():
            own = module is ipodyn or str(getattr(thing, "__module__", "")).startswith(module.__name__)
            if name.startswith("_") or inspect.ismodule(thing) or not callable(thing) or not own:
                continue
            if not inspect.isclass(thing):
                yield prefix + name
                continue
            for attribute, value in vars(thing).items():
                called = callable(value) or isinstance(value, (property, classmethod, staticmethod))
                called = called or hasattr(value, "__wrapped__")
                old = (getattr(value, "__doc__", None) or "").startswith("The old spelling")
                if called and not old and (attribute == "__call__" or not attribute.startswith("_")):
                    yield f"{prefix}{name}.{attribute}"


def test_every_public_function_is_differentiated_or_excused():
    names = set(public_functions())
    assert len(names) > 100  # that the search sees them
    differentiated = {name for name, _ in TABLE} | set(INSIDE)
    assert not names - differentiated - set(EXCEPTIONS), "neither in TABLE nor in EXCEPTIONS"
    assert not (differentiated | set(EXCEPTIONS)) - names, "there is no such public function"
    assert not differentiated & set(EXCEPTIONS), "both differentiated and excused"
    assert set(INSIDE.values()) <= set(TABLE)


def total(row, K):
    """A weighted sum of everything that the row returns, as a function of the local coordinates."""

    def value(x):
        parts = []
        for leaf in jax.tree.leaves(row(point(K, x))):
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                leaf = jnp.ravel(leaf)
                parts.append(jnp.where(jnp.isfinite(leaf), leaf, 0.0))  # margins of what is not asked for are infinite
        every = jnp.concatenate(parts)
        return every @ jnp.asarray(np.cos(1.0 + np.arange(every.size)), x.dtype)

    return value


STEP = 1e-5


def derivatives(f, x, d, second):
    """Value, jvp, gradient and Hessian along d, at x and one step to either side: forward over backward, in a batch."""

    def at(x):
        if not second:
            value, gradient = jax.value_and_grad(f)(x)
            return value, jax.jvp(f, (x,), (d,))[1], gradient, jnp.zeros_like(gradient)
        (value, gradient), (slope, bent) = jax.jvp(jax.value_and_grad(f), (x,), (d,))
        return value, slope, gradient, bent

    near = x[None] + STEP * jnp.asarray([[0.0], [1.0], [-1.0]], x.dtype) * d[None]
    return [np.asarray(part) for part in jax.jit(jax.vmap(at))(near)]


# Other variants of functions that have a quick row, and long to compile.
SLOW = [
    ("convergence_certificate", "DPO"),
    ("stationary_covariance", "DPO"),
    ("design_sampler", "order, floor"),
    ("gradient_optimum", "IPO"),
]
ROWS = [pytest.param(row, marks=pytest.mark.slow) if row in SLOW else row for row in TABLE]


@pytest.mark.parametrize("K", SIZES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(filter(None, row)))
def test_derivatives(rng, row, K):
    """Central differences of values against jvp and vjp, of gradients against the Hessian, which is symmetric."""
    x = np.zeros(coordinates(K))
    d = rng.uniform(-1, 1, x.size)
    f = total(TABLE[row], K)
    values, slopes, gradients, bends = derivatives(f, jnp.asarray(x), jnp.asarray(d), row[0] not in FIRST_ORDER)
    assert all(np.isfinite(part).all() for part in (values, slopes, gradients, bends))
    slope, gradient, bent = slopes[0], gradients[0], bends[0]
    # A difference has the rounding of its values over the step, and a third derivative times its square.
    size = 1 + np.abs(gradient).max() + np.abs(bent).max()
    assert abs(slope) > 1e-9, "a row whose derivative vanishes shows nothing"
    np.testing.assert_allclose(slope, (values[1] - values[2]) / (2 * STEP), rtol=1e-6, atol=1e-7 * size)
    np.testing.assert_allclose(gradient @ d, slope, rtol=1e-7, atol=1e-9 * size)
    curved = np.zeros_like(bent) if row[0] in FIRST_ORDER else (gradients[1] - gradients[2]) / (2 * STEP)
    np.testing.assert_allclose(bent, curved, rtol=1e-5, atol=1e-6 * size)
    if K > 3:  # the transformations one by one
        x, d = jnp.asarray(x), jnp.asarray(d)
        np.testing.assert_allclose(jax.jvp(f, (x,), (d,))[1], slope, rtol=1e-7, atol=1e-9 * size)
        np.testing.assert_allclose(jax.vjp(f, x)[1](jnp.ones(()))[0], gradient, rtol=1e-7, atol=1e-9 * size)
        if row[0] in FIRST_ORDER:
            return
        hessian = jax.jit(jax.hessian(f))(x)
        np.testing.assert_allclose(hessian, hessian.T, rtol=1e-6, atol=1e-8 * size)
        np.testing.assert_allclose(hessian @ d, bent, rtol=1e-7, atol=1e-8 * size)
