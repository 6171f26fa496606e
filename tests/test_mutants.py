"""The errors that `tests/mutants` puts into the code are well-formed: valid Python, at one place, in an area."""

import ast
import json
import pathlib
import sys

import pytest

MUTANTS = pathlib.Path(__file__).resolve().parent / "mutants"
sys.path.insert(0, str(MUTANTS))

import areas  # noqa: E402
import operators  # noqa: E402


def test_every_file_belongs_to_one_area_or_is_left_out_for_a_reason():
    assert not areas.unknown(), "add these to AREAS or LEFT_OUT in tests/mutants/areas.py"
    named = [name for files in areas.AREAS.values() for name in files]
    assert len(named) == len(set(named)) and not set(named) & set(areas.LEFT_OUT)
    for area in areas.AREAS:
        for test in areas.all_tests(area):
            assert (areas.ROOT / test).is_file(), test


def test_the_sample_is_the_same_each_time_and_of_every_area():
    drawn = operators.sample(39, 0, list(areas.AREAS))
    assert drawn == operators.sample(39, 0, list(areas.AREAS)) != operators.sample(39, 1, list(areas.AREAS))
    assert [sum(area == found for found, _ in drawn) for area in areas.AREAS] == [3] * 13
    alone = operators.sample(39, 0, ["newton"])  # what one area gets does not depend on the others
    assert alone == [item for item in drawn if item[0] == "newton"]
    for _, error in drawn:
        source = (areas.ROOT / error.file).read_text()
        changed = source[: error.start] + error.new + source[error.end :]
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = a - b", {"x = a + b", "x = a"}),
        ("x = a <= b", {"x = a < b", "x = a > b"}),
        ("x = not a", {"x = a"}),
        ("x = a and b", {"x = a or b"}),
        ("x = 3", {"x = 4", "x = (2)"}),
        ("x = True", {"x = False"}),
        ("f(a, b)", {"f(b, a)", "pass"}),
        ("x = f(a, k=b)", {"x = f(a)"}),
        ("x = min(a)", {"x = max(a)"}),
        ("x = a[:n]", {"x = a[:n + 1]"}),
        ("x = range(n)", {"x = range(n - 1)"}),
        ("x: Float[Array, 'K'] = a", set()),
        ("raise ValueError(f'{a - b}')", {"pass"}),
    ],
)
def test_rules_by_hand(line, found):
    made = operators.errors("one.py", f"{line}\n")
    assert {line[: error.start] + error.new + line[error.end :] for error in made} == found


def test_recorded_errors_have_their_fields():
    for name, fields in (("errors", {"id", "file", "old", "new", "note"}), ("equivalents", {"id", "equivalent"})):
        rows = [json.loads(line) for line in (MUTANTS / f"{name}.jsonl").read_text().splitlines()]
        assert len({row["id"] for row in rows}) == len(rows) and all(fields <= row.keys() for row in rows)
        assert all((areas.ROOT / row["file"]).is_file() for row in rows if "file" in row)


ERRORS = [json.loads(line) for line in (MUTANTS / "errors.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row["id"])
def test_a_recorded_error_can_be_put_in_and_its_tests_exist(row):
    source = (areas.ROOT / row["file"]).read_text()
    assert source.count(row["old"]) == 1, f"stands {source.count(row['old'])} times in {row['file']}: {row['old']!r}"
    changed = source.replace(row["old"], row["new"])
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    for test in row.get("tests", []):
        file, _, name = test.partition("::")
        defined = {
            node.name
            for node in ast.walk(ast.parse((areas.ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert not name or name.partition("[")[0].rpartition("::")[2] in defined, test
