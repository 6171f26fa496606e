"""The stability map against plain NumPy loops, against theory, and against itself under other blocks and devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import random_P

import ipodyn
from ipodyn._maps.evidence.evidence import Request
from ipodyn._maps.evidence.fixed_point import FixedPoints
from ipodyn._maps.grid import Grid
from ipodyn._maps.stability_map import MapProblem

CODE = {regime.name: int(regime) for regime in ipodyn.Regime}


def numpy_loop(P, alpha, beta, lam, policy, num_steps):
    """MRS-IPO as the paper writes it, with uniform reference and off-policy sampler."""
    K = len(P)
    uniform = np.full(K, 1 / K)
    visited = np.empty((num_steps, K))
    for t in range(num_steps):
        mu = lam * policy + (1 - lam) * uniform
        logits = alpha * np.log(policy) + (1 - alpha) * np.log(uniform) + beta * P @ mu
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        visited[t] = policy
    return visited


@pytest.mark.parametrize("K", [pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)])
def test_cells_equal_a_plain_loop(rng, K):
    P = random_P(rng, 3, K, edge=0.02)
    start = rng.dirichlet(np.full(K, 5.0))
    alpha, beta = [0.0, 0.6], [0.5, 2.0]
    found = ipodyn.stability_map(P, alpha=alpha, beta=beta, lam=0.7, num_steps=333, policy0=start)
    for m in range(3):
        for i, a in enumerate(alpha):
            for j, b in enumerate(beta):
                visited = numpy_loop(P[m], a, b, 0.7, start, 333)
                cell = found.isel(matrix=m, alpha=i, beta=j)
                # Both are float64 sums of 333 terms of order 1.
                assert abs(float(cell.variance) - visited.var(axis=0).sum()) < 1e-12
                assert abs(float(cell.entropy) + (visited[-1] * np.log(visited[-1])).sum()) < 1e-12
                following = numpy_loop(P[m], a, b, 0.7, visited[-1], 1)[0]
                assert abs(float(cell.residual) - np.abs(following - visited[-1]).max()) < 1e-12
                window = visited[-found.attrs["window"] :]
                assert abs(float(cell.window_variance) - window.var(axis=0).sum()) < 1e-12


@pytest.mark.optimised
def test_blocks_and_devices_do_not_matter(rng):
    """Rollouts bit for bit (the same elementwise operations), fixed points to a few roundings."""
    P = random_P(rng, 7, 4, edge=0.02).astype(np.float32)
    grid = Grid.of(P, alpha=np.linspace(0, 0.9, 5), beta=[0.5, 3.0, 9.0], lam=0.8)
    problem = MapProblem.of(grid, Request(num_steps=200))
    analytic = {variable.name for variable in FixedPoints.variables}
    reference = problem.compute(size=64)
    for size, devices in ((16, jax.local_devices()[:1]),):
        other = problem.compute(size=size, devices=devices)
        for name, values in reference.items():
            if name in analytic:
                # Other block sizes compile to other fused multiply-adds; Newton's last step differs by roundings.
                scale = np.maximum(np.abs(values[np.isfinite(values)]).max(), 1)
                bound = 16 * np.finfo(np.float32).eps * scale
                np.testing.assert_allclose(values, other[name], rtol=0, atol=bound, err_msg=f"{name} at size {size}")
            else:
                np.testing.assert_array_equal(values, other[name], err_msg=f"{name} at size {size}")
    part = problem.compute(2, 5, size=64)  # ranges of one set share their program
    for name, values in reference.items():
        np.testing.assert_array_equal(values[2:5], part[name])


def test_contraction_certifies_convergence(rng):
    """Theory F1: where alpha + beta lam ||A|| / 2 < 0.98, 3,000 rounds shrink any distance below rounding."""
    P = random_P(rng, 40, 4, edge=0.02)
    found = ipodyn.stability_map(P, alpha=[0.0, 0.3, 0.6], beta=[0.3, 0.8, 1.6], lam=0.9, num_steps=3000)
    certified = found.contraction_bound.values < 0.98
    assert certified.sum() > 100
    assert np.isin(found.regime.values[certified], [CODE["converges"], CODE["collapses"]]).all()
    norms = np.array([np.linalg.svd(A)[1][0] for A in P - 0.5])
    np.testing.assert_allclose(found.contraction_bound.values[:, 1, 2], 0.3 + 1.6 * 0.9 / 2 * norms, rtol=1e-12)


def test_three_cycle_boundary():
    """Theory F2: the uniform point loses stability where alpha^2 + (a beta lam)^2 / 3 = 1."""
    a, lam = 0.4, 0.8
    alpha, beta = np.linspace(0.0, 0.95, 9), np.linspace(0.5, 7.0, 14)
    found = ipodyn.stability_map(
        ipodyn.problems.three_cycle(a), alpha=alpha, beta=beta, lam=lam, policy0=[0.4, 0.33, 0.27]
    )
    radius = np.sqrt(alpha[:, None] ** 2 + (a * beta * lam) ** 2 / 3)
    regime = found.regime.values[0]
    assert (regime[radius < 0.99] == CODE["converges"]).all()
    assert (regime[radius > 1.03] == CODE["oscillates"]).all()
    assert (radius < 0.99).sum() > 20 and (radius > 1.03).sum() > 20


@pytest.mark.slow
def test_strongly_transitive_collapse():
    """Theory F3: on a strictly strongly transitive matrix with alpha = 1 all mass goes to the top response."""
    P = ipodyn.problems.bradley_terry(jnp.array([2.0, 1.0, 0.0, -1.0]))
    found = ipodyn.stability_map(P, alpha=[0.2, 1.0], beta=[1.0], lam=1.0)
    assert found.regime.values[0, :, 0].tolist() == [CODE["converges"], CODE["collapses"]]
    assert float(found.entropy[0, 1, 0]) < 1e-6 < float(found.entropy[0, 0, 0])


@pytest.mark.slow
def test_dpo_map_and_matrices_without_finite_scores(rng):
    """DPO equals single rollouts; a matrix with a sure loser has no finite scores and says nothing else."""
    P = random_P(rng, 2, 3, edge=0.02)
    sure = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.6], [0.0, 0.4, 0.5]])
    P = np.concatenate([P, sure[None]])
    found = ipodyn.stability_map(
        P, alpha=[0.3], beta=[0.4, 1.0], lam=0.5, num_steps=100, objective=ipodyn.DPO(), policy0=[0.5, 0.3, 0.2]
    )
    assert "contraction_bound" not in found
    for m in range(2):
        for j, beta in enumerate((0.4, 1.0)):
            loop = ipodyn.MRS(P[m], alpha=0.3, beta=beta, lam=0.5, objective=ipodyn.DPO())
            orbit = ipodyn.rollout(loop, [0.5, 0.3, 0.2], num_steps=100)
            # The same Newton steps in another program: roundings of the score differ.
            assert abs(float(orbit.variance) - float(found.variance[m, 0, j])) < 1e-11
    assert (found.regime.values[2] == CODE["unresolved"]).all()
    assert (found.regime.values[:2] != CODE["unresolved"]).all()


@pytest.mark.slow
def test_per_matrix_policies(rng):
    P = random_P(rng, 2, 3, edge=0.02)
    starts = rng.dirichlet(np.ones(3), 2)
    found = ipodyn.stability_map(P, alpha=0.2, beta=1.0, num_steps=50, policy0=starts)
    for m in range(2):
        visited = numpy_loop(P[m], 0.2, 1.0, 1.0, starts[m], 50)
        assert abs(float(found.variance[m, 0, 0]) - visited.var(axis=0).sum()) < 1e-12


def test_policies_are_those_of_their_matrix(rng):
    """Reference, sampler and start distinct and skewed, one of each for every matrix: against single loops."""
    P = random_P(rng, 3, 3, edge=0.02)
    pi_ref, pi_0, start = rng.dirichlet(np.full(3, 2.0), (3, 3))
    point: dict[str, Any] = {"alpha": 0.6, "beta": 2.0, "lam": 0.4}
    found = ipodyn.stability_map(P, **point, num_steps=7, pi_ref=pi_ref, pi_0=pi_0, policy0=start)
    default = ipodyn.stability_map(P, **point, num_steps=7, pi_ref=pi_ref, pi_0=pi_0)
    for m in range(3):
        loop = ipodyn.MRS(P[m], **point, pi_ref=pi_ref[m], pi_0=pi_0[m])
        star = ipodyn.fixed_point(loop).policy
        assert float(found.fixed_point_entropy[m, 0, 0]) == pytest.approx(float(ipodyn.entropy(star)), rel=1e-9)
        for of_map, at in ((found, start[m]), (default, np.asarray(ipodyn.generic_start(pi_0[m])))):
            orbit = ipodyn.rollout(loop, at, num_steps=7)
            assert float(of_map.variance[m, 0, 0]) == pytest.approx(float(orbit.variance), rel=1e-9)
            assert float(of_map.entropy[m, 0, 0]) == pytest.approx(float(orbit.entropy), rel=1e-9)


def test_predicted_collapse_is_relative_to_log_k():
    """Without rollouts: K = 8 has log K = 2.08, so that a share of 5 % is 0.104 nats, not 0.05."""
    P = ipodyn.problems.bradley_terry(jnp.linspace(2.0, -2.0, 8))
    found = ipodyn.stability_map(P, alpha=[0.5], beta=np.linspace(2, 30, 57), lam=1.0, rollouts=False)
    entropy, regime = found.fixed_point_entropy.values.ravel(), found.regime.values.ravel()
    stable = found.radius.values.ravel() < 1
    between = stable & (entropy > 0.05) & (entropy < 0.05 * np.log(8))
    assert between.any() and (regime[between] == CODE["collapses"]).all()
    above = stable & (entropy > 0.05 * np.log(8))
    assert above.any() and (regime[above] == CODE["converges"]).all()


def test_a_start_within_rounding_of_an_unstable_point_leaves_it_in_the_end():
    """Radius^2 = 0.81 + (0.4 * 2.2)^2 / 3 = 1.07: rounding grows, long after a chunk where nothing moved."""
    P, start = ipodyn.problems.three_cycle(0.4), np.array([1, 1 + 1e-14, 1 - 1e-14]) / 3
    found = ipodyn.stability_map(P, alpha=[0.9], beta=[2.2], lam=1.0, policy0=start, num_steps=3000)
    orbit = ipodyn.rollout(ipodyn.MRS(P, alpha=0.9, beta=2.2, lam=1.0), start, num_steps=64)
    assert float(found.radius[0, 0, 0]) > 1 and float(orbit.variance) < 1e-18
    assert int(found.regime[0, 0, 0]) == CODE["oscillates"]


def test_dataset_says_what_it_is(rng):
    P = random_P(rng, 2, 3, edge=0.02).astype(np.float32)
    thresholds = ipodyn.RegimeThresholds(collapse_fraction=0.1)
    found = ipodyn.stability_map(
        P, alpha=[0.1], beta=[1.0, 2.0], lam=0.8, num_steps=40, thresholds=thresholds, attributes={"source": "made"}
    )
    assert dict(found.sizes) == {"matrix": 2, "alpha": 1, "beta": 2}
    assert found.attrs["lam"] == 0.8 and found.attrs["num_steps"] == 40 and found.attrs["source"] == "made"
    assert found.attrs["threshold_collapse_fraction"] == 0.1
    assert found.attrs["threshold_residual"] == pytest.approx(100 * np.finfo(np.float32).eps)
    assert found.variance.dtype == np.float32
    assert found.regime.attrs["flag_meanings"].split() == [regime.name for regime in ipodyn.Regime]
    assert all("long_name" in found[name].attrs and "units" in found[name].attrs for name in found.data_vars)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"alpha": [0.5, 1.5]}, "alpha"),
        ({"beta": [0.0]}, "beta"),
        ({"lam": -0.1}, "lam"),
        ({"alpha": []}, "alpha"),
        ({"policy0": [0.5, 0.5]}, "policy0"),
        ({"pi_ref": [0.5, 0.5, 0.5]}, "pi_ref"),
        ({"num_steps": 0}, "num_steps"),
        ({"window": 200}, "window"),
        ({"P": np.full((3, 3), 0.4)}, "P"),
    ],
)
def test_wrong_inputs_are_named(change, culprit):
    arguments = {"P": ipodyn.problems.three_cycle(0.3), "alpha": [0.5], "beta": [1.0], "num_steps": 100} | change
    with pytest.raises(ValueError, match=culprit) as error:
        ipodyn.stability_map(arguments.pop("P"), **arguments)
    assert "\n" not in str(error.value)


def test_a_set_is_checked_when_it_is_made_and_trusted_after(rng, monkeypatch, tmp_path):
    from ipodyn._maps import grid

    data = ipodyn.data.PreferenceSet(
        random_P(rng, 3, 3, edge=0.02),
        np.arange(3),
        np.tile(np.arange(3), (3, 1)),
        ipodyn.data.LoadReport(3, 3, {}, 3, 3, {}, 3, unit="matrices"),
        "made here",
    )
    point: dict[str, Any] = {"alpha": 0.5, "beta": [1.0, 4.0], "rollouts": False}
    values = ipodyn.stability_map(data.P, **point)
    with pytest.raises(ipodyn.data.DataError, match="must sum to 1"):
        dataclasses.replace(data, P=np.triu(data.P))
    np.savez(tmp_path / "wrong.npz", preferences=np.triu(data.P))
    with pytest.raises(ipodyn.data.DataError, match=r"wrong\.npz: .* must sum to 1"):
        ipodyn.data.load_preferences(tmp_path / "wrong.npz")

    def refused(*args, **kwargs):
        raise AssertionError("looked at again")

    for module in ("ipodyn.data._set", "ipodyn._maps.grid"):
        monkeypatch.setattr(f"{module}.check_preference", refused)
    trusted = ipodyn.stability_map(data.select(np.array([2, 0]), "two"), **point)
    np.testing.assert_array_equal(trusted.radius.values, values.radius.values[[2, 0]])
    assert grid.Grid.of(data, alpha=0.5, beta=1.0, dtype="float32").P.dtype == np.float32
