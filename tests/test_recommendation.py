"""The safe region and the setting that is recommended: by hand, and known from theory."""

import dataclasses
import math

import diagnosed
import numpy as np
import pytest
from diagnosed import ALPHA, BETA, LAM, K, directly, favourite_of_entropy, radius, settled, shared

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

        def edge(share, values, name=name):
            return dataclasses.replace(found.limits, **{name: values}).safe(name, share)

        mixed = values[::-1]
        # All 25 reach 1, 24 of them 2, 13 reach 13, and 14 reach 12, though 0.56 * 25 rounds to more than 14.
        assert 0.56 * 25 > 14 and [edge(share, mixed) for share in (1.0, 0.96, 0.52, 0.56)] == [1, 2, 13, 12]
        unknown = np.where(mixed == 13, np.nan, mixed)
        assert [edge(share, unknown) for share in (1.0, 0.96, 0.92)] == [0, 1, 2]
        assert edge(1.0, np.full(25, np.inf)) == np.inf


def test_recommendations_known_from_theory():
    """Three-cycles of strength a leave no margin where alpha^2 + (a beta lam)^2 / 3 reaches 0.95^2."""

    def largest_beta(a, alpha):
        return math.sqrt(3 * (0.95**2 - alpha**2)) / (a * LAM)

    # Of 20 prompts one may be left without margin: the second strength decides, to the last bisection.
    P = np.stack([*settled(0.45, 1), *settled(0.3, 1), *settled(0.05, 18)])
    best = ipodyn.diagnose(P, alpha=ALPHA, beta=BETA, lam=LAM).recommendation
    limit = largest_beta(0.3, ALPHA)
    assert (best.changed, best.alpha, best.lam, best.fraction) == ("beta", ALPHA, LAM, 0.95)
    assert limit * (1 - 2 ** (1 / 8 - 1) / 2**10) < best.beta < limit
    # There the setting stays as it is; with a second one of that strength it does not.
    kept = ipodyn.diagnose(P, alpha=ALPHA, beta=0.999 * limit, lam=LAM).recommendation
    assert (kept.changed, kept.beta, kept.fraction) == ("nothing", 0.999 * limit, 0.95)
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
    assert (worst.changed, worst.alpha, worst.beta, worst.fraction) == ("infeasible", 0.98, BETA, 0)


def test_a_margin_to_collapse_is_asked_of_the_entropy():
    """Favourites: the entropy must stay above 10 % of log 3, and falls with kappa = beta / (1 - alpha) alone."""
    P = np.stack([favourite_of_entropy(0.1 * math.log(3))])
    for beta, changed in ((0.99 * BETA, "nothing"), (1.01 * BETA, "beta")):
        best = ipodyn.diagnose(P, alpha=ALPHA, beta=beta, lam=LAM).recommendation
        assert best.changed == changed and 0.98 * BETA < best.beta < BETA


def test_the_share_is_of_all_prompts_also_those_that_cannot_settle():
    """Of 32 prompts one is left out, as those without finite scores are: 31 of 32 settle, not 31 of 31."""
    prompts = Prompts.of(np.stack(settled(0.3, 32)), shared())
    best = recommend(prompts, np.arange(31), 0.0, ALPHA, BETA, LAM)
    assert (best.changed, best.fraction) == ("beta", 31 / 32)
    # With 30 of 32 there is nothing to look for.
    assert recommend(prompts, np.arange(30), 0.0, ALPHA, BETA, LAM).changed == "infeasible"


def test_the_safe_region_is_safe_and_its_edge_is_the_edge(matrices, found):
    edge = found.limits.safe("beta", 1.0)
    assert edge == found.limits.beta.min()
    assert (radius(matrices, beta=0.999 * edge) < 1).all() and (radius(matrices, beta=1.001 * edge) >= 1).any()
    half = found.limits.safe("beta", 0.5)
    assert np.mean(found.limits.beta >= half) >= 0.5 > np.mean(found.limits.beta > half)
    best = found.recommendation
    assert (best.changed, best.alpha, best.lam) == ("beta", ALPHA, LAM) and best.beta < BETA
    assert np.mean(radius(matrices, beta=best.beta) < 0.95) >= 0.95 > np.mean(radius(matrices, beta=BETA) < 0.95)
    # A hundredth more is too much: for the radius of one more prompt, or its entropy.
    spread = directly(matrices, "entropy", beta=1.01 * best.beta)
    margin = (radius(matrices, beta=1.01 * best.beta) < 0.95) & (spread >= 0.1 * math.log(K))
    assert margin.mean() < 0.95
