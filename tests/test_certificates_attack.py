"""The attack on certificates at a small size, and that its judge sees a broken promise."""

import numpy as np
import pytest

from benchmarks.attacks import certificates as attack

pytestmark = pytest.mark.slow


def test_states_keep_the_promised_rate(rng):
    found = attack.attack_states(rng, 20_000, (3, 4))
    assert found["states"] > 10_000
    assert 0.9 < found["worst ratio, euclidean"] <= 1 + 1e-9 and found["worst ratio, best"] <= 1 + 1e-9


def test_balls_are_not_left(rng):
    found = attack.attack_basins(rng, 10_000, (4,))
    assert found["loops"] > 50 and found["states"] > 5_000
    assert found["left"] == 0 and found["worst ratio"] <= 1 + 1e-9


def test_claims_are_nested(rng):
    found = attack.attack_nesting(rng, 150, (4,))
    assert found["not nested"] == 0 and found["contraction"] < found["certified"] < found["stable"] < 150


def test_rounds_are_not_too_few(rng):
    found = attack.attack_rounds(rng, 40, (3,))
    assert found["loops"] > 20 and found["too few"] == 0 and found["median factor"] > 1


def test_the_judge_sees_kl_grow(rng):
    """Beyond the certificate KL may grow: states of unstable loops do so."""
    loops = attack.draw(rng, 100, 3, (4.0, 8.0))
    star = rng.dirichlet(np.ones(3), 100)
    x = 1e-3 * rng.normal(size=star.shape)
    before, after = attack.kl_of(star, x), attack.kl_of(star, attack.next_deviation(loops, star, x))
    np.testing.assert_allclose(before, np.sum(star * np.log(star / attack.policy_of(star, x)), axis=1), rtol=1e-6)
    assert attack.worst_ratio(before, after, np.ones(100), before > 0) > 1.1
