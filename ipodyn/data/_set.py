"""A set of preference matrices with the names of its prompts and responses and the account of its making."""

import copy
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._numerics.checks import check_preference
from .._numerics.files import write_whole
from .._preferences.structure import has_cycle, strong_order
from ._report import DataError, LoadReport

_CHUNK = 8192  # matrices judged at once: bounds memory, and one compiled shape serves a whole set


@dataclasses.dataclass(frozen=True, eq=False)
class PreferenceSet:
    """`M` preference matrices over `K` responses each.

    - `P`: shape (M, K, K), float64; `P[m, i, j]` = Pr(i beats j) in matrix m.
    - `prompts`: shape (M,), the prompt each matrix belongs to. Ids that are long texts are replaced by
      running numbers in order of first appearance.
    - `responses`: shape (M, K), the ids of the responses behind the rows of each matrix.
    - `report`: what was read, used, dropped and filtered.
    - `source`: one line that says where the matrices come from, for the provenance of results.
    - `synthetic`: whether a generator made them.
    - `counts`: shape (M, K, K), how many comparisons (or what weight of them) each entry rests on, or None where the
      data hold none.

    Filters return new sets and note themselves in the report. A dataclass on the host, since ids are texts: what goes
    to the devices is `P`. Raises `DataError` where `P` holds no preferences (`check_preference`) or shapes do not fit:
    what takes a set need not look at its values again.

    >>> import ipodyn
    >>> data = ipodyn.data.synthetic_helpsteer(num_prompts=50)
    >>> data.P.shape
    (50, 4, 4)
    >>> len(data.strongly_transitive()) <= len(data)
    True
    """

    P: np.ndarray
    prompts: np.ndarray
    responses: np.ndarray
    report: LoadReport
    source: str
    synthetic: bool = False
    counts: np.ndarray | None = None

    def __post_init__(self) -> None:
        M, K = self.P.shape[:2] if self.P.ndim == 3 else (0, 0)
        if self.P.ndim != 3 or self.P.shape != (M, K, K) or self.P.dtype != np.float64:
            raise DataError(f"`P` must have shape (M, K, K) in float64, not {self.P.shape} in {self.P.dtype}")
        if self.prompts.shape != (M,) or self.responses.shape != (M, K):
            raise DataError(
                f"`prompts` {self.prompts.shape} and `responses` {self.responses.shape} must have shapes "
                f"{(M,)} and {(M, K)}, one entry for each of the {M} matrices"
            )
        if self.counts is not None and self.counts.shape != (M, K, K):
            raise DataError(f"`counts` has shape {self.counts.shape}; it must be {(M, K, K)}, as `P` is")
        if M > 0:
            try:
                check_preference(self.P)
            except ValueError as error:
                raise DataError(str(error)) from error

    def __len__(self) -> int:
        return self.P.shape[0]

    def select(self, keep: np.ndarray, name: str) -> "PreferenceSet":
        """The matrices that `keep` picks (a mask or indices); the report notes it as filter `name`."""
        P = self.P[keep]
        fields = {
            "P": P,
            "prompts": self.prompts[keep],
            "responses": self.responses[keep],
            "report": self.report.filtered(name, len(P)),
            "counts": None if self.counts is None else self.counts[keep],
        }
        part = copy.copy(self)  # not made anew: what was checked stays checked
        for field, values in fields.items():
            object.__setattr__(part, field, values)
        return part

    def cyclic(self) -> "PreferenceSet":
        """The matrices whose strict majority relation, P[i, j] > 1/2, has a directed cycle."""
        return self._only("cyclic")

    def strongly_transitive(self, *, strict: bool = False) -> "PreferenceSet":
        """The matrices with an order in which P[i, k] >= P[j, k] for all k whenever i stands above j.

        This is strong stochastic transitivity, the paper's filter, ties allowed; `strict=True` asks for > in
        every inequality, which hardly any data of few distinct values meets.

        Source: Chen, He, Jordan, Yao, arXiv 2602.12180, section on experiments, HelpSteer.
        """
        return self._only("strictly strongly transitive" if strict else "strongly transitive")

    def _only(self, name: str) -> "PreferenceSet":
        return self.select(_judge(self.P, name), name)

    def kind(self, name: str) -> "PreferenceSet":
        """The set itself (`"all"`), or what `cyclic` (`"cyclic"`) or `strongly_transitive` (`"st"`) keeps."""
        if name == "all":
            return self
        if name == "cyclic":
            return self.cyclic()
        if name == "st":
            return self.strongly_transitive()
        raise DataError(f"unknown kind {name!r}: choose all, cyclic or st")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set to `path`, an .npz file that `load_preferences` reads back whole.

        Raises `FileExistsError` where the file exists; a failed write leaves nothing behind.
        """
        target = pathlib.Path(path)
        if target.suffix != ".npz":
            raise DataError(f"{target}: a set is saved as .npz; name the file {target.with_suffix('.npz').name}")
        if target.exists():
            raise FileExistsError(f"{target} exists already; choose another name or remove it first")
        if not target.parent.is_dir():
            raise DataError(f"{target}: the folder {target.parent} does not exist; make it first")
        arrays: dict[str, Any] = {
            "P": self.P,
            "prompts": self.prompts,
            "responses": self.responses,
            "report": np.asarray(self.report.to_json()),
            "source": np.asarray(self.source),
            "synthetic": np.asarray(self.synthetic),
        }
        if self.counts is not None:
            arrays["counts"] = self.counts
        write_whole(target, lambda path: np.savez(path, **arrays))


@functools.cache
def _judges() -> dict[str, Callable]:
    """The batched tests, kept so that each shape compiles once."""
    return {
        "cyclic": jax.jit(jax.vmap(has_cycle)),
        "strongly transitive": jax.jit(jax.vmap(lambda P: strong_order(P).holds)),
        "strictly strongly transitive": jax.jit(jax.vmap(lambda P: strong_order(P).strict)),
    }


def _judge(P: np.ndarray, kind: str) -> np.ndarray:
    """(M,) bool: which matrices are of `kind`, in blocks of one shape."""
    judge = _judges()[kind]
    M, K = P.shape[:2]
    keep = np.zeros(M, bool)
    size = min(_CHUNK, 1 << max(M - 1, 0).bit_length())
    for start in range(0, M, size):
        block = np.full((size, K, K), 0.5)
        count = min(size, M - start)
        block[:count] = P[start : start + count]
        keep[start : start + count] = np.asarray(judge(block))[:count]
    return keep
