"""Where a run keeps its files: a folder, or a bucket of an object store behind `s3://` or `gs://`.

Both hold contents under names such as `map.zarr/entropy/c/0/0/0`. What is written appears whole or not at all, and of
several writers that `create` one name exactly one succeeds; nothing else is asked of either.
"""

import abc
import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .._numerics.files import SCRATCH, scratch_file, settle, sweep

_SCHEMES = ("s3", "gs")


class Writer(Protocol):
    """What accepts bytes in order."""

    def write(self, content: bytes, /) -> object: ...


class Place(abc.ABC):
    """Contents under names. **For developers.** `write` and `publish` rest on the abstract methods."""

    name: str  # as the user gave it

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make the place if it is absent; `ValueError` if there cannot be one."""

    @abc.abstractmethod
    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """The content from byte `start` on, `length` of it; None if there is nothing of this name."""

    @abc.abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write the content if there is nothing of this name; whether this writer was the first."""

    @abc.abstractmethod
    def writer(self, key: str) -> contextlib.AbstractContextManager[Writer]:
        """Takes the content piece by piece; it appears when the block is left, and not if that is by an error."""

    @abc.abstractmethod
    def publish(self, key: str, make: Callable[[pathlib.Path], object]) -> None:
        """`make` fills a local file, whose content then appears whole; the suffix of its name is that of the key."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Take the content away, if it is there."""

    @abc.abstractmethod
    def names(self, folder: str = "") -> set[str]:
        """Names directly in a folder ("" is the top), both of contents and of folders."""

    def sweep(self) -> None:
        """Remove what killed writers left behind, if they can leave anything that is seen."""
        return

    def write(self, key: str, content: bytes) -> None:
        """Replace the content."""
        with self.writer(key) as writer:
            writer.write(content)


def place_at(where: "str | os.PathLike[str] | Place") -> Place:
    """The place of that name: `s3://…` and `gs://…` are buckets, all else is a folder.

    Raises `ValueError` for other schemes and `ImportError` where the library for buckets is missing.
    """
    if isinstance(where, Place):
        return where
    name = os.fspath(where)
    scheme, separator, rest = name.partition("://")
    if not separator:
        return Folder(name)
    if scheme not in _SCHEMES:
        raise ValueError(f"{name}: no store is known behind {scheme}://; name a folder, s3://BUCKET/… or gs://BUCKET/…")
    if not rest.strip("/"):
        raise ValueError(f"{name} names no bucket; write {scheme}://BUCKET/FOLDER")
    return Bucket(name)


class Folder(Place):
    """A folder of a file system, which many machines may share."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = pathlib.Path(folder)
        self.name = str(self.folder)

    def prepare(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; name a folder for the outputs.")
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        try:
            with open(self.folder / key, "rb") as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def create(self, key: str, content: bytes) -> bool:
        path = self.folder / key
        if path.exists():
            return False
        with self._beside(key) as scratch:
            scratch.write_bytes(content)
            try:
                os.link(scratch, path)  # unlike a rename it fails if another process was faster
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                if path.exists():
                    return False
                os.replace(scratch, path)
        return True

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        with self._beside(key) as scratch:
            with open(scratch, "wb") as file:
                yield file
            self._put(scratch, key)

    def publish(self, key: str, make: Callable[[pathlib.Path], object]) -> None:
        with self._beside(key) as scratch:
            make(scratch)
            self._put(scratch, key)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def names(self, folder: str = "") -> set[str]:
        try:
            entries = os.listdir(self.folder / folder)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {name for name in entries if not name.startswith(SCRATCH)}

    @contextlib.contextmanager
    def _beside(self, key: str) -> Iterator[pathlib.Path]:
        """A name for a file that is gone at the end whatever happens; at the top, where it is swept."""
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        with scratch_file(self.folder, pathlib.PurePath(key).suffix) as scratch:
            yield scratch

    def _put(self, scratch: pathlib.Path, key: str) -> None:
        settle(scratch, self.folder / key)

    def sweep(self) -> None:
        sweep(self.folder)


class Bucket(Place):
    """A prefix of a bucket. Credentials and endpoints come from the environment or the machine's role.

    One request writes a content whole; a conditional one (`If-None-Match`, `x-goog-if-generation-match`) creates it.
    """

    def __init__(self, url: str):
        try:
            import obstore
            from obstore import exceptions, store
        except ImportError:
            raise ImportError(f"{url} needs the package obstore: pip install 'ipodyn[cloud]'") from None
        self.name, self._api, self._errors = url, obstore, exceptions
        with self._plain():
            self._store: Any = store.from_url(url, retry_config={"max_retries": 5})

    def prepare(self) -> None:
        self.names()  # a bucket that is absent or closed to us is said now

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        if length == 0:
            return b""
        span = {"offset": start} if length is None else (start, start + length)
        with self._plain():
            try:
                whole = start == 0 and length is None
                return bytes(self._api.get(self._store, key, options={} if whole else {"range": span}).bytes())
            except FileNotFoundError:
                return None
            except self._errors.BaseError:
                # A range that begins behind the end is refused in as many words as there are servers.
                if start and self._api.head(self._store, key)["size"] <= start:
                    return b""
                raise

    def create(self, key: str, content: bytes) -> bool:
        with self._plain():
            try:
                self._api.put(self._store, key, content, mode="create")
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                return False
        return True

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        with self._plain():
            writer = self._api.open_writer(self._store, key)
            yield writer  # after an error it is never closed, and what was sent stays invisible
            writer.close()

    def publish(self, key: str, make: Callable[[pathlib.Path], object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / pathlib.PurePath(key).name
            make(path)
            with self._plain():
                self._api.put(self._store, key, path)

    def delete(self, key: str) -> None:
        with self._plain(), contextlib.suppress(FileNotFoundError):
            self._api.delete(self._store, key)

    def names(self, folder: str = "") -> set[str]:
        with self._plain():
            entries = self._api.list_with_delimiter(self._store, prefix=folder or None)
        paths = [entry["path"] for entry in entries["objects"]] + list(entries["common_prefixes"])
        return {path.rstrip("/").rpartition("/")[2] for path in paths}

    @contextlib.contextmanager
    def _plain(self) -> Iterator[None]:
        """What the library raises, as the `OSError` that a folder would raise."""
        try:
            yield
        except self._errors.BaseError as error:
            raise OSError(errno.EIO, _reason(error), self.name) from error


def _reason(error: Exception) -> str:
    """The first sentence of what is often a page."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]
