"""Real and generated preference data: counts against brute force, and against the published ones where these apply."""

import csv
import itertools
import math

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


def check_against_brute_force(data):
    np.testing.assert_array_equal(data.cyclic().P, data.P[has_cycle(data.P)])
    np.testing.assert_array_equal(data.strongly_transitive().P, data.P[has_order(data.P)])
    strict = data.strongly_transitive(strict=True)
    np.testing.assert_array_equal(strict.P, data.P[has_order(data.P, strict=True)])
    assert len(data) == 0 or 0 < len(data.strongly_transitive()) <= len(data)
    np.testing.assert_array_equal(data.P + data.P.swapaxes(1, 2), 1.0)
    assert (np.diagonal(data.P, axis1=1, axis2=2) == 0.5).all()


def accounts_for_every_row(report, path):
    rows = len(path.read_text().splitlines()) - 1
    return report.rows_read == rows == report.rows_used + sum(report.rows_dropped.values())


def verdicts(extracts, queries="oa"):
    """{prompt: {(first, second): score of the first}}, read off the original file without the loader."""
    scores = {}
    with (extracts.folder / f"qlora_{queries}_gpt4_pairs.csv").open() as file:
        for row in csv.DictReader(file):
            if row["verdict"] != "-1":
                prompt, pair = int(row["prompt_id"]), (int(row["model_1"]), int(row["model_2"]))
                scores.setdefault(prompt, {})[pair] = {"1": 1.0, "2": 0.0, "3": 0.5}[row["verdict"]]
    return scores


def complete(scores, models, group):
    """The number of (prompt, group) in which every pair was judged in both orders."""
    groups = list(itertools.combinations(models, group))
    pairs = [set(itertools.permutations(members, 2)) for members in groups]
    return sum(wanted <= seen.keys() for seen in scores.values() for wanted in pairs)


# The numbers below are those published with the extracts, for the same deterministic construction.


def test_qlora_complete_tournaments(extracts, tmp_path):
    path = convert.qlora(extracts.folder, tmp_path)
    data = ipodyn.data.load_pairs(path, both_orders=True)
    scores = verdicts(extracts)
    assert data.P.shape == (complete(scores, (0, 1, 2, 3, 4, 6, 7), 7), 7, 7)
    check_against_brute_force(data)
    assert len(data.cyclic()) > 0 and len(data.strongly_transitive(strict=True)) == 0
    assert accounts_for_every_row(data.report, path)
    assert data.report.prompts_read == len(scores) > data.report.prompts_used == len(data)
    assert np.isin(data.P, [0, 0.25, 0.5, 0.75, 1]).all()
    if extracts.published:
        assert counts(data) == (841, 64, 214) and len(scores) == 953


def test_qlora_matrix_equals_one_filled_in_by_hand(extracts, tmp_path):
    """P_ij = (s_ij + 1 - s_ji) / 2, read off the original file without the loader."""
    scores = verdicts(extracts)
    data = ipodyn.data.load_pairs(convert.qlora(extracts.folder, tmp_path), both_orders=True)
    for m in range(0, len(data), 60):
        seen = scores[int(data.prompts[m])]
        for a, i in enumerate(data.responses[m].tolist()):
            for b, j in enumerate(data.responses[m].tolist()):
                if i != j:
                    assert data.P[m, a, b] == (seen[i, j] + 1 - seen[j, i]) / 2


@pytest.mark.parametrize(
    ("queries", "group", "published"),
    [
        ("oa", 4, (31_951, 351, 25_184)),
        ("oa", 3, (32_599, 96, 30_651)),
        ("vicuna", None, (69, 3, 7)),
        ("vicuna", 4, (5_412, 23, 4_200)),
    ],
)
def test_qlora_subsets(extracts, tmp_path, queries, group, published):
    path = convert.qlora(extracts.folder, tmp_path, queries)
    data = ipodyn.data.load_pairs(path, group=group, subsets="all", both_orders=True)
    models = {"oa": (0, 1, 2, 3, 4, 6, 7), "vicuna": range(8)}[queries]
    assert len(data) == complete(verdicts(extracts, queries), models, group or len(models))
    assert accounts_for_every_row(data.report, path)
    if group is not None:
        check_against_brute_force(data)
    if extracts.published:
        assert counts(data) == published


@pytest.mark.parametrize(
    ("group", "published", "strict"), [(3, (467, 1, 455), 21), (4, (132, 0, 117), 0), (5, (20, 0, 16), 0)]
)
def test_pandalm_subsets(extracts, tmp_path, group, published, strict):
    """Scores in sixths: an equal mean of votes must be an equal entry, or strong transitivity is miscounted."""
    path = convert.pandalm(extracts.folder, tmp_path)
    data = ipodyn.data.load_pairs(path, group=group, subsets="all")
    check_against_brute_force(data)
    np.testing.assert_allclose(6 * data.P, np.rint(6 * data.P), rtol=0, atol=1e-10)  # means are kept to 2^-40
    assert accounts_for_every_row(data.report, path)
    if extracts.published:
        assert counts(data) == published
        assert len(data.strongly_transitive(strict=True)) == strict


@pytest.mark.parametrize(("name", "published"), [("hanna", (192, 25.6, 41.1)), ("summeval", (400, 20.0, 127.0))])
def test_ratings_in_disjoint_groups(extracts, tmp_path, name, published):
    """The published means are over 20 seeded draws of another generator, these over 8. Each count is a sum over
    nearly independent matrices, so binomial at most: means of 20 and 8 differ by sqrt(1 / 20 + 1 / 8) of its
    deviation, and the bound is four of those.
    """
    path = getattr(convert, name)(extracts.folder, tmp_path)
    axes = {"hanna": convert.HANNA_AXES, "summeval": convert.SUMMEVAL_AXES}[name]
    prompts, systems = {"hanna": (48, 11), "summeval": (40, 16)}[name]
    found = []
    for seed in range(8):
        data = ipodyn.data.load_ratings(
            path, prompt="prompt_id", response="system_id", attributes=axes, group=4, key=seed
        )
        found.append(counts(data))
        if seed == 0:
            assert accounts_for_every_row(data.report, path)
            check_against_brute_force(data)
    made, cycles, orders = np.mean(found, axis=0)
    if not extracts.published:
        assert made == prompts * (systems // 4) and cycles > 0 and orders > 0
        return
    assert made == published[0]
    for mean, expected in ((cycles, published[1]), (orders, published[2])):
        deviation = np.sqrt(expected * (1 - expected / made))
        assert abs(mean - expected) < 4 * np.sqrt(1 / 20 + 1 / 8) * deviation


def test_each_entry_is_one_axis_of_its_two_responses(extracts, tmp_path):
    """sigmoid(r_i - r_j) on one axis, each axis equally often: read off the table without the loader."""
    path = convert.hanna(extracts.folder, tmp_path)
    data = ipodyn.data.load_ratings(
        path, prompt="prompt_id", response="system_id", attributes=convert.HANNA_AXES, group=4
    )
    with path.open() as file:
        ratings = {
            (int(row["prompt_id"]), int(row["system_id"])): np.array([float(row[a]) for a in convert.HANNA_AXES])
            for row in csv.DictReader(file)
        }
    picked = np.zeros(len(convert.HANNA_AXES))
    for P, prompt, responses in zip(data.P, data.prompts, data.responses, strict=True):
        for i, j in itertools.combinations(range(4), 2):
            gap = ratings[int(prompt), int(responses[i])] - ratings[int(prompt), int(responses[j])]
            fits = np.abs(P[i, j] - 1 / (1 + np.exp(-gap))) < 1e-12
            assert fits.any()
            picked += fits / fits.sum()
    # Axes that agree share a pair, which only lowers the spread of these counts below the binomial one.
    expected = picked.sum() / len(picked)
    assert (np.abs(picked - expected) < 4 * np.sqrt(expected)).all()


def test_ratings_in_all_subsets(extracts, tmp_path):
    """31,680 matrices a draw; the published means, 3,981 and 6,691, are over 20 draws. Overlapping subsets
    share responses but not draws, so the spread over draws is about binomial (60 and 73): the bound is five
    of these.
    """
    path = convert.hanna(extracts.folder, tmp_path)
    data = ipodyn.data.load_ratings(
        path, prompt="prompt_id", response="system_id", attributes=convert.HANNA_AXES, subsets="all"
    )
    made, cycles, orders = counts(data)
    assert made == (96 if extracts.published else 48) * math.comb(11, 4)
    check_against_brute_force(data)
    if extracts.published:
        assert abs(cycles - 3_981) < 5 * 60
        assert abs(orders - 6_691) < 5 * 73


def test_one_attribute_gives_no_cycle(extracts, tmp_path):
    """Entries of one attribute are a Bradley-Terry matrix: strongly transitive, without exception."""
    path = convert.hanna(extracts.folder, tmp_path)
    data = ipodyn.data.load_ratings(path, prompt="prompt_id", attributes=["empathy"], subsets="all")
    number = (96 if extracts.published else 48) * math.comb(11, 4)
    assert counts(data) == (number, 0, number)
