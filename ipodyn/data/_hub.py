"""HelpSteer, from the hub or from a local copy."""

import os
import pathlib
import re

import numpy as np

from .._numerics.deprecation import renamed_keywords
from .._numerics.randomness import RandomKey, key_words
from ._ratings import ratings_to_set
from ._report import DataError
from ._set import PreferenceSet
from ._tables import ids, numbers, one_line, read_table, require_columns

HELPSTEER_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

_SPLITS = ("train", "validation")
_SUFFIXES = (".jsonl.gz", ".jsonl", ".parquet", ".csv.gz", ".csv")


@renamed_keywords("0.3", seed="key")
def load_helpsteer(
    source: str | os.PathLike[str] = "nvidia/HelpSteer",
    *,
    split: str = "train",
    group: int = 4,
    subsets: str = "disjoint",
    key: RandomKey = 0,
) -> PreferenceSet:
    """Preference matrices from HelpSteer: 35,331 responses, five attributes on 0..4, mostly four a prompt.

    As in the paper, K = 4: prompts with fewer responses are dropped and counted, prompts with eight give two
    groups. Prompts are numbered in order of first appearance and responses by their rows; the texts are not
    kept. `.cyclic()` and `.strongly_transitive()` of the result are the two sets of the paper's experiments.

    - `source`: a dataset of the hub, `owner/name`, whose file `<split>.jsonl.gz` is downloaded once to the
      cache of huggingface_hub (`pip install 'ipodyn[hub,io]'`); or a local file, or a folder with such a
      file. Columns: prompt, response, helpfulness, correctness, coherence, complexity, verbosity.
    - `split`: `"train"` or `"validation"`.   - `group`, `subsets`, `key`: see `load_ratings`.

    Raises `DataError`, one line, also when the hub cannot be reached.

    Source: Wang et al., HelpSteer, arXiv 2311.09528 (data, CC-BY-4.0); Chen et al., arXiv 2602.12180, section on
    experiments (its use here).
    """
    if split not in _SPLITS:
        raise DataError(f"unknown split {split!r}: choose train or validation")
    path = _locate(source, split)
    frame = read_table(path)
    require_columns(frame, ["prompt", "response", *HELPSTEER_ATTRIBUTES], path)
    name = pathlib.Path(source).name if pathlib.Path(source).exists() else source  # of a local copy without its path
    ratings = np.stack([numbers(frame, name, path) for name in HELPSTEER_ATTRIBUTES], axis=1)
    prompts = ids(frame, ["prompt"], path)[0]
    return ratings_to_set(
        path,
        prompts._replace(labels=list(range(len(prompts.labels)))),
        # Two models may well give the same text; a row is a response.
        None,
        ratings,
        group=group,
        subsets=subsets,
        scale=1.0,
        key=key,
        limit=1_000_000,
        source=f"HelpSteer {name} ({split}), {subsets} groups of {group}, seed {key_words(key)}",
    )


def _locate(source: str | os.PathLike[str], split: str) -> pathlib.Path:
    """The file of the split: in a local folder, a local file itself, or downloaded."""
    path = pathlib.Path(source)
    if path.is_dir():
        files = [path / f"{split}{suffix}" for suffix in _SUFFIXES if (path / f"{split}{suffix}").is_file()]
        if not files:
            raise DataError(f"{path}: the folder has no file {split}.jsonl.gz; put it there, or name the file itself")
        return files[0]
    if path.exists():
        return path
    if path.name.endswith(_SUFFIXES) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise DataError(f"{path}: no such file or folder; check the path, or give a dataset as owner/name")
    return _download(str(source), f"{split}.jsonl.gz")


def _download(dataset: str, filename: str) -> pathlib.Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("downloading a dataset needs huggingface_hub: pip install 'ipodyn[hub]'") from error
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(dataset, filename, repo_type="dataset"))
    except Exception as error:  # its HTTP layer raises errors of its own, which differ between versions
        raise DataError(
            f"could not download {filename} of dataset {dataset} ({one_line(error)}); without network "
            "access, copy the file here and pass its path"
        ) from error
