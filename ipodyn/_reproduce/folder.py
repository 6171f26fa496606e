"""The folder of a run: pictures, tables, and for each finished figure a manifest, written last.

folder/run.json                     the configuration and the source of the data
folder/figures/NAME.DATA.png, .pdf  folder/tables/NAME.DATA.csv
folder/finished/NAME.json           what NAME was made from, checksums of its files, its findings
"""

import csv
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .._numerics.files import sweep, write_whole
from .claims import Judged
from .config import Config, Made, Material
from .registry import Figure

INPUTS = {"configuration": "sizes, parameters or seed", "data": "data", "code": "version of ipodyn or jax"}


@functools.cache
def code_fingerprint() -> str:
    """A hash of the versions and of everything that makes numbers or pictures; the command line is not part of it."""
    import ipodyn

    root = pathlib.Path(ipodyn.__file__).parent
    digest = hashlib.sha256(f"{ipodyn.__version__} {jax.__version__}".encode())
    for path in sorted(root.rglob("*.py")):
        if "_cli" not in path.relative_to(root).parts:
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class Folder:
    """Where a run keeps its figures; several runs of the same inputs add to one folder."""

    def __init__(self, path: pathlib.Path, config: Config, material: Material):
        self.path = path
        self.config = config
        self.material = material
        self.inputs = {
            "configuration": config.fingerprint(),
            "data": material.fingerprint(),
            "code": code_fingerprint(),
        }

    def open(self, *, overwrite: bool = False) -> None:
        """Create the folder, or take up the run in it; `ValueError` where it holds another one or other files."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; name a folder for the figures.")
        run = self.path / "run.json"
        if self.path.exists() and any(self.path.iterdir()) and not run.exists():
            raise ValueError(f"{self.path} is not empty and holds no figures of ipodyn; name another folder.")
        if run.exists() and not overwrite:
            try:
                before = json.loads(run.read_text(encoding="utf-8"))["inputs"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{run} cannot be read; name another folder, or say --overwrite.") from None
            other = [words for key, words in INPUTS.items() if before.get(key) != self.inputs[key]]
            if other:
                raise ValueError(
                    f"{self.path} holds figures of another run (different {' and '.join(other)}); name another folder, "
                    "or say --overwrite to make them anew."
                )
        for name in ("", "figures", "tables", "finished"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
            sweep(self.path / name)
        import ipodyn

        description = {
            "ipodyn_version": ipodyn.__version__,
            "jax_version": jax.__version__,
            "source": self.material.source,
            "synthetic": self.material.synthetic,
            "matrices": {name: len(self.material.of(name)) for name in ("all", "cyclic", "st")},
            "inputs": self.inputs,
            "configuration": self.config,
        }
        text = json.dumps(description, indent=2, default=_plain, ensure_ascii=False)
        self.write(run, lambda path: path.write_text(text, encoding="utf-8"))

    def files(self, name: str) -> dict[str, pathlib.Path]:
        """Its pictures and its table; like titles, file names say what data they show."""
        whole = f"{name}.{self.material.tag()}"
        return {
            "png": self.path / "figures" / f"{whole}.png",
            "pdf": self.path / "figures" / f"{whole}.pdf",
            "csv": self.path / "tables" / f"{whole}.csv",
        }

    def finished(self, name: str) -> dict[str, Any] | None:
        """The manifest of a figure, if it was made from the same inputs and its files are what they were."""
        try:
            manifest = json.loads((self.path / "finished" / f"{name}.json").read_text(encoding="utf-8"))
            whole = manifest["inputs"] == self.inputs and all(
                _checksum(path) == manifest["sha256"][kind] for kind, path in self.files(name).items()
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return manifest if whole else None

    def keep(self, figure: Figure, made: Made, seconds: float) -> None:
        """Write table and pictures, and then the manifest that makes them count."""
        files = self.files(figure.name)
        mark = self.path / "finished" / f"{figure.name}.json"
        mark.unlink(missing_ok=True)
        self.write(files["csv"], lambda path: write_table(path, {**made.columns, "source": self.material.heading()}))
        drawn = made.draw()
        title = f"{figure.title} · {self.material.heading()}"
        # Neither time nor program version, so that the same numbers are the same bytes.
        self.write(files["png"], lambda path: drawn.savefig(path, metadata={"Title": title, "Software": None}))
        information = {"Title": title, "Creator": "ipodyn", "Producer": None, "CreationDate": None}
        self.write(files["pdf"], lambda path: drawn.savefig(path, metadata=information))
        manifest = {
            "figure": figure.name,
            "title": figure.title,
            "source": self.material.source,
            "inputs": self.inputs,
            "sha256": {kind: _checksum(path) for kind, path in files.items()},
            "seconds": round(seconds, 2),
            "words": made.words,
            "findings": made.findings,
        }
        text = json.dumps(manifest, indent=2, default=_plain, ensure_ascii=False)
        self.write(mark, lambda path: path.write_text(text, encoding="utf-8"))

    def write_claims(self, judged: Sequence[Judged]) -> None:
        """claims.csv and claims.md."""
        rows = [(j.claim.says, j.claim.source, j.claim.figure, j.evidence, j.verdict) for j in judged]
        names = ("claim", "where", "figure", "evidence", "verdict")
        columns = dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
        table = {**columns, "source": self.material.heading()}
        self.write(self.path / "claims.csv", lambda path: write_table(path, table))
        lines = [f"# Claims and their evidence\n\nData: {self.material.heading()}\n"]
        lines += [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        text = "\n".join(lines) + "\n"
        self.write(self.path / "claims.md", lambda path: path.write_text(text, encoding="utf-8"))

    def write(self, path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
        """A file that would not change keeps its time."""
        write_whole(path, write, keep_equal=True)


def write_table(path: pathlib.Path, columns: dict[str, Any]) -> None:
    """Columns of one length, or a text for all rows, as CSV; numbers with nine digits."""
    number = max(len(column) for column in columns.values() if not isinstance(column, str))
    listed = [[column] * number if isinstance(column, str) else list(column) for column in columns.values()]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*listed, strict=True):
            writer.writerow([f"{cell:.9g}" if isinstance(cell, float | np.floating) else cell for cell in row])


def _checksum(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know: dataclasses, NumPy scalars."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not known to JSON")
