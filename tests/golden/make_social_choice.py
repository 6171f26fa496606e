"""Makes `social_choice.json`: small margin matrices with what a social-choice library says of them.

The tests read the file and never run this script. To make it again, in a virtual environment of its own:

    pip install pref_voting==1.18.2 && python make_social_choice.py

Margins are integers, m[i][j] = votes for i over j less votes for j over i; 0 is a tie, so P = 1/2 + m / (2 n)
with n at least the largest margin has the same majority relation. `pairs` lists m[i][j], i < j, by row.
"""

# pyright: reportMissingImports=false
import importlib.metadata
import itertools
import json
import pathlib
import random

SEED = 20260212
PER_SIZE = 100
# Small ranges make ties and equal margins common; the last two have (almost) none.
RANGES = (
    [-1, 0, 1],
    [-1, -1, 0, 1, 1],
    [-3, -2, -1, 0, 1, 2, 3],
    [-5, -3, -1, 1, 3, 5],
    list(range(-20, 21)),
)


def margin_matrices(generator: random.Random):
    """All 27 sign patterns of K = 3, then random pairs up to PER_SIZE matrices for each K from 3 to 6."""
    for K in range(3, 7):
        number_of_pairs = K * (K - 1) // 2
        made = [list(signs) for signs in itertools.product([-1, 0, 1], repeat=3)] if K == 3 else []
        while len(made) < PER_SIZE:
            made.append(generator.choices(RANGES[len(made) % len(RANGES)], k=number_of_pairs))
        for pairs in made:
            yield K, pairs


def describe(K: int, pairs: list[int]) -> dict:
    """The library's answers; the lottery is certified here, since a failed solve returns uniform."""
    # Imported here: the test run imports every module for its doctests, and the library is no dependency.
    from pref_voting.c1_methods import copeland, schwartz_set, smith_set
    from pref_voting.probabilistic_methods import maximal_lottery
    from pref_voting.scoring_methods import borda
    from pref_voting.weighted_majority_graphs import MarginGraph

    labelled = list(zip(itertools.combinations(range(K), 2), pairs, strict=True))
    edges = [(i, j, m) if m > 0 else (j, i, -m) for (i, j), m in labelled if m != 0]
    graph = MarginGraph(list(range(K)), edges)
    margin = [[int(graph.margin(i, j)) for j in range(K)] for i in range(K)]
    lottery = maximal_lottery(graph, algorithm="lp")
    against = [sum(lottery[i] * margin[i][j] for i in range(K)) for j in range(K)]
    if min(against) < -1e-9:
        raise RuntimeError(f"the library's lottery loses a comparison: {pairs}")
    winner = graph.condorcet_winner()
    weak = graph.weak_condorcet_winner()
    copeland_scores = graph.copeland_scores()
    return {
        "K": K,
        "pairs": pairs,
        "condorcet_winner": -1 if winner is None else int(winner),
        "weak_condorcet_winners": sorted(map(int, weak or [])),
        "smith_set": sorted(map(int, smith_set(graph))),
        "schwartz_set": sorted(map(int, schwartz_set(graph))),
        "has_cycle": bool(graph.has_cycle()),
        "copeland_scores": [float(copeland_scores[i]) for i in range(K)],
        "copeland_winners": sorted(map(int, copeland(graph))),
        "borda_scores": [sum(row) for row in margin],
        "borda_winners": sorted(map(int, borda(graph, algorithm="marginal"))),
        "maximal_lottery": [round(float(lottery[i]), 12) + 0.0 for i in range(K)],
        # Odd margins between all pairs (an odd number of voters) leave exactly one maximal lottery.
        "maximal_lottery_unique": all(m % 2 == 1 for m in pairs),
    }


def main() -> None:
    cases = [describe(K, pairs) for K, pairs in margin_matrices(random.Random(SEED))]
    header = {
        "library": "pref_voting",
        "version": importlib.metadata.version("pref_voting"),
        "licence": "MIT",
        "made_by": "make_social_choice.py",
        "seed": SEED,
        "tie": "margin 0",
        "copeland_scores": "wins less losses",
        "borda_scores": "row sums of the margins",
    }
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    text = json.dumps(header)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    pathlib.Path(__file__).with_name("social_choice.json").write_text(text)


if __name__ == "__main__":
    main()
