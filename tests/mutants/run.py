"""Puts errors into the code, one at a time, and says whether the tests notice.

    python tests/mutants/run.py                                the recorded errors and a sample of 200, quick tests
    python tests/mutants/run.py --slow                         survivors meet the slow tests of their area too
    python tests/mutants/run.py --area newton --sample 0       the recorded errors of one area
    python tests/mutants/run.py --only bradley-terry-rounding  a single one, by the beginning of its name

Each error goes into a copy of the tree that is thrown away. A child of a process that has the libraries loaded, but not
ipodyn, runs the tests named for it, then those of its file and area (`areas.py`), and stops at the first that fails.

- `errors.jsonl` holds the recorded errors: exact text, found once in its file, and what replaces it. A moved file
  changes a path here; a changed line is reported as "does not apply", which counts against the run.
- `operators.py` makes the sample from the code as it is. `equivalents.jsonl` names those that change no result.

The exit status is 1 where an area has fewer than 90 % noticed by quick tests (97 % with `--slow`), more than 10 %
equivalent, or an error that does not apply; 2 where tests fail without an error. Needs a POSIX system.
"""

import argparse
import collections
import contextlib
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, NamedTuple

import areas
import operators

HERE = pathlib.Path(__file__).resolve().parent
PRELOADED = (
    "numpy",
    "jax",
    "jax.numpy",
    "equinox",
    "jaxtyping",
    "beartype",
    "pytest",
    "hypothesis",
    "chex",
    "optax",
    "scipy.optimize",
    "scipy.stats",
    "scipy.linalg",
    "scipy.special",
    "polars",
    "xarray",
    "zarr",
    "matplotlib.pyplot",
    "typer",
    "typer.testing",
    "rich.progress",
)
OPTIONS = (
    "-x",
    "-q",
    "--tb=line",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
QUICK, SLOW = 0.90, 0.97  # least share noticed, per area
EQUIVALENT = 0.10  # largest share of errors that change nothing
USAGE, NO_TESTS = 4, 5  # pytest's exit status where a named test does not exist, or nothing was selected
NOT_FOUND = "a test that it names does not exist"


class Mutant(NamedTuple):
    """One file as it would be with the error in it."""

    name: str
    area: str
    file: str
    text: str | None  # None: the error does not apply
    shown: str  # "file:line  old -> new"
    tests: tuple[str, ...]  # before those of its area
    equivalent: str | None  # why it changes nothing


class Slot:
    """A copy of the tree in which one child at a time runs tests."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.root = folder, folder / "tree"
        ignored = shutil.ignore_patterns("__pycache__", ".git", ".venv", ".pytest_cache", ".ruff_cache", ".hypothesis")
        shutil.copytree(areas.ROOT, self.root, ignore=ignored, symlinks=True)
        cache = areas.ROOT / ".pytest_cache"  # compiled programs are shared, keyed by what they compute
        cache.mkdir(exist_ok=True)
        (self.root / ".pytest_cache").symlink_to(cache)
        data = areas.ROOT.parent / "shared"
        if data.is_dir():
            (folder / "shared").symlink_to(data)
        self.log = folder / "log"
        self.pid = 0

    def put(self, mutant: Mutant) -> None:
        self.path = self.root / mutant.file
        self.before, times = self.path.read_text(), self.path.stat()
        self.times = (times.st_atime_ns, times.st_mtime_ns)
        if mutant.text is not None:
            self.path.write_text(mutant.text)

    def restore(self) -> None:
        self.path.write_text(self.before)
        os.utime(self.path, ns=self.times)  # so that its byte code is valid again
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def start(self, tests: list[str], slow: bool, seconds: int) -> None:
        self.pid, self.began, self.limit = os.fork(), time.monotonic(), seconds
        if self.pid == 0:
            code = 3
            try:
                code = self._child([*(["-m", "slow"] if slow else []), *tests], seconds)
            finally:
                os._exit(code)

    def warm(self, tests: list[str]) -> None:
        """Keeps byte code of the tests and of the package as the checkers of shapes see it: half of a child's start."""
        self.pid = os.fork()
        if self.pid == 0:
            code = 3
            try:
                code = self._child(["--collect-only", *tests], 600, keep=True)
            finally:
                os._exit(code)
        _, status = os.waitpid(self.pid, 0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"tests cannot be collected:\n{self.log.read_text()[-3000:]}")

    def _child(self, arguments: list[str], seconds: int, keep: bool = False) -> int:
        os.setsid()  # so that processes that the tests start end with it
        os.chdir(self.root)
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        # Byte code is that of the tree without errors, and told by its time from code with one.
        os.environ |= {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "" if keep else "1"}
        sys.dont_write_bytecode = not keep
        sys.path[:] = [str(self.root), *(p for p in sys.path if p not in (str(HERE), str(areas.ROOT), ""))]
        for name in [name for name in sys.modules if name in ("areas", "operators")]:
            del sys.modules[name]
        import pytest

        return int(pytest.main([*OPTIONS, f"--basetemp={self.folder / 'tmp'}", *arguments]))

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid and time.monotonic() - self.began < 8 * self.limit:  # stuck without computing: waits for something
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not pid:
            _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def reason(self) -> str:
        """The last test that failed, or how it ended."""
        lines = self.log.read_text(errors="replace").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" - ")[0].split(maxsplit=1)[1] if failed else "stopped: " + (lines or [""])[-1][:80]


def recorded(wanted: list[str]) -> list[Mutant]:
    """The errors of `errors.jsonl`."""
    found = []
    for line in (HERE / "errors.jsonl").read_text().splitlines():
        row = json.loads(line)
        path = areas.ROOT / row["file"]
        source = path.read_text() if path.is_file() else ""
        once = source.count(row["old"]) == 1
        at = source[: source.find(row["old"])].count("\n") + 1 if once else 0
        area = areas.area_of(row["file"]) or wanted[0]  # a path that is no more is reported with the first
        if area in wanted:
            text = source.replace(row["old"], row["new"]) if once else None
            shown = f"{row['file']}:{at}  {row['note']}"
            tests = tuple(row.get("tests", ()))
            found.append(Mutant(row["id"], area, row["file"], text, shown, tests, row.get("equivalent")))
    return found


def sampled(count: int, seed: int, wanted: list[str]) -> list[Mutant]:
    """Errors made by rule, with those that are known to change nothing marked."""
    rows = [json.loads(line) for line in (HERE / "equivalents.jsonl").read_text().splitlines()]
    known = {row["id"]: row["equivalent"] for row in rows}
    found = []
    for area, error in operators.sample(count, seed, wanted):
        source = (areas.ROOT / error.file).read_text()
        name = operators.identity(error, source)
        line = source.count("\n", 0, error.start) + 1
        old, new = (" ".join(text.split()) for text in (source[error.start : error.end], error.new))
        shown = f"{error.file}:{line}  {error.kind}: {old[:70]} -> {new[:70]}"
        text = source[: error.start] + error.new + source[error.end :]
        found.append(Mutant(name, area, error.file, text, shown, (), known.get(name)))
    return found


def judge(slots: list[Slot], jobs: list[tuple[Mutant, list[str], bool]], seconds: int, verbose: bool):
    """Runs (mutant, tests, slow) and yields (mutant, noticed by) as they end; None is a survivor."""
    waiting, running = collections.deque(jobs), {}
    while waiting or running:
        for slot in slots:
            if slot not in running and waiting:
                mutant, tests, slow = waiting.popleft()
                slot.put(mutant)
                slot.start(tests, slow, seconds)
                running[slot] = mutant
            elif slot in running and (code := slot.poll()) is not None:
                mutant = running.pop(slot)
                by = NOT_FOUND if code == USAGE else None if code in (0, NO_TESTS) else slot.reason()
                if verbose and code:
                    print(slot.log.read_text(errors="replace")[-3000:])
                slot.restore()
                yield mutant, by, time.monotonic() - slot.began
        time.sleep(0.02)


def outcome_of(by: str | None) -> str:
    return "survived" if by is None else "does not apply" if by == NOT_FOUND else "killed"


def clean(slots: list[Slot], wanted: list[str], slow: bool, seconds: int) -> None:
    """Without an error every test passes; byte code is kept for the runs that follow."""
    failed = False
    nothing = {area: Mutant(area, area, "pyproject.toml", None, "", (), None) for area in wanted}
    jobs = [(nothing[area], areas.all_tests(area), s) for area in wanted for s in ((False, True) if slow else (False,))]
    for mutant, by, took in judge(slots, jobs, 20 * seconds, verbose=True):
        print(f"without an error  {mutant.area:<11} {took:6.0f} s  {by or 'passes'}", flush=True)
        failed |= by is not None
    if failed:
        sys.exit(2)


def summarise(wanted: list[str], outcomes: dict[str, list[str]], slow: bool) -> bool:
    """A line per area; whether every area is above its bars."""
    good, bar = True, SLOW if slow else QUICK
    head = ("killed", "survived", "equivalent", "does not apply")
    print(f"\n{'area':<12}{'tried':>6}" + "".join(f"{name:>16}" for name in head) + f"{'share':>9}")
    for area in wanted:
        n = collections.Counter(outcomes[area])
        judged, tried = n["killed"] + n["survived"], sum(n.values())
        share = n["killed"] / judged if judged else 1.0
        print(f"{area:<12}{tried:>6}" + "".join(f"{n[name]:>16}" for name in head) + f"{100 * share:>8.1f}%")
        good &= share >= bar and not n["does not apply"] and n["equivalent"] <= EQUIVALENT * max(tried, 1)
    print(f"bars: {100 * bar:.0f} % killed, at most {100 * EQUIVALENT:.0f} % equivalent: {'met' if good else 'missed'}")
    return good


def main() -> int:
    options = argparse.ArgumentParser(description="Whether the tests notice errors put into the code.")
    options.add_argument("--area", action="append", choices=list(areas.AREAS), help="one area; may be repeated")
    options.add_argument("--sample", type=int, default=200, help="errors made by rule, over all areas")
    options.add_argument("--seed", type=int, default=0, help="of the sample")
    options.add_argument("--slow", action="store_true", help="survivors of the quick tests meet the slow ones")
    options.add_argument("--only", action="append", default=[], help="errors whose name begins so")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="children at a time")
    options.add_argument("--seconds", type=int, default=300, help="of computation for one error: more is noticed")
    options.add_argument("--no-clean", action="store_true", help="skip the run without an error")
    options.add_argument("--list", action="store_true", help="say what would be tried")
    options.add_argument("--verbose", action="store_true", help="what pytest says where it fails")
    options.add_argument("--out", type=pathlib.Path, help="one JSON line per error")
    arguments: Any = options.parse_args()

    wanted = arguments.area or list(areas.AREAS)
    mutants = recorded(wanted) + sampled(arguments.sample, arguments.seed, wanted)
    if arguments.only:
        mutants = [m for m in mutants if m.name.startswith(tuple(arguments.only))]
    if arguments.list:
        print("\n".join(f"{m.name:<28} {m.area:<11} {m.shown}" for m in mutants))
        return 0
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    outcomes: dict[str, list[str]] = {area: [] for area in wanted}
    lines = []

    def note(mutant: Mutant, outcome: str, why: str, took: float = 0.0) -> None:
        outcomes[mutant.area].append(outcome)
        lines.append({"id": mutant.name, "area": mutant.area, "outcome": outcome, "shown": mutant.shown, "by": why})
        print(f"{outcome:<15} {took:5.0f} s  {mutant.area:<11} {mutant.name:<24} {mutant.shown}  [{why}]", flush=True)

    with tempfile.TemporaryDirectory(prefix="ipodyn-mutants-") as folder:
        slots = [Slot(pathlib.Path(folder) / str(n)) for n in range(arguments.jobs)]
        for slot in slots:
            slot.warm(list(dict.fromkeys(test for area in wanted for test in areas.all_tests(area))))
        if not arguments.no_clean:
            clean(slots, [a for a in wanted if any(m.area == a for m in mutants)], arguments.slow, arguments.seconds)
        for mutant in mutants:
            if mutant.equivalent:
                note(mutant, "equivalent", mutant.equivalent)
            elif mutant.text is None:
                note(mutant, "does not apply", "its text is not found, or more than once")
        live = [m for m in mutants if m.text is not None and not m.equivalent]
        survivors = []
        quick = [(m, [*m.tests, *areas.tests_of(m.file)], False) for m in live]
        for mutant, by, took in judge(slots, quick, arguments.seconds, arguments.verbose):
            if by is None and arguments.slow:
                survivors.append(mutant)
            else:
                note(mutant, outcome_of(by), by or "", took)
        late = [(m, [*m.tests, *areas.tests_of(m.file)], True) for m in survivors]
        for mutant, by, took in judge(slots, late, 4 * arguments.seconds, arguments.verbose):
            note(mutant, outcome_of(by), f"slow: {by}" if by else "", took)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return 0 if summarise(wanted, outcomes, arguments.slow) else 1


if __name__ == "__main__":
    sys.exit(main())
