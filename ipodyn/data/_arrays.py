"""Preference matrices from NumPy files."""

import io
import os
import pathlib
import zipfile

import numpy as np

from .._numerics.checks import check_preference
from ._report import DataError, LoadReport
from ._set import PreferenceSet
from ._tables import check_file, one_line

_NAMES = ("P", "preferences")


def load_preferences(path: str | os.PathLike[str]) -> PreferenceSet:
    """Preference matrices from a .npy or .npz file.

    - `.npy`: an array of shape (M, K, K) or (K, K), P[i, j] = Pr(i beats j).
    - `.npz`: the array called `P` or `preferences`, or the only one; optionally `prompts` (M,) and
      `responses` (M, K) and `counts` (M, K, K), the comparisons behind each entry. What `PreferenceSet.save` wrote
      is read back whole.

    Matrices are checked by `check_preference`; those in less than float64 are made exactly complementary,
    which moves entries by their rounding error. Pickled objects are never loaded.

    Raises `DataError`, one line with the culprit and the cure.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: unknown kind of array file {path.suffix or '(no suffix)'!r}; give .npy or .npz")
    check_file(path)
    try:
        # From memory: NumPy leaves the file of a broken archive open.
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        single = isinstance(loaded, np.ndarray)
        arrays = {"P": loaded} if single else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as a NumPy file ({one_line(error)}); save it again with numpy.save or "
            "numpy.savez, without objects"
        ) from error
    P = _matrices(path, arrays)
    M, K = P.shape[:2]
    prompts = arrays["prompts"] if "prompts" in arrays else np.arange(M)
    responses = arrays["responses"] if "responses" in arrays else np.tile(np.arange(K), (M, 1))
    if prompts.shape != (M,) or responses.shape != (M, K):
        raise DataError(
            f"{path}: `prompts` {prompts.shape} and `responses` {responses.shape} do not fit the {M} "
            f"matrices of {K} responses; they must have shapes {(M,)} and {(M, K)}"
        )
    if "report" in arrays:
        report = LoadReport.from_json(str(arrays["report"]))
    else:
        number = len(np.unique(prompts))
        report = LoadReport(M, M, {}, number, number, {}, M, unit="matrices")
    try:
        return PreferenceSet(
            P=P,
            prompts=prompts,
            responses=responses,
            report=report,
            source=str(arrays["source"]) if "source" in arrays else f"preferences {path.name}",
            synthetic=bool(arrays.get("synthetic", False)),
            counts=_counts(path, arrays, P.shape),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _counts(path: pathlib.Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """The comparisons behind each entry in float64, (M, K, K), or None."""
    if "counts" not in arrays:
        return None
    counts = arrays["counts"]
    good = counts.dtype.kind in "buif" and counts.reshape(-1, *counts.shape[-2:]).shape == shape
    if not good or not (np.isfinite(counts) & (counts >= 0)).all():
        raise DataError(f"{path}: `counts` must be numbers of comparisons, 0 or more, of shape {shape}")
    return counts.astype(np.float64).reshape(shape)


def _matrices(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The matrices in float64, (M, K, K)."""
    others = [name for name in arrays if name not in ("prompts", "responses", "counts")]
    name = next((name for name in _NAMES if name in arrays), others[0] if len(others) == 1 else None)
    if name is None:
        raise DataError(
            f"{path}: holds the arrays {', '.join(map(repr, arrays)) or '(none)'}; call the preference matrices 'P'"
        )
    P = arrays[name]
    if P.dtype.kind not in "biuf":
        raise DataError(f"{path}: array {name!r} has dtype {P.dtype}; it must hold real numbers")
    if P.ndim not in (2, 3) or P.shape[-1] != P.shape[-2] or P.size == 0:
        raise DataError(f"{path}: array {name!r} has shape {P.shape}; it must be (M, K, K) or (K, K), not empty")
    if P.dtype.kind != "f":
        P = P.astype(np.float64)
    coarse = P.dtype.itemsize < 8
    if coarse:  # before it is made complementary, whatever it held; all else is checked by the set that is made of it
        try:
            check_preference(P, name=name)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
    P = P.astype(np.float64).reshape(-1, *P.shape[-2:])
    return (P + 1 - P.swapaxes(-1, -2)) / 2 if coarse else P
