"""Files that are whole or absent: each is written under a name of its own first, and then takes its place."""

import contextlib
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

SCRATCH = ".unfinished-"  # what a killed process may leave behind under such a name is nobody's
_ABANDONED = 60.0  # seconds without a change, and no lock: its writer is gone


@contextlib.contextmanager
def scratch_file(folder: pathlib.Path, suffix: str) -> Iterator[pathlib.Path]:
    """A name in a folder for a file that is gone at the end unless `settle` put it into its place.

    Two writers never share it, and the lock beside it keeps others from sweeping it. Writers tell formats by `suffix`.
    """
    lock = folder / f"{SCRATCH}{uuid.uuid4().hex}"
    scratch = lock.with_suffix(suffix or ".bin")
    try:
        with open(lock, "xb") as held:
            _locked(held)
            yield scratch
    finally:
        scratch.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)


def settle(scratch: pathlib.Path, path: pathlib.Path) -> None:
    """The finished file takes the place of `path`, of which a reader sees the old content or the new one."""
    with open(scratch, "rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, path)


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], object], *, keep_equal: bool = False) -> None:
    """`write` fills a file, which then takes the place of `path`: never half a file.

    `keep_equal`: a file that would not change keeps its time.
    """
    with scratch_file(path.parent, path.suffix) as scratch:
        write(scratch)
        if not (keep_equal and path.exists() and path.read_bytes() == scratch.read_bytes()):
            settle(scratch, path)


def sweep(folder: pathlib.Path) -> None:
    """Remove what killed writers left in a folder; what is fresh or locked may be somebody's."""
    for name in os.listdir(folder):
        path = folder / name
        with contextlib.suppress(OSError):
            if name.startswith(SCRATCH) and path.stat().st_mtime < time.time() - _ABANDONED:
                with open(path.with_suffix(""), "ab") as lock:
                    if _locked(lock):
                        path.unlink()
                        path.with_suffix("").unlink(missing_ok=True)


def _locked(file: Any) -> bool:
    """Whether the lock on an open file could be had; it goes with the process. False where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
