"""Write `qre.json`: symmetric logit quantal response equilibria traced by Gambit.

Made with pygambit 16.7.0. The tests read only the JSON; to make it again:

    python -m venv venv && venv/bin/pip install pygambit==16.7.0 numpy
    venv/bin/python tests/golden/make_qre.py

The game is symmetric: both players name a response, and naming i against j pays P[i, j]. Gambit follows the
principal branch of the logit correspondence, pi = softmax(kappa * P @ pi) for each player, from kappa = 0. Entries
of P are multiples of 1/1024, so that P + P.T is exactly 1 and Gambit's decimals hold the same numbers. Nothing is
refined afterwards: `kappa` is the precision at which Gambit stopped, `policy` what it returned there.
"""

import json
from pathlib import Path

import numpy as np

SIZES = (2, 3, 4, 6)
KAPPAS = (0.5, 2.0, 5.0, 20.0, 60.0)
FAMILIES = {"random": 6, "cyclic": 3, "bradley_terry": 3}  # how many games of each, for every size
NOTES = [
    "family: how P was drawn, before its entries were rounded to multiples of 1/1024.",
    "policy: the symmetric logit QRE of the game with row payoff P at precision kappa, pi = softmax(kappa P pi).",
    "kappa is the precision at which Gambit stopped, near kappa_asked.",
    "residual: max |policy - softmax(kappa P policy)|, evaluated in float64 on the stored numbers.",
]


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def draw_game(family, size, rng):
    if family == "random":
        wins = rng.uniform(size=(size, size))
    elif family == "cyclic":  # each response beats those up to half a turn ahead
        ahead = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
        wins = np.where(ahead <= size // 2, 0.5, -0.5) * rng.uniform(0.3, 0.9, size=(size, size)) + 0.5
    else:
        rewards = rng.normal(size=size)
        wins = 1 / (1 + np.exp(rewards[None, :] - rewards[:, None]))
    upper = np.triu(np.round(wins * 1024) / 1024, 1)
    return upper + np.tril(1 - upper.T, -1) + np.eye(size) / 2


def solve(P):
    import pygambit  # pyright: ignore[reportMissingImports]
    from pygambit.qre import logit_solve_lambda  # pyright: ignore[reportMissingImports]

    game = pygambit.Game.from_arrays(P, P.T)
    found = []
    for asked, equilibrium in zip(KAPPAS, logit_solve_lambda(game, list(KAPPAS)), strict=True):
        row, column = (
            np.array([probability for _, probability in equilibrium.profile[player]]) for player in game.players
        )
        if not np.allclose(row, column, rtol=0, atol=1e-14):
            raise RuntimeError(f"the equilibrium at kappa = {asked} is not symmetric: {row}, {column}")
        kappa = equilibrium.lam
        found.append(
            {
                "kappa_asked": asked,
                "kappa": kappa,
                "policy": row.tolist(),
                "residual": float(np.abs(row - softmax(kappa * P @ row)).max()),
            }
        )
    return found


def main():
    import pygambit  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(1995)
    cases = []
    for size in SIZES:
        for family, count in FAMILIES.items():
            if family == "cyclic" and size < 3:
                continue  # two responses have no cycle
            for _ in range(count):
                P = draw_game(family, size, rng)
                cases.append({"family": family, "P": P.tolist(), "equilibria": solve(P)})
    made_by = f"pygambit {pygambit.__version__} (qre.logit_solve_lambda, default steps)"
    body = ",\n".join(json.dumps(case) for case in cases)  # one game a line
    text = f'{{"made_by": {json.dumps(made_by)},\n"notes": {json.dumps(NOTES)},\n"cases": [\n{body}\n]}}\n'
    Path(__file__).with_name("qre.json").write_text(text)


if __name__ == "__main__":
    main()
