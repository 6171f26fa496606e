"""`diagnose`: the same numbers as the functions called directly, one prompt at a time; verdicts known from theory."""

import itertools
import math

import diagnosed
import numpy as np
import pytest
from diagnosed import ALPHA, BETA, LAM, cycle_of_radius, directly, favourite_of_entropy, radius, shared
from preferences import complementary

import ipodyn
from ipodyn._diagnosis import prompts as _prompts
from ipodyn._diagnosis.prompts import Prompts
from ipodyn._diagnosis.verdicts import verdicts


@pytest.fixture(scope="module")
def matrices():
    return diagnosed.matrices()


@pytest.fixture(scope="module")
def found():
    return diagnosed.found()


def test_numbers_are_those_of_the_functions_called_directly(matrices, found):
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        # The error of a certified fixed point is some roundings; the period of one that hardly turns amplifies it.
        expected = directly(matrices, name)
        np.testing.assert_allclose(getattr(found.equilibrium, name), expected, rtol=1e-8, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found.equilibrium.stable, directly(matrices, "stable"))
    for index in (3, 20):
        assert bool(ipodyn.has_cycle(matrices[index])) == bool(found.preferences.cyclic[index])
    # At a critical value the radius is 1, to the solver's tolerance of eps^0.6.
    crossing = 0
    for index in (3, 8, 12, 15, 20):
        for name in ("beta", "alpha", "lam"):
            value = getattr(found.limits, name)[index]
            if 0 < value < np.inf:
                crossing += 1
                np.testing.assert_allclose(radius(matrices[index], **{name: value}), 1, atol=1e-8, err_msg=name)
    assert crossing >= 8
    values = np.stack([found.limits.alpha, found.limits.beta, found.limits.lam], axis=1)
    expected = {"stable_throughout": np.isinf(values), "unstable_throughout": values == 0}
    for name, where in {**expected, "successful": (values > 0) & np.isfinite(values)}.items():
        np.testing.assert_array_equal(found.limits.result == getattr(ipodyn.RESULTS, name), where, err_msg=name)


@pytest.mark.slow
def test_critical_values_are_those_of_the_functions_called_directly(matrices, found):
    for index in range(0, len(matrices), 3):
        loop = ipodyn.MRS(matrices[index], alpha=ALPHA, beta=BETA, lam=LAM)
        for name in ("beta", "alpha", "lam"):
            value = getattr(ipodyn, f"critical_{name}")(loop).value
            np.testing.assert_allclose(getattr(found.limits, name)[index], value, rtol=1e-8, err_msg=name)


def test_the_worst_triangle_by_hand(rng):
    P = complementary(rng.uniform(0, 1, (32, 5, 5)))
    A, found = P - 0.5, Prompts.of(P, shared(K=5)).structure(np.arange(32))
    for index, (i, j, k) in enumerate(np.asarray(found.triangle).T):
        curls = [
            abs(A[index, a, b] + A[index, b, c] + A[index, c, a]) for a, b, c in itertools.combinations(range(5), 3)
        ]
        curl = A[index, i, j] + A[index, j, k] + A[index, k, i]
        np.testing.assert_allclose([curl, found.curl[index]], max(curls), atol=1e-12)
        np.testing.assert_allclose(found.triangle_fraction[index], curl**2 / np.sum(np.square(curls)), rtol=1e-9)


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


RISKIEST = [0, 1, 8, 7, 2, 3]  # unstable ones by radius, collapsed ones by entropy, close ones by radius


def test_verdicts_known_from_theory():
    shuffled = np.random.default_rng(0).permutation(len(KNOWN))
    found = ipodyn.diagnose(np.stack([KNOWN[case][1] for case in shuffled]), alpha=ALPHA, beta=BETA, lam=LAM)
    words = verdicts(found.equilibrium, ALPHA)
    assert words.tolist() == [KNOWN[case][0] for case in shuffled]
    radius, entropy = (np.array([KNOWN[case][place] for case in shuffled]) for place in (2, 3))
    np.testing.assert_allclose(found.equilibrium.radius, radius, atol=1e-9)
    np.testing.assert_allclose(found.equilibrium.entropy, entropy, atol=1e-9)
    np.testing.assert_allclose(found.equilibrium.drift, math.log(3) - entropy, atol=1e-9)  # from a uniform reference
    grade = np.select([radius >= 1, radius >= 0.95], ["unstable", "close"], "stable")
    np.testing.assert_array_equal(found.equilibrium.grade, grade)
    np.testing.assert_array_equal(found.equilibrium.close, grade == "close")
    np.testing.assert_array_equal(found.equilibrium.unstable, grade == "unstable")
    np.testing.assert_array_equal(found.equilibrium.collapses, entropy < 0.05 * math.log(3))
    assert [shuffled[index] for index in found.riskiest()] == RISKIEST
    assert sorted(shuffled[found.at_risk]) == sorted(RISKIEST)
    assert sorted(shuffled[found.turning]) == [0, 1, 2, 3]  # a period is said of what is unstable or close to it
    assert sorted(shuffled[~found.equilibrium.stable]) == [0, 1]
    # alpha is the radius of what does not turn: it is no sign of instability, and hides no collapse.
    slow = ipodyn.diagnose(np.stack([favourite_of_entropy(0.001, alpha=0.95)]), alpha=0.95, beta=BETA, lam=LAM)
    assert verdicts(slow.equilibrium, 0.95).tolist() == ["collapsed"]
    assert slow.equilibrium.collapses.all() and not (slow.equilibrium.close | slow.turning).any()


@pytest.mark.parametrize(("alpha", "edge"), [(0.5, 0.95), (0.9, 0.95), (0.95, 0.975), (0.99, 0.995)])
def test_close_is_relative_to_alpha(alpha, edge):
    """The radius is alpha at least: close to the boundary is from 0.95 on, or half way from alpha to 1."""
    cycles = [cycle_of_radius(radius, alpha=alpha) for radius in (edge - 1e-4, edge + 1e-4)]
    found = ipodyn.diagnose(np.stack(cycles), alpha=alpha, beta=BETA, lam=LAM)
    assert found.equilibrium.close.tolist() == [False, True]
    # A turn of 2 pi / theta rounds, cos theta = alpha / radius, leaves radius^rounds of a deviation: 5 % show.
    left = edge ** (2 * math.pi / math.acos(alpha / (edge + 1e-4)))
    assert found.turning.tolist() == [False, left >= 0.05]


def test_the_cycle_is_the_one_that_the_policy_runs_through(rng):
    """Curls weighed by sqrt(pi_i pi_j pi_k), by hand; a larger curl among responses that have died does not count."""
    P = complementary(rng.uniform(0, 1, (32, 5, 5)))
    found = ipodyn.diagnose(P, alpha=0.5, beta=3.0, lam=1.0)
    for index, (i, j, k) in enumerate(found.equilibrium.cycle):
        A, policy = P[index] - 0.5, found.equilibrium.policy[index]

        def weighed(a, b, c, A=A, policy=policy):
            return (A[a, b] + A[b, c] + A[c, a]) * math.sqrt(policy[a] * policy[b] * policy[c])

        largest = max(abs(weighed(*triple)) for triple in itertools.combinations(range(5), 3))
        np.testing.assert_allclose(weighed(i, j, k), largest, rtol=1e-9)
        np.testing.assert_allclose(found.equilibrium.cycle_mass[index], policy[[i, j, k]].sum(), rtol=1e-12)
    assert any(set(a) != set(b) for a, b in zip(found.equilibrium.cycle, found.preferences.triangle, strict=True))


def test_prompts_without_finite_scores_are_unknown_and_count_as_unsafe():
    """MRS-DPO with a response that always wins has no fixed point at any setting."""
    certain = np.array([[[0.5, 1, 1], [0, 0.5, 0.7], [0, 0.3, 0.5]]])
    found = ipodyn.diagnose(certain, alpha=0.5, beta=1.0, lam=0.5, objective=ipodyn.DPO())
    assert verdicts(found.equilibrium, 0.5).tolist() == ["unknown"] and found.riskiest().tolist() == [0]
    assert found.equilibrium.grade.tolist() == ["unresolved"] and found.equilibrium.diverging.all()
    assert np.asarray(found.limits.result == ipodyn.RESULTS.diverging_scores).all()
    assert found.recommendation.result == ipodyn.RESULTS.infeasible
    for name in ("policy", "entropy", "drift", "radius", "omega", "period"):
        assert np.isnan(getattr(found.equilibrium, name)).all(), name
    assert found.limits.safe("beta", 1.0) == found.limits.safe("alpha", 1.0) == found.limits.safe("lam", 1.0) == 0
    assert (found.recommendation.changed, found.recommendation.fraction) == ("infeasible", 0)


def test_an_unanchored_loop_is_called_so(matrices):
    found = ipodyn.diagnose(matrices, alpha=1, beta=1, lam=1, counts=np.full(matrices.shape, 50))
    assert set(verdicts(found.equilibrium, 1.0)) == {"unanchored"} and set(found.equilibrium.grade) == {"unresolved"}
    assert not found.equilibrium.stable.any() and np.isnan(found.equilibrium.radius).all()
    assert (np.asarray(found.equilibrium.result == ipodyn.RESULTS.no_fixed_point)).all()
    # No draw of P has a fixed point either: none counts as stable.
    assert (found.uncertainty.stable_probability == 0).all() and (found.uncertainty.radius_low == np.inf).all()
    assert found.recommendation.changed == "alpha" and found.recommendation.alpha < 1


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
    compiled = ["_structure", "_certified", "_facts", "_critical", (0, M)]  # before the clock starts
    assert events[: len(compiled)] == compiled
    del events[: len(compiled)]
    at = [event for event in events if isinstance(event, tuple)]
    done = [number for number, total in at]
    assert {total for _, total in at} == {M} and done == sorted(done) and done.count(M) == 1 and events[-1] == (M, M)
    # Half of the work of one prompt after the other is its posterior: many calls, and the bar moves in each.
    critical, posterior = events.index("_critical"), events.index("_facts", events.index("_critical"))
    before = max(event[0] for event in events[:posterior] if isinstance(event, tuple))
    after = [event for event in events[posterior + 1 :] if isinstance(event, tuple)]
    assert critical < posterior and len(after) >= 10 and 0.3 * M < before < 0.6 * M < after[-2][0] < M


# Where each attribute of a diagnosis without parts is now.
MOVED = {
    "preferences": ("cyclic", "strongly_transitive", "triangle", "curl"),
    "equilibrium": ("policy", "entropy", "drift", "solved", "residual", "radius", "omega", "period", "stable"),
    "uncertainty": ("counted", "stable_probability", "radius_low", "radius_high"),
}


def test_old_spellings_say_where_things_are_now(found):
    def old(name):
        with pytest.warns(DeprecationWarning, match=rf"`Diagnosis\.{name}` is .* use `Diagnosis\.\w+\.\w+`"):
            return getattr(found, name)

    for part, name in ((part, name) for part, names in MOVED.items() for name in names):
        np.testing.assert_array_equal(old(name), getattr(getattr(found, part), name), err_msg=name)
    for name in ("cyclic", "triangle"):
        np.testing.assert_array_equal(old(f"{name}_share"), getattr(found.preferences, f"{name}_fraction"))
    for name in ("alpha", "beta", "lam"):
        np.testing.assert_array_equal(old(f"critical_{name}"), getattr(found.limits, name))
        assert old(f"safe_{name}")(0.9) == found.limits.safe(name, 0.9)
    words = verdicts(found.equilibrium, ALPHA)
    np.testing.assert_array_equal(old("verdict"), words)
    assert old("number")("calm") == (words == "calm").sum() > 0
