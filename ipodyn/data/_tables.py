"""Tidy tables from CSV, JSON lines and Parquet; their columns as numbers and ids; errors that say where."""

import gzip
import io
import os
import pathlib
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._report import DataError

if TYPE_CHECKING:
    import polars

READABLE = ".csv, .tsv, .jsonl, .ndjson (each also with .gz) or .parquet"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # spellings of "no value" in a column of numbers
_LONGEST_ID = 80  # characters; longer ids are texts, and a matrix needs no text


class Ids(NamedTuple):
    """A column of ids: `labels[codes[row]]` is the id of a row, code -1 a missing one."""

    codes: np.ndarray
    labels: list


def read_table(path: str | os.PathLike[str] | Any) -> "polars.DataFrame":
    """The rows of a table as a polars frame: of a file, whose suffix says which format it has, or of an object.

    - `path`: a file: .csv (commas or semicolons), .tsv, .jsonl and .ndjson, each also gzipped (.csv.gz); .parquet.
      Types are inferred from all rows. Or a polars or pandas frame, or a split of Hugging Face's `datasets`.

    Needs polars: `pip install 'ipodyn[io]'`. Raises `DataError` (one line) for a missing, empty, corrupted or unknown
    file, or an object that is no table.
    """
    if not isinstance(path, str | os.PathLike):
        return _frame_of(path)
    path = pathlib.Path(path)
    form = table_format(path)
    polars = _polars()
    raw = _bytes_of(path)
    try:
        if form == "parquet":
            frame = polars.read_parquet(io.BytesIO(raw))
        elif form == "jsonl":
            frame = polars.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
        else:
            separator = "\t" if form == "tsv" else _separator(raw)
            frame = polars.read_csv(io.BytesIO(raw), separator=separator, infer_schema_length=None)
    except (polars.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as {form} ({one_line(error)}); check that the file is whole and UTF-8"
        ) from error
    if frame.height == 0:
        raise DataError(f"{path}: has a header but no rows; give a file with data")
    return frame


def name_of(source: object) -> str:
    """What messages call a table: its path, or the kind of object it is."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"the {type(source).__name__}"


def _separator(raw: bytes) -> str:
    """Of a file called .csv: the semicolon where the header has some and no comma, as spreadsheets write it."""
    header = raw.split(b"\n", 1)[0]
    return ";" if b";" in header and b"," not in header else ","


def _frame_of(table: Any) -> "polars.DataFrame":
    """A polars frame of a table in memory: polars, pandas, or a split of Hugging Face's `datasets`."""
    polars = _polars()
    if isinstance(table, polars.DataFrame | polars.LazyFrame):
        frame = table.lazy().collect()
    elif isinstance(table, dict) and not all(isinstance(column, list | np.ndarray) for column in table.values()):
        raise DataError(f"a {type(table).__name__} with {', '.join(map(repr, table))} is no table; give one of these")
    else:
        try:
            columns = list(getattr(table, "column_names", getattr(table, "columns", table)))
            frame = polars.DataFrame({str(name): list(table[name]) for name in columns}, infer_schema_length=None)
        except (TypeError, KeyError, IndexError, polars.exceptions.PolarsError) as error:
            raise DataError(
                f"the {type(table).__name__} is no table ({one_line(error)}); give a file, a frame of polars or "
                "pandas, or a split of datasets"
            ) from error
    if frame.height == 0:
        raise DataError(f"the {type(table).__name__} has no rows; give a table with data")
    return frame


def table_format(path: pathlib.Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet` by the suffix of `path`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = "".join(suffixes[-1:])
    if suffix == ".gz":
        suffix = "".join(suffixes[-2:-1])
        suffix = "" if suffix == ".parquet" else suffix
    formats = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    if suffix not in formats:
        raise DataError(f"{path}: unknown kind of table {path.suffix or '(no suffix)'!r}; give {READABLE}")
    return formats[suffix]


def _polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise ImportError("`ipodyn.data` needs polars to read tables: pip install 'ipodyn[io]'") from error
    return polars


def check_file(path: pathlib.Path) -> None:
    """Raise one line unless `path` is a file with something in it."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it")
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty; give a file with data")


def _bytes_of(path: pathlib.Path) -> bytes:
    check_file(path)
    raw = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path}: is not a whole gzip file ({one_line(error)}); copy or download it again"
            ) from error
    if not raw.strip():
        raise DataError(f"{path}: is empty; give a file with data")
    return raw


def one_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require_columns(frame: "polars.DataFrame", names: list[str], path: object) -> None:
    """Raise one line that names the columns of `names` the table lacks, and those it has."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        noun = "column" if len(missing) == 1 else "columns"
        raise DataError(
            f"{path}: no {noun} {', '.join(map(repr, missing))}; the table has {', '.join(map(repr, frame.columns))}"
        )


def numbers(frame: "polars.DataFrame", name: str, path: object) -> np.ndarray:
    """(rows,) float64 of a column, NaN where there is no finite value; text raises, with its row (from 1)."""
    column = frame[name]
    if column.dtype.is_numeric() or str(column.dtype) in ("Boolean", "Null"):
        values = column.cast(_polars().Float64).fill_null(float("nan")).to_numpy()
        return np.where(np.isfinite(values), values, np.nan)
    if str(column.dtype) not in ("String", "Utf8"):
        raise DataError(f"{path}: column {name!r} holds {column.dtype} values; it must hold numbers")
    values = np.full(frame.height, np.nan)
    for row, text in enumerate(column.to_list()):
        if text is None or text.strip().lower() in _MISSING:
            continue
        try:
            values[row] = float(text)
        except ValueError:
            raise DataError(
                f"{path}: column {name!r} holds text ({text[:30]!r} in row {row + 1}); it must hold numbers, "
                "so map its categories to numbers first"
            ) from None
    return np.where(np.isfinite(values), values, np.nan)


def ids(frame: "polars.DataFrame", names: list[str], path: object) -> list[Ids]:
    """Columns of ids as codes in order of first appearance; several columns share one list of labels."""
    columns = []
    for name in names:
        column = frame[name]
        if column.dtype.is_nested():
            raise DataError(f"{path}: column {name!r} holds {column.dtype} values; it must hold ids or texts")
        if column.dtype.is_float():
            # Integers with gaps arrive as floats (1.0); whole numbers stay the ids they were.
            column = column.fill_nan(None)
            whole = column.drop_nulls()
            column = column.cast(_polars().Int64 if bool((whole == whole.round()).all()) else _polars().String)
        columns.append(column if column.dtype.is_integer() else column.cast(_polars().String))
    if len({column.dtype.is_integer() for column in columns}) > 1:
        columns = [column.cast(_polars().String) for column in columns]
    labels: dict = {}
    result = []
    for column in columns:
        codes = [-1 if x is None or x == "" else labels.setdefault(x, len(labels)) for x in column.to_list()]
        result.append(np.asarray(codes, int))
    return [Ids(codes, list(labels)) for codes in result]


def label_array(labels: list) -> tuple[np.ndarray, bool]:
    """The labels as an array that can be stored, and whether long texts were replaced by running numbers."""
    if all(isinstance(label, int) for label in labels):
        return np.asarray(labels, dtype=np.int64) if _fits(labels) else np.asarray([str(x) for x in labels]), False
    if max(len(label) for label in labels) > _LONGEST_ID:
        return np.arange(len(labels)), True
    return np.asarray(labels), False


def _fits(labels: list) -> bool:
    return all(-(2**63) <= label < 2**63 for label in labels)
