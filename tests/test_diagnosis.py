"""`diagnose`: the same numbers as the functions called directly, one prompt at a time; and the command around it."""

import csv
import dataclasses
import functools
import itertools
import math
import re
import types
from typing import Any

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from data_files import helpsteer
from preferences import complementary

import ipodyn
from ipodyn._diagnosis import prompts as _prompts
from ipodyn._diagnosis.diagnosis import checked_counts, sorted_quantile
from ipodyn._diagnosis.prompts import POSTERIOR_DRAWS, PRIOR, Prompts, Shared
from ipodyn._diagnosis.recommendation import recommend
from ipodyn._preferences.posterior import posterior_of_prompts

pytest.importorskip("typer")
polars = pytest.importorskip("polars")

from ipodyn._cli import output  # noqa: E402
from ipodyn._cli.app import run  # noqa: E402
from ipodyn._diagnosis.page import html_report  # noqa: E402
from ipodyn._diagnosis.words import advice  # noqa: E402

ALPHA, BETA, LAM = 0.9, 5.0, 0.8
K = 3  # one size and at most 32 prompts throughout: what compiles once serves every test
LOOP = ["--alpha", str(ALPHA), "--beta", str(BETA), "--lam", str(LAM)]


@pytest.fixture(scope="module")
def matrices():
    """Cycles of growing strength, some with a tilt, and Bradley-Terry matrices."""
    rng = np.random.default_rng(0)
    cycles = [np.asarray(ipodyn.problems.three_cycle(strength)) for strength in np.linspace(0.02, 0.45, 16)]
    tilt = np.triu(rng.uniform(-0.04, 0.04, (16, K, K)), 1)
    scores = rng.normal(size=(8, K))
    transitive = 1 / (1 + np.exp(scores[:, None] - scores[:, :, None]))
    return np.concatenate([cycles + tilt - tilt.swapaxes(1, 2), transitive])


@pytest.fixture(scope="module")
def found(matrices):
    return ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, 50))


@jax.jit
def _directly(P, alpha, beta, lam):
    loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam)
    star = ipodyn.fixed_point(loop)
    s = ipodyn.stability(loop, star.policy)
    return {
        "policy": star.policy,
        "entropy": ipodyn.entropy(star.policy),
        "drift": ipodyn.kl_divergence(star.policy, loop.pi_ref),
        "radius": s.radius,
        "omega": s.omega,
        "period": s.period,
        "stable": s.stable,
    }


def directly(P, name, alpha=ALPHA, beta=BETA, lam=LAM):
    """What the functions called one by one say of each matrix."""
    return np.array([_directly(p, alpha, beta, lam)[name] for p in np.reshape(P, (-1, K, K))])


def radius(P, **changed):
    return directly(P, "radius", **changed)


def test_numbers_are_those_of_the_functions_called_directly(matrices, found):
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        # The error of a certified fixed point is some roundings; the period of one that hardly turns amplifies it.
        expected = directly(matrices, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-8, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found.stable, directly(matrices, "stable"))
    for index in (3, 20):
        assert bool(ipodyn.has_cycle(matrices[index])) == bool(found.cyclic[index])
    # At a critical value the radius is 1, to the solver's tolerance of eps^0.6.
    crossing = 0
    for index in (3, 8, 12, 15, 20):
        for name in ("beta", "alpha", "lam"):
            value = getattr(found, f"critical_{name}")[index]
            if 0 < value < np.inf:
                crossing += 1
                np.testing.assert_allclose(radius(matrices[index], **{name: value}), 1, atol=1e-8, err_msg=name)
    assert crossing >= 8


@pytest.mark.slow
def test_critical_values_are_those_of_the_functions_called_directly(matrices, found):
    for index in range(0, len(matrices), 3):
        loop = ipodyn.MRS(matrices[index], alpha=ALPHA, beta=BETA, lam=LAM)
        for name in ("beta", "alpha", "lam"):
            value = getattr(ipodyn, f"critical_{name}")(loop).value
            np.testing.assert_allclose(getattr(found, f"critical_{name}")[index], value, rtol=1e-8, err_msg=name)


def test_the_worst_triangle_by_hand(rng):
    P = complementary(rng.uniform(0, 1, (32, 5, 5)))
    A, found = P - 0.5, Prompts.of(P, shared(K=5)).structure(np.arange(32))
    for index, (i, j, k) in enumerate(np.asarray(found.triangle).T):
        curls = [
            abs(A[index, a, b] + A[index, b, c] + A[index, c, a]) for a, b, c in itertools.combinations(range(5), 3)
        ]
        curl = A[index, i, j] + A[index, j, k] + A[index, k, i]
        np.testing.assert_allclose([curl, found.curl[index]], max(curls), atol=1e-12)
        np.testing.assert_allclose(found.triangle_share[index], curl**2 / np.sum(np.square(curls)), rtol=1e-9)


def cycle_of_radius(radius, alpha=ALPHA, beta=BETA, lam=LAM):
    """The three-cycle whose uniform fixed point has that radius: alpha^2 + (a beta lam)^2 / 3 = radius^2."""
    return np.asarray(ipodyn.problems.three_cycle(math.sqrt(3 * (radius**2 - alpha**2)) / (beta * lam)))


def favourite(edge):
    """Response 0 beats both others by `edge`, which tie: linear utility, P_ij - 1/2 = s_i - s_j, s = (edge, 0, 0).

    Its scores are the same for every sampling, so that the fixed point is softmax(kappa s), kappa = beta / (1 - alpha),
    and the radius alpha: nothing turns.
    """
    s = np.array([edge, 0, 0])
    return 0.5 + s[:, None] - s[None]


def favourite_of_entropy(entropy, alpha=ALPHA, beta=BETA):
    """The same by the entropy of its fixed point (1 - q, q / 2, q / 2)."""

    def excess(q):
        return -(1 - q) * math.log(1 - q) - q * math.log(q / 2) - entropy

    q: Any = scipy.optimize.brentq(excess, 1e-12, 2 / 3)
    return favourite((1 - alpha) / beta * math.log(2 * (1 - q) / q))


# (verdict, the prompt, its radius, its entropy), all known without solving anything.
KNOWN = [
    ("unstable", cycle_of_radius(1.3), 1.3, math.log(3)),
    ("unstable", cycle_of_radius(1.001), 1.001, math.log(3)),
    ("close", cycle_of_radius(0.999), 0.999, math.log(3)),
    ("close", cycle_of_radius(0.951), 0.951, math.log(3)),
    ("calm", cycle_of_radius(0.949), 0.949, math.log(3)),
    ("calm", np.full((3, 3), 0.5), ALPHA, math.log(3)),
    ("calm", favourite_of_entropy(0.055 * math.log(3)), ALPHA, 0.055 * math.log(3)),
    ("collapsed", favourite_of_entropy(0.045 * math.log(3)), ALPHA, 0.045 * math.log(3)),
    ("collapsed", favourite_of_entropy(0.001), ALPHA, 0.001),
]
RISKIEST = [0, 1, 2, 3, 8, 7]  # unstable ones by radius, close ones by radius, collapsed ones by entropy


def test_verdicts_known_from_theory():
    shuffled = np.random.default_rng(0).permutation(len(KNOWN))
    found = ipodyn.diagnose(np.stack([KNOWN[case][1] for case in shuffled]), alpha=ALPHA, beta=BETA, lam=LAM)
    assert found.verdict.tolist() == [KNOWN[case][0] for case in shuffled]
    np.testing.assert_allclose(found.radius, [KNOWN[case][2] for case in shuffled], atol=1e-9)
    np.testing.assert_allclose(found.entropy, [KNOWN[case][3] for case in shuffled], atol=1e-9)
    np.testing.assert_allclose(found.drift, math.log(3) - found.entropy, atol=1e-9)  # from a uniform reference
    assert [shuffled[index] for index in found.riskiest()] == RISKIEST
    assert sorted(shuffled[found.at_risk]) == sorted(RISKIEST) and found.number("close") == 2
    assert sorted(shuffled[found.turning]) == [0, 1, 2, 3]  # a period is said of what is unstable or close to it
    assert sorted(shuffled[~found.stable]) == [0, 1]
    # alpha is the radius of what does not turn: close comes before collapsed, alpha = 0.95 counts as close.
    slow = ipodyn.diagnose(np.stack([favourite_of_entropy(0.001, alpha=0.95)]), alpha=0.95, beta=BETA, lam=LAM)
    assert slow.verdict.tolist() == ["close"] and slow.number("collapsed") == 0


def test_prompts_without_finite_scores_are_unknown_and_count_as_unsafe():
    """MRS-DPO with a response that always wins has no fixed point at any setting."""
    certain = np.array([[[0.5, 1, 1], [0, 0.5, 0.7], [0, 0.3, 0.5]]])
    found = ipodyn.diagnose(certain, alpha=0.5, beta=1.0, lam=0.5, objective=ipodyn.DPO())
    assert found.verdict.tolist() == ["unknown"] and found.riskiest().tolist() == [0]
    for name in ("policy", "entropy", "drift", "radius", "omega", "period", "critical_beta"):
        assert np.isnan(getattr(found, name)).all(), name
    assert found.safe_beta(1.0) == found.safe_alpha(1.0) == found.safe_lam(1.0) == 0
    assert (found.recommendation.changed, found.recommendation.share) == ("infeasible", 0)


def test_the_edge_of_the_safe_region_by_hand(found):
    """Of 25 prompts, those that reach a value; a critical value that is not known counts as 0."""
    values = np.arange(1.0, 26.0)
    for name in ("beta", "alpha", "lam"):

        def edge(share, values, name=name):
            diagnosis = dataclasses.replace(found, **{f"critical_{name}": values})
            return getattr(diagnosis, f"safe_{name}")(share)

        mixed = values[::-1]
        # All 25 reach 1, 24 of them 2, 13 reach 13, and 14 reach 12, though 0.56 * 25 rounds to more than 14.
        assert 0.56 * 25 > 14 and [edge(share, mixed) for share in (1.0, 0.96, 0.52, 0.56)] == [1, 2, 13, 12]
        unknown = np.where(mixed == 13, np.nan, mixed)
        assert [edge(share, unknown) for share in (1.0, 0.96, 0.92)] == [0, 1, 2]
        assert edge(1.0, np.full(25, np.inf)) == np.inf


def settled(a, count):
    return [np.asarray(ipodyn.problems.three_cycle(a))] * count


def test_recommendations_known_from_theory():
    """Three-cycles of strength a leave no margin where alpha^2 + (a beta lam)^2 / 3 reaches 0.95^2."""

    def largest_beta(a, alpha):
        return math.sqrt(3 * (0.95**2 - alpha**2)) / (a * LAM)

    # Of 20 prompts one may be left without margin: the second strength decides, to the last bisection.
    P = np.stack([*settled(0.45, 1), *settled(0.3, 1), *settled(0.05, 18)])
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=BETA, lam=LAM).recommendation
    limit = largest_beta(0.3, ALPHA)
    assert (best.changed, best.alpha, best.lam, best.share) == ("beta", ALPHA, LAM, 0.95)
    assert limit * (1 - 2 ** (1 / 8 - 1) / 2**10) < best.beta < limit
    # There the setting stays as it is; with a second one of that strength it does not.
    kept = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM).recommendation
    assert (kept.changed, kept.beta, kept.share) == ("nothing", 0.999 * limit, 0.95)
    P[2] = P[0]
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM).recommendation
    assert best.changed == "beta" and 0.998 * largest_beta(0.45, ALPHA) < best.beta < largest_beta(0.45, ALPHA)
    # Where alpha alone is too much, no beta helps: alpha then has to fall below 0.95.
    P = np.stack(settled(0.01, 1))
    best = ipodyn.diagnose(P, alpha=0.98, beta=1.0, lam=LAM).recommendation
    limit = math.sqrt(0.95**2 - (0.01 * LAM) ** 2 / 3)
    assert best.changed == "alpha" and limit - 0.98 / 32 / 2**10 < best.alpha < limit and best.beta == 1
    # And where beta alone is too much as well, neither suffices.
    worst = ipodyn.diagnose(np.stack(settled(0.45, 1)), alpha=0.98, beta=BETA, lam=LAM).recommendation
    assert (worst.changed, worst.alpha, worst.beta, worst.share) == ("infeasible", 0.98, BETA, 0)


def test_a_margin_to_collapse_is_asked_of_the_entropy():
    """Favourites: the entropy must stay above 10 % of log 3, and falls with kappa = beta / (1 - alpha) alone."""
    P = np.stack([favourite_of_entropy(0.1 * math.log(3))])
    for beta, changed in ((0.99 * BETA, "nothing"), (1.01 * BETA, "beta")):
        best = ipodyn.diagnose(P, alpha=ALPHA, beta=beta, lam=LAM).recommendation
        assert best.changed == changed and 0.98 * BETA < best.beta < BETA


def shared(alpha=ALPHA, beta=BETA, lam=LAM, K=K):
    uniform = np.full(K, 1 / K)
    return Shared(np.array(alpha), np.array(beta), np.array(lam), uniform, uniform, ipodyn.IPO())


def test_the_share_is_of_all_prompts_also_those_that_cannot_settle():
    """Of 32 prompts one is left out, as those without finite scores are: 31 of 32 settle, not 31 of 31."""
    prompts = Prompts.of(np.stack(settled(0.3, 32)), shared())
    best = recommend(prompts, np.arange(31), 0.0, ALPHA, BETA, LAM)
    assert (best.changed, best.share) == ("beta", 31 / 32)
    # With 30 of 32 there is nothing to look for.
    assert recommend(prompts, np.arange(30), 0.0, ALPHA, BETA, LAM).changed == "infeasible"


def test_the_safe_region_is_safe_and_its_edge_is_the_edge(matrices, found):
    edge = found.safe_beta(1.0)
    assert edge == found.critical_beta.min()
    assert (radius(matrices, beta=0.999 * edge) < 1).all() and (radius(matrices, beta=1.001 * edge) >= 1).any()
    half = found.safe_beta(0.5)
    assert np.mean(found.critical_beta >= half) >= 0.5 > np.mean(found.critical_beta > half)
    best = found.recommendation
    assert (best.changed, best.alpha, best.lam) == ("beta", ALPHA, LAM) and best.beta < BETA
    assert np.mean(radius(matrices, beta=best.beta) < 0.95) >= 0.95 > np.mean(radius(matrices, beta=BETA) < 0.95)
    # A hundredth more is too much: for the radius of one more prompt, or its entropy.
    spread = directly(matrices, "entropy", beta=1.01 * best.beta)
    margin = (radius(matrices, beta=1.01 * best.beta) < 0.95) & (spread >= 0.1 * math.log(K))
    assert margin.mean() < 0.95


def test_uncertainty_narrows_with_counts(matrices, found):
    sure = ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, 1_000_000))
    decided = np.abs(found.radius - 1) > 0.01
    assert ((sure.stable_probability > 0.5) == found.stable)[decided].all()
    assert (np.minimum(sure.stable_probability, 1 - sure.stable_probability)[decided] < 0.02).all()
    assert (sure.radius_high - sure.radius_low <= found.radius_high - found.radius_low + 1e-3).all()
    assert ((sure.radius_low <= found.radius + 1e-2) & (found.radius <= sure.radius_high + 1e-2)).all()
    for field in dataclasses.fields(found):
        if field.name not in ("stable_probability", "radius_low", "radius_high", "recommendation"):
            np.testing.assert_array_equal(getattr(sure, field.name), getattr(found, field.name))


posterior_draws = functools.partial(posterior_of_prompts, num_draws=POSTERIOR_DRAWS, prior=PRIOR)


def table(wins, losses):
    """Counts (..., K, K) of those of the pairs i < j."""
    counts = np.zeros((*wins.shape[:-1], K, K))
    i, j = np.triu_indices(K, 1)
    counts[..., i, j], counts[..., j, i] = wins, losses
    return counts


def test_the_posterior_is_jeffreys():
    """Moments of Beta(W + 1/2, L + 1/2), for pairs compared often, once and never: within five standard errors."""
    wins, losses = np.array([8.0, 1.0, 0.0]), np.array([2.0, 0.0, 0.0])
    number = 4000
    drawn = posterior_draws(0, np.arange(number), np.tile(table(wins, losses), (number, 1, 1))).reshape(-1, 3)
    expected = scipy.stats.beta(wins + 0.5, losses + 0.5)
    error = expected.std() / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected.mean()) < 5 * error).all()
    # The error of a variance is that of the squares; the fourth moments are at most those of a coin, 1 / 16.
    assert (np.abs(drawn.var(axis=0) - expected.var()) < 5 * 0.25 / np.sqrt(len(drawn))).all()


def test_draws_of_a_prompt_are_its_own(matrices, found):
    """What is drawn depends on the seed and the place of the prompt: not on what stands next to it, nor on blocks."""
    wins = np.random.default_rng(0).uniform(0, 9, (10, 3))
    counts = table(wins, wins[::-1])
    every = posterior_draws(5, np.arange(10), counts)
    some = posterior_draws(5, np.array([3, 7]), counts[[3, 7]])
    np.testing.assert_array_equal(some, every[[3, 7]])
    same = posterior_draws(5, np.arange(2), counts[[0, 0]])
    assert not np.isin(same[0], same[1]).any()  # equal prompts have draws of their own
    assert not np.isin(every, posterior_draws(6, np.arange(10), counts)).any()  # and so has another seed

    counts = np.full(matrices.shape, 50.0)
    prompts = Prompts.of(matrices, shared())
    radius = prompts.posterior_radius(np.arange(20), counts, 0)
    small = dataclasses.replace(prompts, size=8, blocks=2)
    # Vectors of another width round differently.
    np.testing.assert_allclose(small.posterior_radius(np.arange(15, 20), counts, 0), radius[15:], rtol=1e-9)
    np.testing.assert_array_equal(np.mean(radius < 1, axis=1), found.stable_probability[:20])


def test_uncertainty_is_that_of_the_draws(matrices, found):
    """Share and quantiles of the radius over draws of P, each solved by itself."""
    i, j = np.triu_indices(K, 1)
    for index in (9, 20):
        wins = 50 * matrices[index]
        drawn = posterior_draws(0, np.array([index]), wins[None])[0]
        P = np.full((len(drawn), K, K), 0.5)
        P[:, i, j], P[:, j, i] = drawn, 1 - drawn
        radii = radius(P)
        assert found.stable_probability[index] == np.mean(radii < 1)
        low, high = np.quantile(radii, (0.05, 0.95))
        np.testing.assert_allclose([found.radius_low[index], found.radius_high[index]], [low, high], rtol=1e-8)


def test_quantiles_next_to_draws_that_were_not_solved():
    rows = np.stack([np.arange(64.0), np.where(np.arange(64) < 60, np.arange(64), np.inf), np.full(64, np.inf)])
    for share, expected in ((0.05, [3.15, 3.15, np.inf]), (0.95, [59.85, np.inf, np.inf])):
        np.testing.assert_allclose(sorted_quantile(rows, share), expected)


def test_counts_that_make_no_sense_are_refused(matrices):
    for counts, words in ((np.ones((3, 3)), "must be \\(24, 3, 3\\)"), (-np.ones(matrices.shape), "0 or more")):
        with pytest.raises(ValueError, match=words):
            checked_counts(counts, matrices)
    with pytest.raises(ValueError, match="0 or more"):
        ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices.shape, np.nan))


def test_progress_covers_everything_that_is_computed(matrices, monkeypatch):
    """It goes up, reaches the whole only at the very end, and moves with every kind of work, the posterior too."""
    events = []
    real = _prompts.run_points

    def recorded(kernel, *arguments, **options):
        events.append(kernel.__name__)
        return real(kernel, *arguments, **options)

    monkeypatch.setattr(_prompts, "run_points", recorded)
    counts = np.full(matrices.shape, 50)
    M = len(matrices)
    ipodyn.diagnose(matrices, alpha=ALPHA, beta=BETA, lam=LAM, counts=counts, progress=lambda *at: events.append(at))
    assert events[:4] == ["_structure", "_facts", "_critical", (0, M)]  # compiled before the clock starts
    del events[:4]
    at = [event for event in events if isinstance(event, tuple)]
    done = [number for number, total in at]
    assert {total for _, total in at} == {M} and done == sorted(done) and done.count(M) == 1 and events[-1] == (M, M)
    # Half of the work of one prompt after the other is its posterior: many calls, and the bar moves in each.
    critical, posterior = events.index("_critical"), events.index("_facts", events.index("_critical"))
    before = max(event[0] for event in events[:posterior] if isinstance(event, tuple))
    after = [event for event in events[posterior + 1 :] if isinstance(event, tuple)]
    assert critical < posterior and len(after) >= 10 and 0.3 * M < before < 0.6 * M < after[-2][0] < M


def test_an_unanchored_loop_is_called_so(matrices):
    found = ipodyn.diagnose(matrices, alpha=1, beta=1, lam=1, counts=np.full(matrices.shape, 50))
    assert set(found.verdict) == {"unanchored"} and not found.stable.any() and np.isnan(found.radius).all()
    # No draw of P has a fixed point either: none counts as stable.
    assert (found.stable_probability == 0).all() and (found.radius_low == np.inf).all()
    assert found.recommendation.changed == "alpha" and found.recommendation.alpha < 1


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(matrices, tmp_path_factory):
    path = tmp_path_factory.mktemp("diagnose")
    np.save(path / "P.npy", matrices)
    assert run(["diagnose", str(path / "P.npy"), *LOOP, "--out", str(path / "out")]) == 0
    return path / "out"


def test_the_command_writes_what_the_function_finds(folder, found):
    assert {path.name for path in folder.iterdir()} == {
        "diagnosis.csv",
        "diagnosis.parquet",
        "report.html",
        "report.txt",
    }
    rows, frame = read(folder / "diagnosis.csv"), polars.read_parquet(folder / "diagnosis.parquet")
    assert len(rows) == len(found) == frame.height
    for name in ("radius", "entropy", "drift", "critical_beta", "curl"):
        np.testing.assert_allclose([float(row[name]) for row in rows], getattr(found, name), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(frame[name].to_numpy(), getattr(found, name), rtol=1e-9, err_msg=name)
    assert [row["verdict"] for row in rows] == found.verdict.tolist() == frame["verdict"].to_list()
    for index, row in enumerate(rows):
        members = row["responses"].split()
        names = [members[place] for place in found.triangle[index]]
        assert row["cycle"] == " → ".join([*names, names[0]])
        assert bool(row["why"]) == bool(found.at_risk[index])
    text = (folder / "report.txt").read_text()
    assert "Lower beta from 5 to" in text and "\x1b" not in text
    assert f"{100 * found.stable.mean():.1f} %" in text and "hold no counts" in text


def test_the_page_refers_to_nothing_outside_and_escapes(folder, tmp_path, found, monkeypatch):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<iframe|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(|src=", page)
    assert page.count("<svg") == page.count('role="img"') == page.count("<desc>") == 4
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    P = np.stack([ipodyn.problems.three_cycle(0.4)])
    evil = np.array([["<script>alert(1)</script>", "b", "c"]])
    np.savez(tmp_path / "evil.npz", P=P, prompts=np.array(["<img src=x>"]), responses=evil)
    out = tmp_path / "out"
    assert run(["diagnose", str(tmp_path / "evil.npz"), "--out", str(out), "--alpha", "0.9"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "<img" not in page


def test_the_page_of_many_prompts_is_as_small_as_that_of_few(found):
    """It lists the worst twenty and counts the rest: of 400 times as many prompts only the numbers get longer."""

    def repeated(value, times):
        return np.concatenate([value] * times) if isinstance(value, np.ndarray) else value

    def page(times):
        fields: dict[str, Any] = {
            field.name: repeated(getattr(found, field.name), times) for field in dataclasses.fields(found)
        }
        many = ipodyn.Diagnosis(**fields)
        return html_report(
            many,
            prompts=np.arange(len(many)),
            responses=np.tile(np.arange(K), (len(many), 1)),
            source="",
            data_lines=[],
            recipe_lines=[],
            advice=advice(many),
            uncertainty=[],
            created="",
            version="",
        )

    few, many = page(4), page(1600)
    assert "38,400" in many and len(many) < 1.05 * len(few)
    assert many.count("<tr>") == few.count("<tr>") == 1 + len(set(found.verdict)) + 1 + 20


def test_the_remaining_time_is_that_of_the_work_not_of_compiling(monkeypatch, capsys):
    """Fifty seconds until the work begins, then one a prompt: what is said to be left is one second a prompt."""
    clock = [0.0]
    monkeypatch.setattr(output, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    with output.Progress(100, "work") as bar:
        clock[0] = 50.0
        for done in range(101):
            bar(done, 100)
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    said = [re.fullmatch(r"work: (\d+)%, about (\d+) s left", line) for line in lines]
    assert len(said) == 10 and all(match and int(match[1]) + int(match[2]) == 100 for match in said)


def test_counts_of_judged_pairs_reach_the_report(tmp_path, capsys):
    rows = ["prompt_id,first,second,score,weight"]
    for prompt in range(2):
        for a, b in ((0, 1), (1, 2), (2, 0)):
            rows += [f"{prompt},{a},{b},1,{8 if prompt else 80}", f"{prompt},{a},{b},0,{2 if prompt else 20}"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    loaded = ipodyn.data.load_pairs(tmp_path / "pairs.csv")
    assert loaded.counts is not None
    np.testing.assert_array_equal(loaded.counts[:, 0, 1], [100, 10])
    loaded.save(tmp_path / "set.npz")
    np.testing.assert_array_equal(ipodyn.data.load_preferences(tmp_path / "set.npz").counts, loaded.counts)
    out = tmp_path / "out"
    assert (
        run(["diagnose", str(tmp_path / "pairs.csv"), "--recipe", "online", "--trl-beta", "0.25", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "online, DPO" in printed and "beta  = 4" in printed and "From the counts" in printed
    wide, narrow = (
        float(row["radius_high"]) - float(row["radius_low"]) for row in reversed(read(out / "diagnosis.csv"))
    )
    assert wide > narrow > 0


def test_helpsteer_from_a_file(tmp_path, rng):
    file = helpsteer(tmp_path / "train.jsonl.gz", rng, prompts=12)
    out = tmp_path / "out"
    assert run(["diagnose", "--helpsteer", str(file), *LOOP, "--out", str(out)]) == 0
    rows = read(out / "diagnosis.csv")
    expected = ipodyn.data.load_helpsteer(file)
    assert len(rows) == len(expected.P) == 12  # the first prompt gives two groups, the last none
    loop = ipodyn.MRS(expected.P[5], alpha=ALPHA, beta=BETA, lam=LAM)
    radius = ipodyn.stability(loop, ipodyn.fixed_point(loop).policy).radius
    np.testing.assert_allclose(float(rows[5]["radius"]), radius, rtol=1e-8)
    assert "HelpSteer train.jsonl.gz" in (out / "report.html").read_text(encoding="utf-8")


# (arguments, what the line must say); {} is the folder with the files.
BAD = {
    "no such file": (["{}/absent.csv"], "no such file"),
    "two sets": (["{}/a.csv", "--problem", "three_cycle"], "one set of data"),
    "two sets by options": (["--pairs", "{}/a.csv", "--problem", "three_cycle"], "not --pairs and --problem"),
    "missing column": (["{}/a.csv"], "no column"),
    "ratings without prompt": (["{}/a.csv", "--attributes", "wit"], "--ratings needs --prompt COL"),
    "both betas": (["--beta", "1", "--trl-beta", "1"], "--beta or --trl-beta"),
    "trl beta of zero": (["--trl-beta", "0"], "--trl-beta is 0"),
    "beta negative": (["--beta", "-1"], "`beta` is -1.0"),
    "alpha above 1": (["--alpha", "1.5"], "`alpha` is 1.5"),
    "lam as text": (["--lam", "all"], "--lam"),
    "unknown recipe": (["--recipe", "ppo"], "choose one-shot, online"),
    "recipe with alpha": (["--recipe", "online", "--alpha", "0.5"], "--alpha goes with"),
    "recipe without its step": (["--recipe", "nash-md"], "needs --eta"),
    "recipe with beta": (["--recipe", "nash-md", "--beta", "2"], "--beta goes with"),
    "step without recipe": (["--eta", "1"], "--eta goes with"),
    "step too large": (["--recipe", "mirror-descent", "--eta", "3", "--tau", "1"], "`eta * tau` is 3"),
    "folder is a file": (["--out", "{}/a.csv"], "is a file"),
    "report there already": (["--out", "{}"], "--overwrite"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line(case, tmp_path, capsys):
    arguments, words = BAD[case]
    (tmp_path / "a.csv").write_text("prompt,wit\n1,2\n")
    (tmp_path / "report.html").write_text("mine")
    code = run(["diagnose", "--out", str(tmp_path / "out"), *(argument.format(tmp_path) for argument in arguments)])
    printed = capsys.readouterr()
    assert code == 2 and printed.err.count("\n") == 1 and words in printed.err, printed.err
    assert not (tmp_path / "out").exists() and (tmp_path / "report.html").read_text() == "mine"
