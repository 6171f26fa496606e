"""Arrays from NumPy files and HelpSteer from the hub: what they read, and their one-line errors on bad input."""

import numpy as np
import pytest
from data_files import adds_up, error, helpsteer, write
from preferences import complementary

from ipodyn.data import load_helpsteer, load_preferences, load_ratings


def matrices(rng, M=3, K=4):
    return complementary(rng.random((M, K, K)))


def test_arrays_are_read(rng, tmp_path):
    P = matrices(rng)
    np.save(tmp_path / "many.npy", P)
    np.save(tmp_path / "one.npy", P[0])
    np.savez(tmp_path / "named.npz", other=np.zeros(2), P=P, prompts=np.array(["a", "b", "c"]))
    np.savez_compressed(tmp_path / "single.npz", anything=P)
    np.savez(tmp_path / "preferences.npz", preferences=P, other=np.zeros(2))
    for name in ("many.npy", "named.npz", "single.npz", "preferences.npz"):
        np.testing.assert_array_equal(load_preferences(tmp_path / name).P, P)
    one = load_preferences(tmp_path / "one.npy")
    np.testing.assert_array_equal(one.P, P[:1])
    assert one.source == "preferences one.npy" and not one.synthetic
    assert load_preferences(tmp_path / "named.npz").prompts.tolist() == ["a", "b", "c"]
    assert "matrices  3 read, 3 used, 0 dropped" in str(load_preferences(tmp_path / "many.npy").report)


def test_coarse_arrays_become_complementary(rng, tmp_path):
    P = matrices(rng, M=50).astype(np.float32)
    np.save(tmp_path / "coarse.npy", P)
    loaded = load_preferences(tmp_path / "coarse.npy").P
    np.testing.assert_allclose(loaded, P, rtol=0, atol=2**-23)
    np.testing.assert_allclose(loaded + loaded.swapaxes(1, 2), 1, rtol=0, atol=4e-16)
    np.save(tmp_path / "whole.npy", np.array([[0.5, 1], [0, 0.5]]))
    assert load_preferences(tmp_path / "whole.npy").P[0, 0, 1] == 1


def test_bad_arrays_are_named_with_a_cure(rng, tmp_path):
    P = matrices(rng)
    broken, high, hole = P.copy(), P.copy(), P.copy()
    broken[1, 0, 2], high[0, 0, 1], hole[2, 1, 0] = 1 - broken[1, 0, 2] / 2, 1.5, np.nan
    cases = {
        "broken": (broken, "must sum to 1"),
        "high": (high, "outside [0, 1]"),
        "hole": (hole, "nan"),
        "flat": (np.zeros(3), "array 'P' has shape (3,); it must be (M, K, K) or (K, K)"),
        "oblong": (np.zeros((2, 3, 4)), "has shape (2, 3, 4)"),
        "none": (np.zeros((0, 3, 3)), "not empty"),
        "text": (np.array([["a"]]), "has dtype <U1; it must hold real numbers"),
        "complex": (np.ones((2, 2), complex), "has dtype complex128"),
    }
    for name, (array, words) in cases.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, array)
        message = error(load_preferences, path)
        assert str(path) in message and words in message, message
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=P, b=P)
    np.savez(tmp_path / "prompts.npz", P=P, prompts=np.arange(2))
    np.savez(tmp_path / "whole.npz", P=P)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:200])
    (tmp_path / "garbage.npy").write_bytes(b"no numbers")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "broken.npy").read_bytes()[:150])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, words in (
        ("objects.npy", "cannot be read as a NumPy file"),
        ("several.npz", "holds the arrays 'a', 'b'; call the preference matrices 'P'"),
        ("prompts.npz", "`prompts` (2,) and `responses` (3, 4) do not fit the 3 matrices of 4 responses"),
        ("cut.npz", "cannot be read as a NumPy file"),
        ("garbage.npy", "cannot be read as a NumPy file"),
        ("cut.npy", "cannot be read as a NumPy file"),
        ("empty.npy", "is empty; give a file with data"),
        ("absent.npy", "no such file; check the path"),
        ("P.csv", "unknown kind of array file '.csv'; give .npy or .npz"),
    ):
        message = error(load_preferences, tmp_path / name)
        assert message.startswith(str(tmp_path / name)) and words in message, message


def test_helpsteer_from_the_hub(rng, tmp_path, monkeypatch):
    import huggingface_hub

    path = helpsteer(tmp_path / "train.jsonl.gz", rng)
    asked = []

    def download(repo_id, filename, *, repo_type):
        asked.append((repo_id, filename, repo_type))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    data = load_helpsteer(key=1)
    assert asked == [("nvidia/HelpSteer", "train.jsonl.gz", "dataset")]
    assert data.P.shape == (6, 4, 4) and not data.synthetic
    assert data.prompts.tolist() == [0, 0, 1, 2, 3, 4]
    assert adds_up(data.report, 27) and data.report.rows_used == 24
    assert data.report.rows_dropped == {"of prompts with fewer than 4 usable responses": 3}
    assert "nvidia/HelpSteer (train)" in data.source
    for source in (path, tmp_path):
        np.testing.assert_array_equal(load_helpsteer(source, key=1).P, data.P)
    assert asked == [("nvidia/HelpSteer", "train.jsonl.gz", "dataset")]
    load_helpsteer("someone/copy", split="validation")
    assert asked[-1] == ("someone/copy", "validation.jsonl.gz", "dataset")


def test_helpsteer_errors(rng, tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("cannot reach the hub\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = error(load_helpsteer)
    assert "could not download train.jsonl.gz of dataset nvidia/HelpSteer (cannot reach the hub)" in message
    assert "copy the file here and pass its path" in message
    assert "unknown split 'test': choose train or validation" in error(load_helpsteer, split="test")
    assert "no such file or folder" in error(load_helpsteer, tmp_path / "absent")
    assert "no such file or folder" in error(load_helpsteer, "data/train.jsonl")
    assert "the folder has no file train.jsonl.gz" in error(load_helpsteer, tmp_path)
    path = write(tmp_path / "train.csv", "prompt,response,helpfulness\np,r,1\n")
    words = "no columns 'correctness', 'coherence', 'complexity', 'verbosity'; the table has 'prompt'"
    assert words in error(load_helpsteer, path)


@pytest.mark.parametrize(
    ("module", "call", "cure"),
    [
        ("polars", lambda path: load_ratings(path, prompt="prompt", attributes=["help"]), "pip install 'ipodyn[io]'"),
        ("huggingface_hub", lambda path: load_helpsteer(), "pip install 'ipodyn[hub]'"),
    ],
)
def test_missing_extra_is_one_line(rng, tmp_path, monkeypatch, module, call, cure):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    path = write(tmp_path / "t.csv", "prompt,help,style\np,1,2\n")
    with pytest.raises(ImportError) as caught:
        call(path)
    assert cure in str(caught.value) and "\n" not in str(caught.value)
