"""What the user sees and gets: the terminal, the progress bar, files that are whole or absent."""

import collections
import pathlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rich.box
import rich.console
import rich.progress
import rich.table

from .._numerics.files import write_whole
from .errors import writing

_EVERY, _LATE = 10, 30  # seconds between lines about progress, and over which its speed is taken
_PLAIN_WIDTH = 110  # of lines that go to a file or a pipe


def console(file: Any = None, *, quiet: bool = False) -> rich.console.Console:
    """For text to stdout, or to `file`; colours and widths only where a terminal is; `quiet` says nothing."""
    stream = sys.stdout if file is None else file
    on_terminal = hasattr(stream, "isatty") and stream.isatty()
    width = None if on_terminal else _PLAIN_WIDTH
    # FORCE_COLOR, which notebooks and CI set, would make rich take a pipe for a terminal.
    force = None if on_terminal else False
    return rich.console.Console(
        file=stream, width=width, force_terminal=force, highlight=False, markup=False, soft_wrap=False, quiet=quiet
    )


def say(target: rich.console.Console, text: str = "") -> None:
    target.print(text, soft_wrap=True)


def table(title: str, columns: list[str], rows: list[list[str]], *, decorated: bool) -> rich.table.Table:
    """The first column to the left, numbers to the right; without rules and colours where not `decorated`.

    Where the width does not do, the last column, which may hold words, is wrapped.
    """
    made = rich.table.Table(
        title=title,
        title_justify="left",
        title_style="bold" if decorated else "",
        box=rich.box.SIMPLE_HEAD if decorated else None,
        pad_edge=False,
        header_style="bold" if decorated else "",
    )
    for index, name in enumerate(columns):
        made.add_column(name, justify="left" if index == 0 else "right", no_wrap=index < len(columns) - 1)
    for row in rows:
        made.add_row(*row)
    return made


def write_out(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """`write_whole`, whose foreseeable failures are one line."""
    with writing(path):
        write_whole(path, write)


class ProgressBar:
    """A bar with the remaining time on a terminal, else a line every so often, both on stderr."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.base = total, what, 0
        self.spoken = time.monotonic()
        self.seen: collections.deque[tuple[float, int]] = collections.deque([(self.spoken, 0)])
        self.terminal = sys.stderr.isatty()
        self.bar: rich.progress.Progress | None = None

    def __enter__(self) -> "ProgressBar":
        if self.terminal:
            self.bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.TaskProgressColumn(),
                rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
                console=rich.console.Console(file=sys.stderr),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total)
        return self

    def __call__(self, done: int, total: int) -> None:
        """`done` of the part in hand, whose size is `total`."""
        done += self.base
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
            return
        now = time.monotonic()
        if done == 0:  # what compiling took says nothing of the rest
            self.seen.clear()
        self.seen.append((now, done))
        while len(self.seen) > 2 and now - self.seen[1][0] >= _LATE:
            self.seen.popleft()
        then, before = self.seen[0]
        if now - self.spoken >= _EVERY and before < done < self.total:
            self.spoken = now
            left = (now - then) * (self.total - done) / (done - before)
            print(f"{self.what}: {done / self.total:.0%}, about {left:.0f} s left", file=sys.stderr, flush=True)

    def advance(self, part: int) -> None:
        """The part in hand is finished."""
        self.base += part
        if self.bar is not None:
            self.bar.update(self.task, completed=self.base)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
