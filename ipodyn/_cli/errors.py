"""Foreseeable errors: one line that names the culprit and the cure, exit code 2."""

import contextlib
from collections.abc import Iterator


class CommandError(Exception):
    """What the user can mend; shown as one line, without a traceback."""


class Stopped(Exception):
    """The user pressed Ctrl-C; says what is kept."""


@contextlib.contextmanager
def foreseen(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """Exceptions of these kinds raised inside are the user's to mend: their message is shown as one line.

    Only around calls that check user input, so that a defect of ours keeps its traceback.
    """
    try:
        yield
    except kinds as error:
        raise CommandError(prefix + one_line(str(error) or type(error).__name__)) from error


@contextlib.contextmanager
def writing(path: object) -> Iterator[None]:
    """Around everything that writes `path`: a full disk or a missing permission is one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CommandError(f"{path}: cannot be written ({reason}); choose another --out or make room there") from error


def one_line(text: str) -> str:
    return " ".join(text.split())
