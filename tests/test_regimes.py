"""Regimes of hand-made orbits, and of loops whose behaviour a theorem settles."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import Regime


def orbit(**changes):
    """An orbit over four responses at rest in the middle, float64, changed as told."""
    fields: dict[str, Any] = {
        "final": jnp.full(4, 0.25),
        "mean": jnp.full(4, 0.25),
        "variance": 0.0,
        "window_variance": 0.0,
        "previous_variance": 0.0,
        "window_shift": 0.0,
        "decay": 0.0,
        "rounds": 3000.0,
        "entropy": np.log(4),
        "residual": 0.0,
        "rise": 0.0,
        "growth": -0.1,
        "saved": None,
        "result": ipodyn.RESULTS.successful,
    } | changes
    keep = ("final", "mean", "saved", "result")
    fields = {k: v if k in keep else jnp.asarray(v, jnp.float64) for k, v in fields.items()}
    return ipodyn.Orbit(**fields)


MOVING = {"residual": 0.1, "window_variance": 0.1, "previous_variance": 0.1, "window_shift": 1e-4}
HAND_MADE = [
    ("converges", {}),
    ("converges", {"residual": 0.9e-8}),
    ("converges", {"entropy": 0.06 * np.log(4)}),
    ("collapses", {"entropy": 0.04 * np.log(4)}),
    ("collapses", {"entropy": 0.0, "rise": -3.0}),
    ("oscillates", MOVING),
    ("oscillates", MOVING | {"entropy": 0.0}),  # seen near a vertex, but moving
    ("oscillates", MOVING | {"previous_variance": 0.11}),
    # The means of two windows differ by less than the variance of the last, not of the one before.
    ("oscillates", MOVING | {"previous_variance": 0.02, "window_shift": 0.05}),
    ("oscillates", MOVING | {"decay": 0.19 / 3000}),
    ("unresolved", MOVING | {"decay": 0.21 / 3000}),  # a fifth of the variance over the run: dying out slowly
    ("unresolved", {"growth": 1e-9}),  # stands still where it would not stay
    ("unresolved", {"growth": 1e-9, "entropy": 0.0}),
    ("converges", {"growth": 0.0}),
    ("unresolved", MOVING | {"previous_variance": 0.12}),  # dying out
    ("unresolved", MOVING | {"window_variance": 1e-7, "previous_variance": 1e-7}),  # too small to tell
    ("unresolved", MOVING | {"window_shift": 0.2}),  # drifting
    ("unresolved", MOVING | {"window_shift": np.inf}),  # no window before to compare with
    ("unresolved", {"residual": 2e-8}),
    ("unresolved", {"rise": 2e-3}),  # stands still near a vertex, on its way back
    ("unresolved", {"entropy": 0.0, "rise": 2e-3}),
    ("unresolved", {"result": ipodyn.RESULTS.diverging_scores}),
    ("unresolved", dict.fromkeys(["residual", "rise", "entropy", "window_variance"], np.nan)),
]


@pytest.mark.parametrize(("name", "changes"), HAND_MADE)
def test_hand_made(name, changes):
    assert Regime(int(ipodyn.classify(orbit(**changes)))).name == name


@pytest.mark.parametrize(
    ("radius", "decay", "name"),
    [
        (1.0, 1e-4, "oscillates"),  # nothing can attract: 26 % over the run are no transient
        (np.inf, 1e-4, "oscillates"),
        (0.99, 0.0, "oscillates"),  # a cycle beside a stable fixed point
        (0.99, 1e-4, "unresolved"),
        (0.99998, 0.05 / 3000, "oscillates"),  # predicted: a fall by 0.12
        (0.99998, 0.07 / 3000, "unresolved"),  # more than half of that
        (0.999995, 0.0, "unresolved"),  # predicted: 0.03, too little to tell
        (np.nan, 0.19 / 3000, "oscillates"),
        (np.nan, 0.21 / 3000, "unresolved"),
    ],
)
def test_radius_tells_transients_from_cycles(radius, decay, name):
    found = ipodyn.classify(orbit(**MOVING, decay=decay), radius=radius)
    assert Regime(int(found)).name == name


def test_transients_longer_than_the_run_are_no_oscillation():
    """F2, just inside the boundary: radius 0.99998, where 3,000 rounds shrink nothing. Outside it, a cycle.

    From afar the amplitude falls as one over the square root of the rounds: by 10 % in variance a window, at the end.
    """
    a, alpha = 0.4, np.full(2, 0.8)
    beta = np.sqrt(3 * (np.array([0.99998, 1.01]) ** 2 - alpha**2)) / a
    names, _ = regimes(ipodyn.problems.three_cycle(a), [[0.4, 0.33, 0.27]] * 2, alpha=alpha, beta=beta, lam=1.0)
    assert names == ["unresolved", "oscillates"]


def test_cycle_beside_a_stable_fixed_point_is_found():
    """Theory F9: subcritical at K = 4. Radius 0.997, and from afar the loop turns for ever."""
    A = np.zeros((4, 4))
    A[np.triu_indices(4, 1)] = 0.351, -0.449, 0.192, 0.243, -0.426, -0.09
    reference = np.exp([-0.92, 0.03, 1.24, -0.34])
    reference /= reference.sum()
    found = ipodyn.stability_map(
        0.5 + A - A.T, alpha=[0.3], beta=[11.085], pi_ref=reference, policy0=[0.1, 0.1, 0.1, 0.7]
    )
    assert 0.99 < float(found.radius[0, 0, 0]) < 1
    assert int(found.regime[0, 0, 0]) == Regime.oscillates
    # The codes mean what their names say: 1 is this, 2 is standing still where a nudge would grow.
    assert found.disagreement.attrs["flag_meanings"].split()[1] == "stable_but_moving"
    assert int(found.disagreement[0, 0, 0]) == 1


def test_thresholds_are_arguments_and_follow_the_dtype():
    tight, loose = ipodyn.RegimeThresholds(residual=1e-12), ipodyn.RegimeThresholds(residual=1e-2)
    assert int(ipodyn.classify(orbit(residual=1e-10), tight)) == Regime.unresolved
    assert int(ipodyn.classify(orbit(residual=1e-3), loose)) == Regime.converges
    share = ipodyn.RegimeThresholds(collapse_fraction=0.5)
    assert int(ipodyn.classify(orbit(entropy=0.4 * np.log(4)), share)) == Regime.collapses
    assert ipodyn.RegimeThresholds().residual_for(jnp.dtype("float64")) == 1e-8
    assert ipodyn.RegimeThresholds().residual_for(jnp.dtype("float32")) == pytest.approx(100 * 2.0**-23)


NUMBER = 60


@functools.partial(jax.jit, static_argnums=5)
def _regimes(P, starts, alpha, beta, lam, num_steps):
    def one(P, start, alpha, beta, lam):
        found = ipodyn.rollout(ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam), start, num_steps=num_steps)
        return ipodyn.classify(found), found.variance

    return jax.vmap(one)(P, starts, alpha, beta, lam)


def regimes(P, starts, *, alpha, beta, lam, num_steps=3000):
    """Names of the regimes of many loops; each argument has a leading axis or is one for all.

    Repeated up to NUMBER, so that each size compiles once.
    """
    count, dtype = len(starts), np.asarray(P).dtype
    P = np.broadcast_to(P, (count, *np.shape(P)[-2:]))
    columns = [np.broadcast_to(np.asarray(x, dtype), count) for x in (alpha, beta, lam)]
    padded = [np.resize(x, (NUMBER, *x.shape[1:])) for x in (P, np.asarray(starts, dtype), *columns)]
    codes, variance = _regimes(*padded, num_steps)
    return [Regime(int(code)).name for code in np.asarray(codes)[:count]], np.asarray(variance)[:count]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contractions_converge(rng, dtype):
    """F1: alpha + beta lam ||A|| / 2 < 1."""
    P = complementary(rng.uniform(size=(40, 4, 4)))
    alpha = rng.uniform(0, 0.9, 40)
    lam = rng.uniform(0.1, 1, 40)
    beta = 2 * 0.98 * (1 - alpha) / lam / np.linalg.norm(P - 0.5, 2, axis=(1, 2))
    starts = rng.dirichlet(np.ones(4), 40)
    names, _ = regimes(P.astype(dtype), starts.astype(dtype), alpha=alpha, beta=beta, lam=lam)
    assert set(names) == {"converges"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_three_cycle_oscillates_exactly_where_theory_says(rng, dtype):
    """F2: the uniform fixed point is unstable iff alpha^2 + (a beta lam)^2 / 3 > 1; starts near it, on either side."""
    alpha = np.repeat([0.3, 0.7, 0.9], 10)
    lam = rng.uniform(0.5, 1, 30)
    radius = np.tile(np.r_[np.linspace(0.93, 0.985, 5), np.linspace(1.03, 1.3, 5)], 3)
    beta = np.sqrt(3 * (radius**2 - alpha**2)) / (0.4 * lam)
    starts = np.tile(np.array([0.35, 0.33, 0.32]), (30, 1))
    P = np.asarray(ipodyn.problems.three_cycle(0.4)).astype(dtype)
    names, _ = regimes(P, starts.astype(dtype), alpha=alpha, beta=beta, lam=lam)
    assert names == ["converges" if r < 1 else "oscillates" for r in radius]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strict_order_collapses_at_alpha_one_and_stays_inside_below(rng, dtype):
    """F3: with the reference at the last policy a strict order takes over; with a fixed one the optimum is interior."""
    keys = jax.random.split(jax.random.key(3), 20)
    P = np.asarray(jax.vmap(lambda key: ipodyn.problems.strongly_transitive(key, 4))(keys)).astype(dtype)
    gaps = np.diff(np.sort(P.mean(axis=2), axis=1), axis=1)[:, -1]
    starts = rng.dirichlet(np.full(4, 3.0), 20).astype(dtype)
    # the lead grows by about beta times a row gap a round: 3,000 rounds give all of them 60 nats
    beta = np.maximum(1, np.divide(0.1, gaps))
    names, _ = regimes(P, starts, alpha=1.0, beta=beta, lam=0.7)
    assert set(names) == {"collapses"}
    names, _ = regimes(P, starts, alpha=0.5, beta=0.5, lam=0.7)
    assert set(names) == {"converges"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_steps", [300, 3000])
def test_heteroclinic_cycle_never_counts_as_settled(rng, dtype, num_steps):
    """A three-cycle at alpha = 1 visits vertices for ever longer: the policy stands still there, the loop does not."""
    starts = rng.dirichlet(np.ones(3), 60).astype(dtype)
    P = np.asarray(ipodyn.problems.three_cycle(0.3)).astype(dtype)
    names, variance = regimes(P, starts, alpha=1.0, beta=np.geomspace(0.3, 30, 60), lam=1.0, num_steps=num_steps)
    assert set(names) <= {"oscillates", "unresolved"}
    assert (variance > 1e-6).all()


def test_vertices_are_saddles_of_the_heteroclinic_cycle():
    """Started next to a vertex, long before the way back shows in any probability."""
    P = ipodyn.problems.three_cycle(0.3)
    names, _ = regimes(P, [[1 - 2e-13, 1e-13, 1e-13]] * 4, alpha=1.0, beta=[0.1, 0.3, 1, 3], lam=1.0, num_steps=10)
    assert set(names) == {"unresolved"}


def test_slow_drift_is_unresolved():
    """Off-policy at alpha = 1 logits move at a constant pace: slow enough, and it is neither at rest nor a cycle."""
    P = ipodyn.problems.bradley_terry(jnp.array([0.5, 0.0, -0.5]))
    names, _ = regimes(P, [[0.2, 0.3, 0.5]] * 3, alpha=1.0, beta=[0.003, 0.01, 0.03], lam=0.0, num_steps=300)
    assert names == ["unresolved"] * 3


def test_too_short_to_compare_windows_is_unresolved():
    loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.9, beta=8.0, lam=1.0)
    found = ipodyn.rollout(loop, [0.6, 0.3, 0.1], num_steps=60, window=60)
    assert Regime(int(ipodyn.classify(found))).name == "unresolved"
