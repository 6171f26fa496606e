"""Several fixed points of one loop: an example with three, and loops that have one."""

import jax
import numpy as np
import pytest
from loops import loop_of, random_loops
from scipy.special import softmax

import ipodyn
from ipodyn import DPO, MRS

P = np.array([[0.5, 0.3749, 0.4066], [0.6251, 0.5, 0.0292], [0.5934, 0.9708, 0.5]])


def folded():
    pi_ref, pi_0 = softmax([2.631, 4.285, -6.917]), np.array([0.0029, 0.8731, 0.124])
    return MRS(P, alpha=0.0, beta=6.2, lam=0.5, pi_ref=pi_ref, pi_0=pi_0, objective=DPO())


def test_dpo_with_three_fixed_points_is_told_as_such():
    loop = folded()
    found = ipodyn.fixed_points(loop, key=jax.random.key(0))
    assert int(found.number) == 3 and not bool(found.unique) and float(found.failed) == pytest.approx(0, abs=1e-12)
    points = np.asarray(found.policies)[:3]
    for point in points:
        np.testing.assert_allclose(loop(point), point, atol=1e-9)
    expected = [[0.148, 0.010, 0.842], [0.101, 0.003, 0.896], [0.040, 0.0003, 0.959]]
    np.testing.assert_allclose(points[np.argsort(-points[:, 0])], expected, atol=6e-4)
    np.testing.assert_allclose(points[0], ipodyn.fixed_point(loop).policy, atol=1e-9)
    np.testing.assert_allclose(np.sum(found.fractions), 1)
    # What else is said of the loop agrees with that: nothing is certified, and two of the three are stable.
    assert not bool(ipodyn.convergence_certificate(loop).certified)
    stable = [bool(ipodyn.stability(loop, point).stable) for point in points[np.argsort(-points[:, 0])]]
    assert stable == [True, False, True]


@pytest.mark.slow
def test_ipo_has_one(rng):
    fields = random_loops(rng, 10, 4)
    run = jax.jit(jax.vmap(lambda *fields: ipodyn.fixed_points(loop_of(*fields), key=0, num_starts=8)))
    found = run(*fields)
    assert np.all(found.number == 1) and np.all(found.unique) and np.all(np.asarray(found.failed) < 1e-12)


def test_without_a_fixed_point_none_is_reported():
    found = ipodyn.fixed_points(MRS(P, alpha=1.0, beta=2.0, lam=1.0), key=0, num_starts=4)
    assert int(found.number) == 0 and float(found.failed) == 1 and not np.any(np.isnan(found.policies))
    with pytest.raises(ValueError, match="`num_starts` is 0; it must be a whole number"):
        ipodyn.fixed_points(folded(), key=0, num_starts=0)
