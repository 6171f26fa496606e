"""The attack on regimes at a small size: no cell that a map calls settled goes on moving in plain NumPy."""

import numpy as np
import pytest

from benchmarks.attacks import regimes

pytestmark = pytest.mark.slow

ROUNDS = 6_000  # twice what the map ran


def test_the_judge_knows_a_loop_that_turns_from_one_that_settles():
    """Three-cycles (0.3) at alpha = 0.9, lam = 1 are unstable exactly beyond beta = sqrt(3 (1 - 0.81)) / 0.3 = 2.52."""
    P = 0.5 + 0.3 * np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    start = np.tile([0.5, 0.3, 0.2], (2, 1))
    loops = np.stack([P, P]), np.full(2, 0.9), np.array([2.4, 2.6])
    turning = regimes.still_moving(*loops, 1.0, start, ROUNDS) > 1e-5
    assert turning.tolist() == [False, True]
    assert not (regimes.still_moving(*loops, 0.0, start, ROUNDS) > 1e-5).any()  # fixed data: no loop turns


def test_nothing_moving_is_called_settled(capsys):
    counts = regimes.attack(cells=800, rounds=ROUNDS, seed=1, sizes=[3, 4, 5, 6])
    assert counts["cells"] >= 800
    assert min(counts["converges"], counts["oscillates"]) > 100  # both verdicts are there to be wrong
    assert counts["false converges"] == counts["false collapses"] == 0, capsys.readouterr().out
