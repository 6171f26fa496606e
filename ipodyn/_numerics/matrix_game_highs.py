"""The linear programme of sampler design by HiGHS, on the host."""

import numpy as np


def highs_game(payoff: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optimal strategies, column (K,) and row (M,), of the game on the masked rows of `payoff` (M, K), by HiGHS."""
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise ImportError("method='highs' needs scipy: pip install 'ipodyn[lp]'") from error
    payoff, rows = np.asarray(payoff, float), np.asarray(rows)
    active, K = payoff[rows], payoff.shape[1]
    # HiGHS knows absolute tolerances: give it a problem of size one.
    active = active / (np.abs(active).max() or 1.0)
    solution = linprog(
        np.r_[np.zeros(K), -1.0],
        A_ub=np.c_[-active, np.ones(len(active))],
        b_ub=np.zeros(len(active)),
        A_eq=np.r_[np.ones(K), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * K + [(None, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solution.status != 0:
        raise RuntimeError(f"HiGHS did not solve the linear programme: {solution.message}")
    column, row = np.maximum(solution.x[:K], 0.0), np.zeros(len(payoff))
    row[rows] = np.maximum(-solution.ineqlin.marginals, 0.0)
    return column / column.sum(), row / row.sum()
