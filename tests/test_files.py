"""Files are whole or absent, however many write them and however they end."""

import pathlib
import threading

import numpy as np
import pytest

import ipodyn
from ipodyn._numerics.files import write_whole


def test_writers_of_one_file_do_not_meet(tmp_path):
    """Each finishes while the others are in the middle; what is there in the end is all of one writer's."""
    path, together = tmp_path / "table.csv", threading.Barrier(4)
    seen: list[pathlib.Path] = []

    def write(letter: str) -> None:
        def fill(scratch: pathlib.Path) -> None:
            seen.append(scratch)
            scratch.write_text(letter * 1000)
            together.wait(timeout=60)

        write_whole(path, fill)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 4 and {scratch.suffix for scratch in seen} == {".csv"}
    content = path.read_text()
    assert content in {letter * 1000 for letter in "abcd"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")

    def fill(scratch: pathlib.Path) -> None:
        scratch.write_text("half a")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_whole(path, fill)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_would_not_change_keeps_its_time(tmp_path):
    path = tmp_path / "table.csv"
    times = []
    for content, keep_equal in (("one", True), ("one", True), ("one", False), ("two", True)):
        write_whole(path, lambda scratch, content=content: scratch.write_text(content), keep_equal=keep_equal)
        times.append(path.stat().st_ino)  # a file of its own each time that it was replaced
        assert path.read_text() == content
    assert times[0] == times[1] and len({times[0], times[2]}) == len({times[2], times[3]}) == 2


def test_two_savers_of_a_set(tmp_path, monkeypatch):
    """The second begins while the first writes; both end, and the set is whole."""
    data, path, save = ipodyn.data.synthetic_helpsteer(num_prompts=5), tmp_path / "set.npz", np.savez
    nested = []

    def slow(file, **arrays):
        if not nested:
            nested.append(file)
            data.save(path)
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", slow)
    data.save(path)
    np.testing.assert_array_equal(ipodyn.data.load_preferences(path).P, data.P)
    assert list(tmp_path.iterdir()) == [path]
