"""The safe region and the setting that is recommended: by hand, and known from theory."""

import dataclasses
import math

import diagnosed
import numpy as np
import pytest
from diagnosed import ALPHA, BETA, LAM, K, directly, favourite_of_entropy, radius, settled, shared
from preferences import complementary

import ipodyn
from ipodyn._diagnosis.prompts import Prompts
from ipodyn._diagnosis.recommendation import recommend


@pytest.fixture(scope="module")
def matrices():
    return diagnosed.matrices()


@pytest.fixture(scope="module")
def found():
    return diagnosed.found()


def test_the_edge_of_the_safe_region_by_hand(found):
    """Of 25 prompts, those that reach a value; a critical value that is not known counts as 0."""
    values = np.arange(1.0, 26.0)
    for name in ("beta", "alpha", "lam"):

        def edge(fraction, values, name=name):
            return dataclasses.replace(found.limits, **{name: values}).safe(name, fraction)

        mixed = values[::-1]
        # All 25 reach 1, 24 of them 2, 13 reach 13, and 14 reach 12, though 0.56 * 25 rounds to more than 14.
        assert 0.56 * 25 > 14 and [edge(fraction, mixed) for fraction in (1.0, 0.96, 0.52, 0.56)] == [1, 2, 13, 12]
        unknown = np.where(mixed == 13, np.nan, mixed)
        assert [edge(fraction, unknown) for fraction in (1.0, 0.96, 0.92)] == [0, 1, 2]
        assert edge(1.0, np.full(25, np.inf)) == np.inf


def test_recommendations_known_from_theory():
    """Three-cycles of strength a leave no margin where alpha^2 + (a beta lam)^2 / 3 reaches 0.95^2."""

    def largest_beta(a, alpha):
        return math.sqrt(3 * (0.95**2 - alpha**2)) / (a * LAM)

    # Of 20 prompts one may be left without margin: the second strength decides, to two digits and to the safe side.
    P = np.stack([*settled(0.45, 1), *settled(0.3, 1), *settled(0.05, 18)])
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=BETA, lam=LAM).recommendation
    limit = largest_beta(0.3, ALPHA)
    assert (best.changed, best.alpha, best.lam, best.fraction) == ("beta", ALPHA, LAM, 0.95)
    assert best.beta == math.floor(10 * limit) / 10 == 2.1
    # There the setting stays as it is; with a second one of that strength it does not.
    kept = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM).recommendation
    assert (kept.changed, kept.beta, kept.fraction) == ("nothing", 0.999 * limit, 0.95)
    P[2] = P[0]
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM).recommendation
    assert best.changed == "beta" and best.beta == math.floor(10 * largest_beta(0.45, ALPHA)) / 10 == 1.4
    # At 60 tokens a completion it is TRL's beta that has two digits.
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM, tokens=60).recommendation
    assert best.beta == 60 / math.ceil(60 / largest_beta(0.45, ALPHA)) == 60 / 42


def test_where_nothing_anchors_the_reference_has_to():
    """alpha = 1: the radius sqrt(alpha^2 + (a beta lam)^2 / 3) has to stay below (1 + alpha) / 2."""
    best = ipodyn.diagnose(np.stack(settled(0.1, 1)), alpha=1.0, beta=1.0, lam=LAM).recommendation
    turn = (0.1 * LAM) ** 2 / 3
    assert best.changed == "alpha" and best.beta == 1
    assert math.hypot(best.alpha, math.sqrt(turn)) < (1 + best.alpha) / 2
    nearer = 1 - (1 - best.alpha) * 0.9  # two digits of 1 - alpha, and 10 bisections of a step of 1 / 32
    assert math.hypot(nearer, math.sqrt(turn)) > (1 + nearer) / 2 - 2**-15


def test_a_first_model_of_one_answer_cannot_be_helped():
    """No beta and no alpha spreads the aim beyond a reference that has collapsed itself."""
    reference = np.array([0.9999, 5e-5, 5e-5])
    found = ipodyn.diagnose(np.stack(settled(0.1, 1)), alpha=0.5, beta=1.0, lam=LAM, pi_ref=reference)
    assert (found.recommendation.changed, found.recommendation.beta) == ("infeasible", 1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("tokens", [None, 1, 60, 333])
def test_what_is_recommended_and_printed_is_kept_when_it_is_used(rng, alpha, tokens):
    """The number that a user reads, typed in again, gives "keep the setting"."""
    P = complementary(rng.uniform(0.02, 0.98, (32, K, K)))
    beta = 8.0 if alpha < 1 else 0.25  # where only alpha can be lowered, some alpha must do
    best = ipodyn.diagnose(P, alpha=alpha, beta=beta, lam=LAM, tokens=tokens).recommendation
    assert best.changed == ("alpha" if alpha == 1 else "beta")
    if best.changed == "alpha":
        typed = {"alpha": float(f"{best.alpha:.6g}"), "beta": beta}
    elif tokens is None:
        typed = {"alpha": alpha, "beta": float(f"{best.beta:.2g}")}
    else:
        typed = {"alpha": alpha, "beta": tokens / float(f"{tokens / best.beta:.2g}")}
    assert typed["alpha"] == best.alpha and typed["beta"] == best.beta
    again = ipodyn.diagnose(P, alpha=typed["alpha"], beta=typed["beta"], lam=LAM, tokens=tokens).recommendation
    assert (again.changed, again.fraction) == ("nothing", best.fraction)


def test_a_margin_to_collapse_is_asked_of_the_entropy():
    """Favourites: the entropy must stay above 10 % of log 3, and falls with kappa = beta / (1 - alpha) alone."""
    P = np.stack([favourite_of_entropy(0.1 * math.log(3))])
    for beta, changed, recommended in ((4.95, "nothing", 4.95), (5.05, "beta", 4.9)):
        best = ipodyn.diagnose(P, alpha=ALPHA, beta=beta, lam=LAM).recommendation
        assert (best.changed, best.beta) == (changed, recommended) and BETA == 5


def test_the_share_is_of_all_prompts_also_those_that_cannot_settle():
    """Of 32 prompts one is left out, as those without finite scores are: 31 of 32 settle, not 31 of 31."""
    prompts = Prompts.of(np.stack(settled(0.3, 32)), shared())
    best = recommend(prompts, np.arange(31), 0.0, None, ALPHA, BETA, LAM)
    assert (best.changed, best.fraction) == ("beta", 31 / 32)
    # With 30 of 32 there is nothing to look for.
    assert recommend(prompts, np.arange(30), 0.0, None, ALPHA, BETA, LAM).changed == "infeasible"


def test_the_safe_region_is_safe_and_its_edge_is_the_edge(matrices, found):
    edge = found.limits.safe("beta", 1.0)
    assert edge == found.limits.beta.min()
    assert (radius(matrices, beta=0.999 * edge) < 1).all() and (radius(matrices, beta=1.001 * edge) >= 1).any()
    half = found.limits.safe("beta", 0.5)
    assert np.mean(found.limits.beta >= half) >= 0.5 > np.mean(found.limits.beta > half)
    best = found.recommendation
    assert (best.changed, best.alpha, best.lam) == ("beta", ALPHA, LAM) and best.beta < BETA
    assert np.mean(radius(matrices, beta=best.beta) < 0.95) >= 0.95 > np.mean(radius(matrices, beta=BETA) < 0.95)
    # The next number of two digits is too much: for the radius of one more prompt, or its entropy.
    larger = best.beta + 10.0 ** (math.floor(math.log10(best.beta)) - 1)
    spread = directly(matrices, "entropy", beta=larger)
    margin = (radius(matrices, beta=larger) < 0.95) & (spread >= 0.1 * math.log(K))
    assert margin.mean() < 0.95
