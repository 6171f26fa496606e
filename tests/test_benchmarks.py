"""The benchmarks at tiny sizes: peers agree with each other and with float64, and reports have their fields."""

import json

import numpy as np
import pytest

from benchmarks import jobs, report, timing
from benchmarks.peers import Unavailable, cpp_peer, ipodyn_peer, numba_peer, numpy_peer, scan_peer, torch_peer
from benchmarks.rows import rates

pytestmark = pytest.mark.slow  # builds the C++ peer and compiles every other one


@pytest.fixture(scope="module", autouse=True)
def quick_build():
    cpp_peer.EXTRA_OPTIONS.append("-DSMALL_ONLY")
    yield
    cpp_peer.EXTRA_OPTIONS.clear()
    cpp_peer.library.cache_clear()


@pytest.fixture(scope="module")
def job() -> jobs.Job:
    return jobs.mixed_job(4, 3, 150, side=5)  # 75 trajectories: not a whole number of vectors


@pytest.fixture(scope="module")
def exact(job: jobs.Job) -> jobs.Statistics:
    """Rollouts in float64 with every policy kept, and NumPy's own variance."""
    P, alpha, beta, lam = (x.astype(np.float64) for x in job.arrays())
    policy = np.full(P.shape[1:], 1 / job.K)
    uniform, orbit = policy, []
    for _ in range(job.num_steps):
        mu = lam * policy + (1 - lam) * uniform
        weights = policy**alpha * np.exp(beta * np.einsum("ijn,jn->in", P, mu))
        policy = weights / weights.sum(axis=0)
        orbit.append(policy)
    entropy = -np.sum(policy * np.log(policy), axis=0)
    return jobs.Statistics(np.var(orbit, axis=0).sum(axis=0), entropy)


@pytest.mark.parametrize("peer", [ipodyn_peer, numpy_peer, scan_peer, cpp_peer, torch_peer], ids=lambda peer: peer.NAME)
def test_peers_agree_with_float64(peer, job, exact):
    try:
        found = peer.prepare(job)()
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert found.variance.shape == found.entropy.shape == (job.num_trajectories,)
    assert found.variance.dtype == np.float32
    agreed = jobs.agreement(job, exact, found)
    assert agreed.agree, agreed


@pytest.mark.slow  # numba takes long to compile
def test_numba_agrees_with_float64(job, exact):
    pytest.importorskip("numba")
    assert jobs.agreement(job, exact, numba_peer.prepare(job)()).agree


def test_agreement_sees_a_wrong_peer(job, exact):
    certified = job.certified()
    assert 0.1 < certified.mean() < 0.9  # both kinds of trajectories are compared
    wrong = exact.entropy + 1e-3 * (np.arange(certified.size) == np.flatnonzero(certified)[0])
    assert not jobs.agreement(job, exact, jobs.Statistics(exact.variance, wrong)).agree
    assert not jobs.agreement(job, exact, jobs.Statistics(1.1 * exact.variance, exact.entropy)).agree
    assert not jobs.agreement(job, exact, jobs.Statistics(np.full_like(exact.variance, np.nan), exact.entropy)).agree


@pytest.mark.parametrize("K", [3, 8])
def test_compiled_peer_at_other_sizes(K):
    job = jobs.mixed_job(K, 1, 100, side=5)
    try:
        found = cpp_peer.prepare(job)()
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert jobs.agreement(job, numpy_peer.prepare(job)(), found).agree


def test_exponential_of_the_compiled_peer():
    x = np.linspace(-86, 0, 1 << 16, dtype=np.float32)
    try:
        found = cpp_peer.exponentials(x)
    except Unavailable as reason:
        pytest.skip(str(reason))
    # 1 ulp is at most 2^-23 relative
    assert np.max(np.abs(found / np.exp(x.astype(np.float64)) - 1)) < 2 * 2.0**-23


def test_jobs_hold_what_they_promise():
    moving = jobs.moving_job(5, 2, 400, side=3)
    for job in (moving, jobs.mixed_job(4, 2, 10)):
        assert np.all(job.P + np.swapaxes(job.P, 1, 2) == 1)
        assert job.P.min() >= 0
    arrays = moving.arrays()
    grid = (2, 3, 3)
    assert np.array_equal(arrays.alpha.reshape(grid)[0, :, 0], moving.alpha)
    assert np.array_equal(arrays.beta.reshape(grid)[1, 2], moving.beta)
    assert np.array_equal(arrays.P.reshape(5, 5, *grid)[..., 1, 0, 2], moving.P[1])
    # nothing settles: also late, every trajectory moves
    late = numpy_peer.prepare(moving)().variance
    assert late.min() > 1e-3


def test_interleaved_pairs_measure_ratios(monkeypatch):
    clock = iter(np.cumsum([0, 9, 0, 9, 0, 1, 0, 2, 0, 1, 0, 4]))  # warm up 9 and 9, then 1 and 2, 1 and 4 seconds
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    pair = timing.interleaved(lambda: "a", lambda: "b", 2, work_a=10, work_b=5)
    assert (pair.ratio.smallest, pair.ratio.largest, pair.ratio.median) == (4, 8, 6)
    assert (pair.first_a, pair.first_b, pair.output_a, pair.output_b) == (8, 6, "a", "b")
    assert pair.ratio.inverse().smallest == 1 / 8


def test_rows_and_their_report(job, monkeypatch, tmp_path):
    monkeypatch.setattr(rates, "mixed_job", lambda *_: job)  # compiled already
    row = rates.compare(numpy_peer, job, 0.5, 1e-9, rates.Settings(repeats=1))
    assert row.met() and row.agree, row
    rows = [row, report.missing("another", "no such thing"), report.Row("s", timing.Spread.of([2.0]), 1, at_most=True)]
    assert rows[1].met() is None and rows[2].met() is False
    assert "not available" in report.line(rows[1]) and "MISSED by 100%" in report.line(rows[2])
    report.write_json(tmp_path / "report.json", report.machine(), rows, 1.0)
    found = json.loads((tmp_path / "report.json").read_text())
    assert {"machine", "seconds", "peak_memory_bytes", "rows"} <= found.keys()
    assert {"processor", "cores", "load_average_at_start", "versions", "devices", "xla_flags"} <= found[
        "machine"
    ].keys()
    first = found["rows"][0]
    assert first["value"]["smallest"] <= first["value"]["median"] <= first["value"]["largest"]
    assert first["details"]["rate_peer"]["median"] > 0 and "compile_seconds_ipodyn" in first["details"]
    assert [r["available"] for r in found["rows"]] == [True, False, True]
