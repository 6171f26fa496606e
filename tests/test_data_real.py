"""Real preference data: counts against brute force, and against the published ones where these apply."""

import csv
import itertools

import numpy as np
import pytest
import real_data as convert

import ipodyn.data


def has_cycle(P):
    """(M,) bool: some response reaches itself along strict majorities (transitive closure by squaring)."""
    reach = P > 0.5
    for _ in range(int(np.ceil(np.log2(P.shape[-1]))) + 1):
        reach = reach | (reach[:, :, :, None] & reach[:, None, :, :]).any(axis=2)
    return np.diagonal(reach, axis1=1, axis2=2).any(axis=1)


def has_order(P, strict=False):
    """(M,) bool: the definition, tried on every one of the K! orders."""
    rows = (P[:, :, None, :], P[:, None, :, :])
    above = (rows[0] > rows[1] if strict else rows[0] >= rows[1]).all(axis=-1)
    K = P.shape[-1]
    first, second = np.triu_indices(K, 1)
    holds = np.zeros(len(P), bool)
    for order in itertools.permutations(range(K)):
        order = np.asarray(order)
        holds |= above[:, order[first], order[second]].all(axis=1)
    return holds


def counts(data):
    return len(data), len(data.cyclic()), len(data.strongly_transitive())


def check_against_brute_force(data, cyclic, transitive):
    np.testing.assert_array_equal(data.cyclic().P, data.P[has_cycle(data.P)])
    np.testing.assert_array_equal(data.strongly_transitive().P, data.P[has_order(data.P)])
    strict = data.strongly_transitive(strict=True)
    np.testing.assert_array_equal(strict.P, data.P[has_order(data.P, strict=True)])
    assert (len(data.cyclic()), len(data.strongly_transitive())) == (cyclic, transitive)
    np.testing.assert_array_equal(data.P + data.P.swapaxes(1, 2), 1.0)
    assert (np.diagonal(data.P, axis1=1, axis2=2) == 0.5).all()


def accounts_for_every_row(report, path):
    rows = len(path.read_text().splitlines()) - 1
    return report.rows_read == rows == report.rows_used + sum(report.rows_dropped.values())


# The expected counts are those published with the extracts, for the same deterministic construction.


def test_qlora_complete_tournaments(real_data, tmp_path):
    path = convert.qlora(real_data, tmp_path)
    data = ipodyn.data.load_pairs(path, both_orders=True)
    assert data.P.shape == (841, 7, 7)
    check_against_brute_force(data, cyclic=64, transitive=214)
    assert len(data.strongly_transitive(strict=True)) == 0
    assert accounts_for_every_row(data.report, path)
    assert data.report.prompts_read == 953 and data.report.prompts_used == 841
    assert np.isin(data.P, [0, 0.25, 0.5, 0.75, 1]).all()


def test_qlora_matrix_equals_one_filled_in_by_hand(real_data, tmp_path):
    """P_ij = (s_ij + 1 - s_ji) / 2, read off the original file without the loader."""
    scores = {}
    with (real_data / "qlora_oa_gpt4_pairs.csv").open() as file:
        for row in csv.DictReader(file):
            verdict = row["verdict"]
            if verdict != "-1":
                pair = int(row["prompt_id"]), int(row["model_1"]), int(row["model_2"])
                scores[pair] = {"1": 1.0, "2": 0.0, "3": 0.5}[verdict]
    data = ipodyn.data.load_pairs(convert.qlora(real_data, tmp_path), both_orders=True)
    for m in range(0, 841, 60):
        p = int(data.prompts[m])
        for a, i in enumerate(data.responses[m].tolist()):
            for b, j in enumerate(data.responses[m].tolist()):
                if i != j:
                    assert data.P[m, a, b] == (scores[p, i, j] + 1 - scores[p, j, i]) / 2


@pytest.mark.parametrize(
    ("queries", "group", "expected"),
    [
        ("oa", 4, (31_951, 351, 25_184)),
        ("oa", 3, (32_599, 96, 30_651)),
        ("vicuna", None, (69, 3, 7)),
        ("vicuna", 4, (5_412, 23, 4_200)),
    ],
)
def test_qlora_subsets(real_data, tmp_path, queries, group, expected):
    path = convert.qlora(real_data, tmp_path, queries)
    data = ipodyn.data.load_pairs(path, group=group, subsets="all", both_orders=True)
    assert counts(data) == expected
    assert accounts_for_every_row(data.report, path)
    if group is not None:
        check_against_brute_force(data, *expected[1:])


@pytest.mark.parametrize(
    ("group", "expected", "strict"), [(3, (467, 1, 455), 21), (4, (132, 0, 117), 0), (5, (20, 0, 16), 0)]
)
def test_pandalm_subsets(real_data, tmp_path, group, expected, strict):
    """Scores in sixths: an equal mean of votes must be an equal entry, or strong transitivity is "
    "miscounted."""
    path = convert.pandalm(real_data, tmp_path)
    data = ipodyn.data.load_pairs(path, group=group, subsets="all")
    assert counts(data) == expected
    assert len(data.strongly_transitive(strict=True)) == strict
    check_against_brute_force(data, *expected[1:])
    assert accounts_for_every_row(data.report, path)


@pytest.mark.parametrize(
    ("name", "matrices", "cyclic", "transitive"), [("hanna", 192, 25.6, 41.1), ("summeval", 400, 20.0, 127.0)]
)
def test_ratings_in_disjoint_groups(real_data, tmp_path, name, matrices, cyclic, transitive):
    """The published means are over 20 seeded draws of another generator, these over 8. Each count is a sum over
    nearly independent matrices, so binomial at most: means of 20 and 8 differ by sqrt(1 / 20 + 1 / 8) of its
    deviation, and the bound is four of those.
    """
    path = getattr(convert, name)(real_data, tmp_path)
    axes = {"hanna": convert.HANNA_AXES, "summeval": convert.SUMMEVAL_AXES}[name]
    found = []
    for seed in range(8):
        data = ipodyn.data.load_ratings(
            path, prompt="prompt_id", response="system_id", attributes=axes, group=4, seed=seed
        )
        found.append(counts(data))
        if seed == 0:
            assert accounts_for_every_row(data.report, path)
            check_against_brute_force(data, *counts(data)[1:])
    made, cycles, orders = np.mean(found, axis=0)
    assert made == matrices
    for mean, published in ((cycles, cyclic), (orders, transitive)):
        deviation = np.sqrt(published * (1 - published / matrices))
        assert abs(mean - published) < 4 * np.sqrt(1 / 20 + 1 / 8) * deviation


def test_ratings_in_all_subsets(real_data, tmp_path):
    """31,680 matrices a draw; the published means, 3,981 and 6,691, are over 20 draws. Overlapping subsets
    share responses but not draws, so the spread over draws is about binomial (60 and 73): the bound is five
    of these.
    """
    path = convert.hanna(real_data, tmp_path)
    data = ipodyn.data.load_ratings(
        path, prompt="prompt_id", response="system_id", attributes=convert.HANNA_AXES, subsets="all"
    )
    made, cycles, orders = counts(data)
    assert made == 31_680
    assert abs(cycles - 3_981) < 5 * 60
    assert abs(orders - 6_691) < 5 * 73
    check_against_brute_force(data, cycles, orders)


def test_one_attribute_gives_no_cycle(real_data, tmp_path):
    """Entries of one attribute are a Bradley-Terry matrix: strongly transitive, without exception."""
    path = convert.hanna(real_data, tmp_path)
    data = ipodyn.data.load_ratings(path, prompt="prompt_id", attributes=["empathy"], subsets="all")
    assert counts(data) == (31_680, 0, 31_680)
